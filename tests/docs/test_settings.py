"""The settings in storage.md, and the keys and classes in cluster.md, are those that messages of the code list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import dtap_dask
from dtap_dask.errors import JobError
from dtap_dask.job.cluster.file import read_cluster_file
from dtap_dask.storage import near, settings

PAGES = Path(dtap_dask.__file__).parent / "docs"
NOBODY_S = "nobody_calls_a_key_this"


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its header."""
    below = (PAGES / page).read_text().partition(f"\n## {title}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].splitlines()[2:]]


def known(error: JobError) -> set[str]:
    """The words in `Known here: a, b.`"""
    listed = re.search(r"Known here: ([\w, ]+)\.", str(error))
    assert listed is not None, error
    return set(listed[1].split(", "))


def load(storage: dict[str, Any]) -> None:
    part = {"version": 1, "source": {"path": "x"}, "features": [{"columns": ["a"]}], "output": {"path": "o"}}
    dtap_dask.Job.load({**part, "storage": storage})


@pytest.mark.parametrize("section", ["dtap", "hdfs", "cache"])
def test_storage_settings_are_those_of_the_code(section: str) -> None:
    with pytest.raises(JobError) as caught:
        load({section: {NOBODY_S: 1}})
    names = [cells[0].strip("`") for cells in rows("storage.md", "Settings")]
    assert {name.split(".")[1] for name in names if name.startswith(f"{section}.")} - {"*"} == known(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DTAP_MAP", "Tap=/mnt/tap"),
        ("DTAP_BACKEND", "map"),
        ("DTAP_MOUNT_ROOT", "/mnt"),
        ("DTAP_DEFAULT_TAP", "Tap"),
        ("DTAP_JAR", "/opt/some.jar"),
    ],
)
def test_environment_variables_set_what_the_page_says(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (setting,) = [name.strip("`") for name, env, _ in rows("storage.md", "Settings") if f"`{variable}`" in env]
    section, key = setting.split(".")
    before = settings.resolved()[section].get(key)
    monkeypatch.setenv(variable, value)
    assert settings.resolved()[section][key] != before


def test_the_cache_is_where_the_page_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTAP_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("DTAP_CACHE_SIZE", "3GiB")
    found = near.cache({})
    assert (str(found.path), found.size) == (str(tmp_path / "here"), 3 << 30)
    monkeypatch.delenv("DTAP_CACHE_SIZE")
    assert near.cache({}).size == 20 << 30


def cluster_error(folder: Path, text: str) -> JobError:
    (folder / "cluster.yaml").write_text(text)
    with pytest.raises(JobError) as caught:
        read_cluster_file(str(folder / "cluster.yaml"))
    return caught.value


def test_cluster_files_have_the_keys_of_the_page(tmp_path: Path) -> None:
    error = cluster_error(tmp_path, f"module: distributed\nclass: LocalCluster\n{NOBODY_S}: 1\n")
    assert {cells[0].strip("`") for cells in rows("cluster.md", "A cluster from a file")} == known(error)


def test_the_allowed_classes_are_those_of_the_page(tmp_path: Path) -> None:
    error = cluster_error(tmp_path, "module: none\nclass: Such\n")
    listed = re.search(r"allowed classes \((.+)\)", str(error))
    assert listed is not None
    allowed = dict(entry.split(": ") for entry in listed[1].split("; "))
    below = (PAGES / "cluster.md").read_text().partition("only these classes are\nallowed:\n")[2]
    page = {
        module: ", ".join(re.findall(r"`(\w+)`", cells[1]))
        for cells in (line.split("|")[1:-1] for line in below.strip().split("\n\n")[0].splitlines()[2:])
        for module in re.findall(r"`([\w.]+)`", cells[0])
    }
    assert page == allowed
