"""multi_hot behind an encoder: as many places as the encoder has ids, from the plan on or once it is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dtap_dask
from dtap_dask.errors import DataError, JobError
from dtap_dask.features.steps import multihot
from dtap_dask.job.planning.forecast import forecast
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.planning.sharding import planned_row_bytes
from in_process import run_in_process

TAGS = pa.table({"tags": [["x"], [], ["y", "x"], ["z"]], "more": [["u"], ["x"], [], []]})
EARLIER = pa.table({"tags": [["b", "a"], ["b"]], "more": [["b"], ["a"]]})
ENCODERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "fitted": ({"oov_buckets": 2}, ["x", "y", "z"]),
    "bounded": ({"top_k": 2}, ["x", "y"]),
    "first": ({"first": ["none"]}, ["none", "x", "y", "z"]),
    "list": ({"vocabulary": ("y", "w")}, ["y", "w"]),
    "file": ({"vocabulary": "words.txt"}, ["y", "w"]),
    "appended": ({"append_to": "earlier"}, ["b", "a", "x", "y", "z"]),
    "shared": ({"share": "words"}, ["x", "u", "y", "z"]),
}


def job(folder: Path, name: str, rows: pa.Table, options: dict[str, Any]) -> dict[str, Any]:
    pq.write_table(rows, folder / f"{name}.parquet")
    paths = ("earlier", "words.txt")
    encoder = {"ordinal_encode": {key: str(folder / one) if one in paths else one for key, one in options.items()}}
    return {
        "version": 1,
        "source": {"path": str(folder / f"{name}.parquet")},
        "features": [
            {"columns": ["tags"], "steps": [encoder], "as": "ids"},
            {"columns": ["tags"], "steps": [encoder, {"last": 1}, "multi_hot"], "as": "hot"},
            {"columns": ["more"], "steps": [encoder], "as": "more"},
        ],
        "output": {"path": str(folder / name), "shuffle": "none"},
    }


@pytest.mark.parametrize("case", ENCODERS)
def test_there_is_a_place_for_each_id(case: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("y\nw\n")
    options, words = ENCODERS[case]
    if case == "appended":
        run_in_process(job(tmp_path, "earlier", EARLIER, {}))
    asked = job(tmp_path, "new", TAGS, options)
    plan, manifest = make_plan(asked), run_in_process(asked)
    first = 1 + options.get("oov_buckets", 1)
    [info] = [info for info in manifest.infos if info.name == "hot"]
    assert info.shape == (first + len(words),)
    if "vocabulary" in options:
        assert plan.checked.state.infos[1] == info
        size = planned_row_bytes(plan, manifest.infos)
        assert forecast(plan).row_bytes == (size, size)
    listed = dtap_dask.vocabulary(str(tmp_path / "new"), "hot")
    assert (listed["id"].to_pylist(), listed["value"].to_pylist()) == ([*range(first, first + len(words))], words)
    made = np.array(dtap_dask.transform(str(tmp_path / "new"), TAGS)["hot"].to_pylist())
    ids = dtap_dask.transform(str(tmp_path / "new"), TAGS)["ids"].to_pylist()
    expected = np.zeros((4, first + len(words)))
    for row, each in enumerate(ids):
        expected[row, each[-1:]] = 1
    np.testing.assert_array_equal(made, expected)


WHOLE, FLOATS = pa.array([[1, 2], [], [7, 2]]), pa.array([[0.5, 3.0], [], [9.0]])


@pytest.mark.parametrize(
    ("column", "steps", "expected"),
    [
        (TAGS["tags"], [{"hash_encode": 7}, {"cast": "int16"}], 8),
        (TAGS["tags"], ["null_as_empty", {"ordinal_encode": {"null": "error"}}, {"first": 1}], 5),
        (WHOLE, ["ordinal_encode", {"cast": "int32"}], 5),
        (FLOATS, [{"bucketize": {"boundaries": [1, 5]}}], 3),
        (FLOATS, [{"bucketize": {"quantiles": 2}}], 2),
    ],
)
def test_each_encoder_tells_its_ids(tmp_path: Path, column: Any, steps: list[Any], expected: int) -> None:
    asked = job(tmp_path, "new", pa.table({"tags": column}), {})
    asked["features"] = [{"columns": ["tags"], "steps": [*steps, "multi_hot"], "as": "hot"}]
    [info] = run_in_process(asked).infos
    assert info.shape == (expected,)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            ["ordinal_encode", {"multi_hot": 2}],
            "multi_hot of ids has a place for each of them. Give the encoder `top_k`",
        ),
        (["ordinal_encode", {"pad": 2}, "multi_hot"], "multi_hot needs lists, and the column is a vector"),
        (
            ["ordinal_encode", {"cast": "float32"}, "multi_hot"],
            "or behind an encoder, needs .*, and the elements are float",
        ),
        ([{"multi_hot": {"places": "ids"}}], "`places: ids` needs lists of ids, .*Put an encoder before it"),
    ],
)
def test_lists_that_have_no_number_of_ids(tmp_path: Path, steps: list[Any], message: str) -> None:
    asked = job(tmp_path, "new", TAGS, {})
    asked["features"] = [{"columns": ["tags"], "steps": steps}]
    with pytest.raises(JobError, match=message):
        make_plan(asked)


@pytest.mark.parametrize("mode", ["binary", "count"])
def test_ids_beyond_the_places_that_are_asked_for_are_left_out(tmp_path: Path, mode: str) -> None:
    asked = job(tmp_path, "new", TAGS, {})
    asked["features"] = [
        {"columns": ["tags"], "steps": ["ordinal_encode", {"multi_hot": {"places": 3, "mode": mode}}], "as": "hot"}
    ]
    run_in_process(asked)
    made = dtap_dask.transform(str(tmp_path / "new"), TAGS)["hot"].to_pylist()
    assert made == [[0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 0]]  # y and z have the ids 3 and 4


@pytest.mark.parametrize("case", ["fitted", "appended", "shared"])
def test_dask_ml_and_a_taken_state_give_the_same(case: str, tmp_path: Path) -> None:
    run_in_process(job(tmp_path, "earlier", EARLIER, {}))
    asked = job(tmp_path, "new", TAGS, ENCODERS[case][0])
    made = run_in_process(asked)
    for other in ({"fit": "dask_ml"}, {"fit": {"from": str(tmp_path / "new")}}):
        name = str(tmp_path / "other")
        found = run_in_process({**asked, **other, "output": {"path": name, "shuffle": "none"}}, overwrite=True)
        assert [shard.crc32c for shard in found.shards] == [shard.crc32c for shard in made.shards]


def test_too_many_ids_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multihot, "WIDEST", 4)
    with pytest.raises(DataError, match=r"'tags': multi_hot of 5 ids would have as many places, and 4 are"):
        run_in_process(job(tmp_path, "new", TAGS, {}))
