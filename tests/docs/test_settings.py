"""Environment variables in storage.md do what it says, and the classes in cluster.md are those that are allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dtap_dask
from dtap_dask.errors import JobError
from dtap_dask.job.cluster.file import read_cluster_file
from dtap_dask.storage import local_copies, settings

PAGES = Path(dtap_dask.__file__).parent / "docs"


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its header."""
    below = (PAGES / page).read_text().partition(f"\n## {title}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].splitlines()[2:]]


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
    (setting,) = [name.strip("`") for name, _, env, _ in rows("storage.md", "Settings") if f"`{variable}`" in env]
    section, key = setting.split(".")
    before = settings.resolved()[section].get(key)
    monkeypatch.setenv(variable, value)
    assert settings.resolved()[section][key] != before


def test_the_cache_is_where_the_page_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTAP_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("DTAP_CACHE_SIZE", "3GiB")
    found = local_copies.cache({})
    assert (str(found.path), found.size) == (str(tmp_path / "here"), 3 << 30)
    monkeypatch.delenv("DTAP_CACHE_SIZE")
    assert local_copies.cache({}).size == 20 << 30


def test_the_allowed_classes_are_those_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("module: none\nclass: Such\n")
    with pytest.raises(JobError) as caught:
        read_cluster_file(str(tmp_path / "cluster.yaml"))
    listed = re.search(r"allowed classes \((.+)\)", str(caught.value))
    assert listed is not None
    allowed = dict(entry.split(": ") for entry in listed[1].split("; "))
    below = (PAGES / "cluster.md").read_text().partition("only these classes are\nallowed:\n")[2]
    page = {
        module: ", ".join(re.findall(r"`(\w+)`", cells[1]))
        for cells in (line.split("|")[1:-1] for line in below.strip().split("\n\n")[0].splitlines()[2:])
        for module in re.findall(r"`([\w.]+)`", cells[0])
    }
    assert page == allowed
