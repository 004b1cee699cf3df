"""Paths of an output folder: one file spells them, and its picture shows them all."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

import dtap_dask
from dtap_dask.records import folder
from dtap_dask.records.folder import RunPaths, shard_path, status_path

PACKAGE = Path(dtap_dask.__file__).parent
OTHERS = [path for path in sorted(PACKAGE.rglob("*.py")) if path != Path(folder.__file__)]


def texts(path: Path) -> str:
    """A file's strings and comments."""
    names = (tokenize.NAME, tokenize.OP, tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return "\n".join(token.string for token in tokens if token.type not in names)


def test_no_other_file_spells_the_folder_of_runs() -> None:
    spelt = re.compile(r"(?<![\w.])_run(?!\w)")
    assert spelt.search(texts(Path(folder.__file__)))
    assert [str(path.relative_to(PACKAGE)) for path in OTHERS if spelt.search(texts(path))] == []


@pytest.mark.parametrize("name", ["plan.json", "overwrite.json", "commit.json", "manifest.json", "sources.parquet"])
def test_no_other_file_makes_a_path_of_its_names(name: str) -> None:
    literal = re.compile(rf"""["'/]{re.escape(name)}["']""")
    assert [str(path.relative_to(PACKAGE)) for path in OTHERS if literal.search(path.read_text())] == []


def test_the_picture_is_whole() -> None:
    run = RunPaths("<run>")
    made = [
        folder.MANIFEST,
        folder.SUCCESS,
        folder.TRANSFORM,
        folder.SOURCES,
        f"{folder.VOCABULARIES}/<number>.parquet",
        shard_path("<split>", 3, 120, "<run>", "none") + "[.gz]",
        folder.LOCK,
        *(status_path("<id>", kind) for kind in ("json", "log", "forecast")),
        *(run.plan, run.overwrite, run.sources, f"{run.folder}/fitted-<levels>/"),
        re.sub(r"[0-9a-f]{32}", "<unique>/", run.new_attempt(12)),
        *(run.task(12), run.pieces(12), run.dealt(12), f"{run.commit}/", run.commit_steps),
    ]
    shown = re.findall(r"^    (\S+)  ", str(folder.__doc__), re.MULTILINE)
    assert sorted(shown) == sorted(made)
    assert run.fitted(3) == "_run/<run>/fitted-3"
    assert shard_path("<split>", 3, 120, "<run>", "gzip") == shard_path("<split>", 3, 120, "<run>", "none") + ".gz"


def test_paths_are_known_again() -> None:
    run = RunPaths("0123abcd")
    assert folder.run_of(run.task(3)) == folder.run_of(run.plan) == "0123abcd"
    assert folder.run_of(folder.LOCK) is folder.run_of("train/part-0") is None
    assert folder.is_run("0123abcd")
    assert not folder.is_run("status")
    assert run.is_shard(shard_path("train", 3, 120, "0123abcd", "gzip"))
    assert not run.is_shard(shard_path("train", 3, 120, "0123abce", "gzip"))
    assert run.child(run.task(3)) == run.tasks
    assert run.child(run.plan) == run.plan
    for path in ("transform.json", "sources.parquet", "transform/7.parquet"):
        assert folder.is_sidecar(path)
        assert folder.may_be_of_dataset(path)
    for path in (run.plan, folder.MANIFEST, folder.SUCCESS, "/a", "../a", "a//b", "a/./b", "a\0b"):
        assert not folder.may_be_of_dataset(path)
