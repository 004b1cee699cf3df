"""Where the first rows of a task go: each noted place holds the row that it names."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns
from dtap_dask.records.example import Layout
from dtap_dask.records.first_rows import CANDIDATES, NotedRows, RowRecorder, rows_at
from dtap_dask.records.shard import TaskShards, write_shards
from dtap_dask.storage import Store, open_store
from property_tests import examples

INFOS = (FeatureInfo("id", "kept", "int64", "int64"), FeatureInfo("t", "feature", "bytes", "bytes"))
MOST = 16
LAYOUTS = [Layout("blocks", 8), Layout("blocks", 3, "gzip"), Layout("rows"), Layout("rows", 1, "gzip")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("shards")))


def written(store: Store, layout: Layout, first: int, rows: int, shards: tuple[int, int], **options: Any) -> Any:
    """The plan of a task whose first batch has `first` rows, and what was noted of them."""
    ids = np.arange(rows)
    made = {"id": ids, "t": pa.array([b"x" * (one % 5) for one in ids.tolist()], pa.large_binary())}
    raw = pa.record_batch(
        {"number": ids, "word": pa.array([f"w{one % 3}" for one in ids.tolist()]).dictionary_encode()}
    )
    split, recorder = (ids % 5 == 0).astype(np.int16), RowRecorder(MOST)
    paths = tuple(tuple(f"{part}/{shard}" for shard in range(size)) for part, size in enumerate(shards))
    plan = TaskShards(4, ("train", "eval"), tuple(np.bincount(split, minlength=2).tolist()), paths)

    def batches() -> Any:
        for start, stop in itertools.pairwise((0, first, rows)):
            recorder.came(raw.slice(start, stop - start))
            yield split[start:stop], columns.cut(made, start, stop)

    write_shards(store, "try", plan, batches(), infos=INFOS, layout=layout, recorder=recorder, **options)
    return plan, recorder.noted


@examples(0.3)
@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from(["none", "mixed"]),
    st.integers(0, 60),
    st.integers(1, 200),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([7, 64, 65536]),
)
def test_a_noted_place_holds_its_row(
    shared: Store, layout: Layout, shuffle: Any, first: int, more: int, shards: tuple[int, int], window: int
) -> None:
    plan, noted = written(shared, layout, first, first + more, shards, shuffle=shuffle, seed=3, window=window)
    come = first or more
    assert noted == NotedRows.from_json(json.loads(json.dumps(noted.to_json())))
    assert noted.rows.schema == pa.schema({"number": pa.int64(), "word": pa.string()})
    assert 0 < len(noted.places) == noted.rows.num_rows <= min(MOST, come)
    for place, number in zip(noted.places, noted.rows["number"].to_pylist(), strict=True):
        path = f"try/{plan.shards[place.split][place.shard]}"
        found = rows_at(shared, path, INFOS, layout, np.array([place.position]))
        assert found["id"].tolist() == [number]
        assert [len(text) for text in found["t"].to_pylist()] == [number % 5]
        assert number < come
    first_shard = f"try/{plan.shards[0][0]}"
    all_rows = np.arange(plan.rows_per_shard(0)[0])
    if len(all_rows):
        found = rows_at(shared, first_shard, INFOS, layout, all_rows[::2])
        whole = rows_at(shared, first_shard, INFOS, layout, all_rows)
        assert len(whole["id"]) == len(all_rows)
        np.testing.assert_array_equal(found["id"], whole["id"][::2])


def test_the_rows_that_come_first_in_the_shards_are_noted(tmp_path: Path) -> None:
    rows = 20_000
    _, noted = written(open_store(str(tmp_path)), LAYOUTS[0], 9_000, rows, (1, 1), seed=1)
    assert len(noted.places) == MOST
    assert max(noted.rows["number"].to_pylist()) < CANDIDATES
    assert max(one.position for one in noted.places) < rows * 2 * MOST / CANDIDATES
    assert {one.split for one in noted.places} == {0, 1}


def test_few_rows_are_noted_where_they_are_large() -> None:
    recorder = RowRecorder(MOST)
    recorder.came(pa.record_batch({"text": ["x" * 100_000] * 50}))
    recorder.went(0, 0, np.arange(50))
    recorder.finish()
    assert recorder.noted is not None
    assert len(recorder.noted.places) == recorder.noted.rows.num_rows == 8


def test_nothing_is_noted_of_no_rows() -> None:
    recorder = RowRecorder(MOST)
    recorder.came(pa.record_batch({"text": pa.array([], pa.string())}))
    recorder.finish()
    assert recorder.noted is None
