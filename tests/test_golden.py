"""The bytes of a tiny job, written down: a change of any of them is a change of the format, or a mistake.

A dataset and its resumed or repeated run must be the same bytes, also after an update of dtap_dask. So these values may
change only with a pull request that says so, raises FORMAT_VERSION (dtap_dask/records/manifest.py) where readers or
fingerprints are touched, and tells users that old runs cannot be resumed. Never change them to make a build pass.

All numbers are chosen so that every result is exact (powers of two, whole numbers): no processor family, no version of
NumPy may change them. The fingerprint is part of the shards' names, and covers the source by its files' names and
sizes; as the size of a Parquet file is its writer's choice, names are compared without it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dtap_dask
from documents import Document
from dtap_dask.job.planning import grouping
from in_process import run_in_process

ROWS = 64
TABLE = pa.table(
    {
        "id": pa.array(range(ROWS), pa.int64()),
        "x": pa.array([None if i == 5 else float(i % 4 * 2) for i in range(ROWS)]),
        "y": pa.array([1.0 if i % 2 else -1.0 for i in range(ROWS)]),  # mean 0, deviation 1
        "word": pa.array([("blue", "red", "green", "")[i % 8 % 5 % 4] for i in range(ROWS)]),
        "flag": pa.array([i % 3 == 0 for i in range(ROWS)]),
        "list": pa.array([list(range(i % 4)) for i in range(ROWS)], pa.list_(pa.int32())),
    }
)


def job_on(source: Path, output: Path, layout: str, shuffle: str) -> Document:
    return {
        "version": 1,
        "source": {"path": str(source), "where": "id < 60"},
        "derive": {"late": "id >= 30"},
        "label": "late",
        "keep": ["id"],
        "split": {"parts": {"train": 0.75, "eval": 0.25}, "key": ["id"]},
        "features": [
            {"columns": "x", "steps": [{"impute": {"strategy": "constant", "value": 8}}, {"clip": {"max": 4}}]},
            {"columns": "y", "steps": [{"minmax_scale": {"feature_range": [0, 1]}}]},
            {"columns": "word", "steps": [{"ordinal_encode": {"oov_buckets": 2}}]},
            {"columns": "word", "steps": [{"hash_encode": {"buckets": 1000}}], "as": "hashed"},
            {"columns": "word", "steps": ["one_hot_encode"], "as": "one_hot"},
            {"columns": "word", "as": "text"},
            {"columns": "id", "steps": [{"bucketize": {"boundaries": [10, 30]}}], "as": "bucket"},
            {"columns": ["flag", "list"]},
        ],
        "output": {"path": str(output), "layout": layout, "rows_per_record": 16, "shuffle": shuffle, "seed": 7},
    }


# By layout and shuffle: the CRC32C of every shard, and the SHA-256 of all of them one after the other.
GOLDEN: dict[tuple[str, str], tuple[dict[str, str], str]] = {
    ("blocks", "global"): (
        {
            "eval/part-00000": "c979ac89",
            "eval/part-00001": "3004e870",
            "train/part-00000": "650b7168",
            "train/part-00001": "d634f76b",
        },
        "71bac933be59c3df9d17ff50eb1b265169aafe0de1a6ec92f766f585990d4038",
    ),
    ("blocks", "mixed"): (
        {
            "eval/part-00000": "ce2169da",
            "eval/part-00001": "6a2c5203",
            "train/part-00000": "cdc729b3",
            "train/part-00001": "e23c483d",
        },
        "3b15130937e521e08684e82a6afdf4fa1f3245dcd6156daa4e9f4f9f1c892aad",
    ),
    ("blocks", "none"): (
        {
            "eval/part-00000": "c995deba",
            "eval/part-00001": "6e3e71e3",
            "train/part-00000": "c7f0e05f",
            "train/part-00001": "077e721d",
        },
        "9a992725fcb9900151d2b9c53809bebdcaaafd56480780ab7f2733de77469e04",
    ),
    ("rows", "global"): (
        {
            "eval/part-00000": "bacb0298",
            "eval/part-00001": "2e3cfdd2",
            "train/part-00000": "592d318b",
            "train/part-00001": "61c47988",
        },
        "abb5158138a719fcab3353bf7b005a2b2479bbbeb5af0fa6c04f10fb450bcd00",
    ),
    ("rows", "mixed"): (
        {
            "eval/part-00000": "1c9b7960",
            "eval/part-00001": "20bb9361",
            "train/part-00000": "d2e8b24c",
            "train/part-00001": "1b5a151b",
        },
        "1144c882347b8b649449c26b299a21433c0200c35225baa474eea1bbe8490dfd",
    ),
    ("rows", "none"): (
        {
            "eval/part-00000": "68dfd6d8",
            "eval/part-00001": "dfbcae5b",
            "train/part-00000": "c98ffdb4",
            "train/part-00001": "6549a57c",
        },
        "ed660338c90072a71a038c1198667602a5843729497b2e6b1fe636f0ac21c441",
    ),
}
# SHA-256 of what fitting learnt; the same for all, as it depends on neither.
FITTED = "3d59af7920e5f53f8482f076e54280dafaf1a4d9a932f73657dc4689e506d72f"


def on_dask(job: Document, request: pytest.FixtureRequest) -> dtap_dask.Manifest:
    return dtap_dask.run(job, client=request.getfixturevalue("client"), progress="silent")


def in_a_loop(job: Document, request: pytest.FixtureRequest) -> dtap_dask.Manifest:
    return run_in_process(job)


@pytest.mark.parametrize("run", [in_a_loop, on_dask])
@pytest.mark.parametrize(("layout", "shuffle"), GOLDEN)
def test_the_bytes_are_those_written_down(
    layout: str,
    shuffle: str,
    run: Callable[..., dtap_dask.Manifest],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grouping, "MIN_TASKS", 2)
    pq.write_table(TABLE, tmp_path / "table.parquet", row_group_size=16)
    job = job_on(tmp_path / "table.parquet", tmp_path / "out", layout, shuffle)
    manifest = run(job, request)
    crcs, together = {}, hashlib.sha256()
    for shard in sorted(manifest.shards, key=lambda one: one.path):
        data = (tmp_path / "out" / shard.path).read_bytes()
        assert google_crc32c.value(data) == shard.crc32c
        crcs[re.sub(r"-of-.*", "", shard.path)] = f"{shard.crc32c:08x}"
        together.update(data)
    assert (crcs, together.hexdigest()) == GOLDEN[layout, shuffle]


def test_the_fitted_state_is_that_written_down(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "table.parquet", row_group_size=16)
    job = job_on(tmp_path / "table.parquet", tmp_path / "out", "blocks", "mixed")
    run_in_process(job)
    state = json.loads((tmp_path / "out" / "transform.json").read_text())
    del state["arrow_schema"]  # pyarrow's own bytes
    assert hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest() == FITTED
