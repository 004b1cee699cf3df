"""Steps on lists: those of each element against the same step on a column of all elements, all in plain Python."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtap_dask
from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from fitting import fit_batches
from in_process import run_in_process
from property_tests import examples


def parsed(step: Any) -> Any:
    [(name, options)] = step.items() if isinstance(step, dict) else [(step, None)]
    return parse_step(name, options)


def fitted(array: pa.Array, *steps: Any, at: Any = (), fit: Any = None, **more: Any) -> FittedState:
    rows = pa.record_batch({"x": array})
    ends = sorted({0, len(array), *(cut for cut in at if cut < len(array))})
    batches = [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    spec = FeatureSpec("x", "feature", ("x",), tuple(map(parsed, steps)), place="features[0]", **more)
    graph = build([spec], rows.schema)
    return fit_batches(graph, batches, fit)


def run(array: pa.Array, *steps: Any, **more: Any) -> Any:
    """The output of steps that are fitted on the same rows."""
    return Transform(fitted(array, *steps, **more)).apply(pa.record_batch({"x": array}))["x"]


ROWS = st.lists(st.lists(st.sampled_from(["a", "b", "cc", "é", ""]), max_size=6), min_size=1, max_size=12).filter(any)
NUMBERS = st.lists(st.lists(st.integers(-5, 300), max_size=6), min_size=1, max_size=12).filter(any)
CUTS = st.lists(st.integers(0, 12), max_size=3)


def flat(rows: list[list[Any]]) -> list[Any]:
    return [one for row in rows for one in row]


def listed(rows: list[list[Any]], values: Any) -> list[list[Any]]:
    """Values, one for each element, as lists of the lengths of `rows`."""
    each = iter(values)
    return [[next(each) for _ in row] for row in rows]


def both(rows: list[list[Any]], kind: pa.DataType, *steps: Any, at: Any = ()) -> tuple[Any, Any]:
    """The steps of lists, and of a column of all elements."""
    lists, elements = run(pa.array(rows, pa.list_(kind)), *steps, at=at), run(pa.array(flat(rows), kind), *steps)
    return lists.to_pylist(), listed(rows, elements.to_pylist() if isinstance(elements, pa.Array) else elements)


@pytest.mark.parametrize(
    "step", ["ordinal_encode", {"ordinal_encode": {"top_k": 2, "oov_buckets": 3}}, {"hash_encode": 9}]
)
@examples(0.3)
@given(ROWS, CUTS)
def test_encoders_of_each_element(step: Any, rows: list[list[str]], at: list[int]) -> None:
    found, expected = both(rows, pa.string(), step, at=at)
    assert found == expected


@pytest.mark.parametrize(
    "steps",
    [
        ["ordinal_encode"],
        [{"hash_encode": 9}],
        [{"bucketize": {"quantiles": 3}}],
        ["minmax_scale"],
        [{"clip": {"min": 0, "max": 9}}, "log1p", "maxabs_scale"],
        [{"cast": "float64"}, "standard_scale"],
        [{"cast": "string"}, "ordinal_encode"],
        [{"cast": "bool"}],
    ],
)
@examples(0.2)
@given(NUMBERS, CUTS)
def test_steps_of_each_number(steps: list[Any], rows: list[list[int]], at: list[int]) -> None:
    found, expected = both(rows, pa.int16(), *steps, at=at)
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-6)
    assert list(map(len, found)) == list(map(len, rows))


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.dictionary(pa.int8(), pa.large_string()))])
def test_ids_of_lists_are_a_list_with_a_number_of_ids(kind: pa.DataType) -> None:
    array = pa.array([["b", "a"], [], ["b", "c"]], pa.list_(pa.string())).cast(kind)
    transform = Transform(fitted(array, "ordinal_encode"))
    [info] = transform.infos
    assert (info.ids, info.shape, info.dtype, info.stored) == (5, (None,), "int64", "uint8")
    later = pa.array([["a", "never"], [], ["b"]], pa.list_(pa.string())).cast(kind).slice(0, 3)
    assert transform.apply(pa.record_batch({"x": later}))["x"].to_pylist() == [[3, 1], [], [2]]


def test_statistics_are_of_the_elements_of_fitted_rows() -> None:
    array = pa.array([["a"], ["b", "b"], ["c", "c", "c"]])
    state = fitted(array, "ordinal_encode", fit=[np.array([True, True, False])])
    [learnt] = state.fitted.values()
    assert learnt["vocabulary"].to_pylist() == ["b", "a"]
    assert (learnt["counts"].to_pylist(), learnt["n_samples_seen_"]) == ([2, 1], 3)


def test_a_filling_and_a_scaler_of_elements_take_one_pass() -> None:
    array = pa.array([[1.0, None], [3.0], []])
    state = fitted(array, "impute", "standard_scale")
    assert state.passes == 1
    assert [fitted.get("mean_") for fitted in state.fitted.values()] == [None, 2.0]
    state = fitted(array, {"impute": "median"}, "log1p", "minmax_scale")
    assert [fitted.get("data_max_") for fitted in state.fitted.values()] == [None, float(np.log1p(3.0))]


@pytest.mark.parametrize("step", ["ordinal_encode", {"hash_encode": 9}, {"cast": "int64"}])
def test_nulls_inside_lists_are_errors(step: Any) -> None:
    array = pa.array([["1", None], ["2"], []])
    with pytest.raises(
        DataError, match=r"Nulls.*'x' \(1\).*or put `impute: .strategy: constant, value: .*if lists hold"
    ):
        fitted(array, step, "ordinal_encode")
    state = fitted(array.slice(1), step)
    with pytest.raises(DataError, match=r"1 of 3 rows of a batch of column 'x' are null"):
        Transform(state).apply(pa.record_batch({"x": array}))
    filled = run(array, {"impute": {"strategy": "constant", "value": "2"}}, step)
    assert filled[0].as_py()[1] == filled[1].as_py()[0]


def test_steps_say_that_it_is_the_elements_that_do_not_fit() -> None:
    for kind, step, text in (
        (pa.list_(pa.string()), "standard_scale", r"it is a list \(list<item: string>\), and of each element: .*text"),
        (pa.list_(pa.float64()), "ordinal_encode", r"of each element: ordinal_encode needs integers.*bucketize"),
        (pa.list_(pa.string()), "one_hot_encode", r"one_hot_encode needs.*a list.*Use `multi_hot`"),
    ):
        with pytest.raises(JobError, match=text):
            fitted(pa.array([], kind), step)


@pytest.mark.parametrize("layout", ["blocks", "rows"])
def test_ragged_ids_through_records(tmp_path: Path, layout: str) -> None:
    tf = pytest.importorskip("tensorflow")
    seen = [["b", "a", "b"], [], ["c"], ["b"]] * 5
    pq.write_table(pa.table({"n": np.arange(20), "bought": pa.array(seen)}), tmp_path / "a.parquet")
    job = {
        "version": 1,
        "source": {"path": str(tmp_path / "a.parquet")},
        "features": [{"columns": "n"}, {"columns": "bought", "steps": ["ordinal_encode"]}],
        "output": {"path": str(tmp_path / "out"), "layout": layout},
    }
    run_in_process(job)
    [batch] = dtap_dask.load(str(tmp_path / "out"), batch_size=20, shuffle=False)
    assert isinstance(batch["bought"], tf.RaggedTensor)
    ids = {"b": 2, "a": 3, "c": 4}
    assert batch["bought"].to_list() == [[ids[word] for word in seen[int(n)]] for n in batch["n"].numpy()]
    assert batch["bought"].dtype == tf.int64
    given = dtap_dask.inputs(str(tmp_path / "out"))["bought"]
    assert (given.ids, given.shape) == (5, (None, None))
