"""Steps on lists: those of each element against the same step on a column of all elements, all in plain Python."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

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
        DataError, match=r"Nulls.*'x' \(1\).*or put `impute: .strategy: constant, value: .*where lists hold"
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


OPTIONAL = st.lists(st.none() | st.lists(st.integers(-5, 300), max_size=6), min_size=1, max_size=12).filter(
    lambda rows: any(row is not None for row in rows)
)


@examples(0.5)
@given(OPTIONAL, st.integers(1, 4), st.sampled_from(["first", "last"]))
def test_first_and_last_are_slices(rows: list[list[int] | None], count: int, name: str) -> None:
    array = pa.array([None, *rows], pa.list_(pa.int16())).slice(1)
    found = run(array, "null_as_empty", {name: count}).to_pylist()
    assert found == [(row or [])[:count] if name == "first" else (row or [])[-count:] for row in rows]
    assert run(array, "null_as_empty", "list_length").tolist() == [len(row or []) for row in rows]


SIDES = st.sampled_from(["pre", "post"])


@given(OPTIONAL, st.integers(1, 5), SIDES, SIDES, st.integers(-1000, 1000))
def test_pad_is_kerases_pad_sequences(
    rows: list[list[int] | None], length: int, side: str, truncating: str, value: int
) -> None:
    keras = pytest.importorskip("keras")
    pad = {"length": length, "side": side, "truncating": truncating, "value": value, "mask": True}
    rows = [row or [] for row in rows]
    batch = pa.record_batch({"x": pa.array(rows, pa.list_(pa.int16()))})
    found = Transform(fitted(batch.column(0), {"pad": pad})).apply(batch)
    expected = keras.utils.pad_sequences(rows, length, "int64", side, truncating, value)
    np.testing.assert_array_equal(found["x"], expected)
    ones = [[1] * len(row) for row in rows]
    np.testing.assert_array_equal(found["x_mask"], keras.utils.pad_sequences(ones, length, "int64", side, truncating))
    floats = run(pa.array(rows, pa.list_(pa.float64())), {"pad": pad | {"value": 0.5}})
    np.testing.assert_array_equal(floats, keras.utils.pad_sequences(rows, length, "float32", side, truncating, 0.5))


def test_what_pad_says_of_its_output() -> None:
    array = pa.array([["b", "a"], [], ["b", "c", "c", "b"]])
    transform = Transform(fitted(array, "ordinal_encode", {"pad": {"length": 3, "mask": True}}))
    ids, mask = transform.infos
    assert (ids.ids, ids.shape, ids.dtype, ids.stored) == (5, (3,), "int64", "uint8")
    assert ids.vocabulary == "transform/0.parquet"
    assert (mask.name, mask.ids, mask.shape, mask.dtype, mask.stored) == ("x_mask", None, (3,), "bool", "uint8")
    found = transform.apply(pa.record_batch({"x": array}))
    assert found["x"].tolist() == [[2, 4, 0], [0, 0, 0], [3, 3, 2]]
    assert found["x_mask"].tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]


def test_padded_lists_side_by_side_are_one_vector() -> None:
    rows = pa.record_batch({"x": pa.array([[1], [2, 3]]), "y": pa.array([[0.5, 7.0], []])})
    spec = FeatureSpec("both", "feature", ("x", "y"), (parse_step("pad", 2),), vector=True)
    transform = Transform(fit_batches(build([spec], rows.schema), [rows]))
    assert transform.infos[0].shape == (4,)
    assert transform.apply(rows)["both"].tolist() == [[1, 0, 0.5, 7], [2, 3, 0, 0]]


def test_null_lists_and_null_elements_are_errors_for_every_step_of_lists() -> None:
    for step in ("list_length", {"last": 2}, {"pad": 2}, {"pad": {"length": 2, "mask": True}}):
        for kind in (pa.int64(), pa.float32()):
            whole = pa.array([[1, 2], []], pa.list_(kind))
            state = fitted(whole, step)
            missing = pa.record_batch({"x": pa.array([[1, 2], None], pa.list_(kind))})
            with pytest.raises(DataError, match=r"1 of 2 rows.*Put `null_as_empty` before the other steps"):
                Transform(state).apply(missing)
            holes = pa.record_batch({"x": pa.array([[1, None], []], pa.list_(kind))})
            if step == "list_length":
                assert Transform(state).apply(holes)["x"].tolist() == [2, 0]
                continue
            with pytest.raises(DataError, match=r"1 of 2 rows.*`impute: .* where lists hold nulls"):
                Transform(state).apply(holes)


def test_in_the_first_pass_only_the_nulls_count_that_no_step_takes() -> None:
    array = pa.array([["a"], None, ["b", None], None])
    with pytest.raises(DataError, match=r"'x' \(3\).*Put `null_as_empty`.*or put `impute"):
        fitted(array, "ordinal_encode")
    with pytest.raises(DataError, match=r"'x' \(1\).*\. Put `impute: .strategy") as error:
        fitted(array, "null_as_empty", "ordinal_encode")
    assert "null_as_empty" not in str(error.value)
    constant = {"impute": {"strategy": "constant", "value": "?"}}
    with pytest.raises(DataError, match=r"'x' \(2\).*Put `null_as_empty`") as error:
        fitted(array, constant, "ordinal_encode")
    assert "impute" not in str(error.value)
    assert run(array, "null_as_empty", constant, "ordinal_encode").to_pylist() == [[3], [], [4, 2], []]


@pytest.mark.parametrize(
    ("kind", "steps", "text"),
    [
        (pa.string(), [{"pad": 3}], r"pad needs lists, and the column is text. Put `tokenize` before it"),
        (pa.float32(), ["null_as_empty"], r"null_as_empty needs lists, and the column is float"),
        (pa.list_(pa.int8(), 2), ["list_length"], r"list_length needs lists, and the column is a vector"),
        (pa.list_(pa.string()), [{"pad": 3}], r"pad makes vectors of numbers, and the lists hold text.*ordinal_encode"),
        (pa.list_(pa.string()), ["ordinal_encode", {"pad": {"length": 3, "value": 1}}], r"padded with 0.*Leave it out"),
        (
            pa.list_(pa.int8()),
            [{"pad": {"length": 3, "value": 0.5}}],
            r"0.5 does not go with lists of int.*cast",
        ),
        (pa.list_(pa.int8()), [{"cast": "int8"}, {"pad": {"length": 3, "value": 300}}], r"300 does not go.*int8"),
        (pa.list_(pa.bool_()), [{"pad": {"length": 3, "value": 2}}], r"lists of bool; valid: 0, 1"),
    ],
)
def test_what_steps_of_lists_refuse(kind: pa.DataType, steps: list[Any], text: str) -> None:
    with pytest.raises(JobError, match=text):
        fitted(pa.array([], kind), *steps)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("pad", None, "pad.length: this key is required"),
        ("pad", 0, "at least 1"),
        ("pad", {"length": 2, "side": "left"}, "pre"),
        ("pad", {"length": 2, "value": float("nan")}, "finite"),
        ("last", None, "count"),
        ("first", 0, "at least 1"),
    ],
)
def test_options_that_are_refused(name: str, options: Any, text: str) -> None:
    with pytest.raises(JobError, match=text):
        parse_step(name, options)


def test_a_list_is_no_label_no_weight_and_no_part_of_a_vector() -> None:
    schema = pa.schema({"x": pa.list_(pa.int64()), "y": pa.int64()})
    for spec, text in (
        (FeatureSpec("x", "label", ("x",)), "a label is one number a row. Use another column"),
        (FeatureSpec("x", "weight", ("x",)), "a weight is one number a row. Use another column"),
        (FeatureSpec("both", "feature", ("x", "y"), vector=True), "any length. Put `pad` with it"),
    ):
        with pytest.raises(JobError, match=text):
            build([spec], schema)


@examples(0.4)
@given(ROWS, ROWS, CUTS)
def test_multi_hot_is_scikit_learns(seen: list[list[str]], rows: list[list[str]], at: list[int]) -> None:
    kind = pa.list_(pa.string())
    transform = Transform(fitted(pa.array(seen, kind), "multi_hot", at=at))
    binarizer = MultiLabelBinarizer().fit([[one.encode() for one in row] for row in seen])
    known = set(flat(seen))
    expected = binarizer.transform([[one.encode() for one in row if one in known] for row in rows])
    found = transform.apply(pa.record_batch({"x": pa.array(rows, kind)}))["x"]
    np.testing.assert_array_equal(found, expected)
    assert transform.infos[0].classes == tuple(one.decode() for one in binarizer.classes_)
    counts = Transform(fitted(pa.array(seen, kind), {"multi_hot": {"mode": "count"}}, at=at))
    found = counts.apply(pa.record_batch({"x": pa.array(rows, kind)}))["x"]
    assert found.tolist() == [[row.count(one.decode()) for one in binarizer.classes_] for row in rows]


def test_multi_hot_of_ids_is_kerases() -> None:
    keras = pytest.importorskip("keras")
    seen = [["b", "a", "b"], [], ["c"], ["b", "a"]]
    later = [["a", "never", "b", "b"], [], ["c"]]
    for mode, theirs in (("binary", "multi_hot"), ("count", "count")):
        steps = ("ordinal_encode", {"multi_hot": {"mode": mode}})
        transform = Transform(fitted(pa.array(seen), *steps))
        found = transform.apply(pa.record_batch({"x": pa.array(later, pa.list_(pa.string()))}))["x"]
        lookup = keras.layers.StringLookup(vocabulary=["b", "a", "c"], output_mode=theirs)
        expected = np.stack([lookup(row) if row else np.zeros(4) for row in later])
        np.testing.assert_array_equal(found[:, 1:], expected)  # place 0 would be that of padding
        assert not found[:, 0].any()
        info = transform.infos[0]
        assert (info.shape, info.dtype, info.ids) == ((5,), "float32", None)
        assert info.stored == ("uint8" if mode == "binary" else "uint16")


def test_the_estimator_of_multi_hot_is_a_count_vectorizer() -> None:
    array = pa.array([["b", "a", "b"], [], ["c", "never"]])
    for steps in ([{"multi_hot": 3}], [{"multi_hot": {"mode": "count"}}]):
        state = fitted(array.slice(0, 2), *steps)
        [[(name, estimator)]] = [entry.steps for entry in dtap_dask.to_dask_ml(state)["x"]]
        assert name == "multi_hot"
        found = Transform(state).apply(pa.record_batch({"x": array}))["x"]
        np.testing.assert_array_equal(estimator.transform(pd.DataFrame({"x": array.to_pylist()})), found)
    for steps, reason in ((["ordinal_encode", {"pad": 2}], "holds lists"), ([{"last": 1}], "holds lists")):
        [entry] = dtap_dask.to_dask_ml(fitted(array, *steps))["x"]
        assert all(reason in one.reason for one in entry.refused)
        assert len(entry.refused) == len(steps)


def test_limits_of_multi_hot() -> None:
    array = pa.array([["a", "b"], ["c", "b"]])
    assert run(array, {"multi_hot": 2}).tolist() == [[1, 1], [0, 1]]
    with pytest.raises(DataError, match=r"1,001 distinct values, and without `top_k` it takes 1,000"):
        run(pa.array([list(map(str, range(1001)))]), "multi_hot")
    state = fitted(array, {"multi_hot": {"unseen": "error"}})
    with pytest.raises(DataError, match=r"1 values of column 'x', step multi_hot.*among them 'z'.*`unseen: zeros`"):
        Transform(state).apply(pa.record_batch({"x": pa.array([["z", "a"]])}))
    with pytest.raises(DataError, match=r"are outside the places 0 to 2, among them -1, 3. .* raise `places`, or give"):
        run(pa.array([[3, 1], [-1]]), {"multi_hot": {"places": 3, "unseen": "error"}})
    with pytest.raises(DataError, match=r"There is nothing to learn"):
        run(pa.array([[], []], pa.list_(pa.string())), "multi_hot")
    with pytest.raises(DataError, match=r"Nulls.*'x' \(2\)"):
        run(pa.array([["a", None], None]), "multi_hot")
    for kind, steps, text in (
        (
            pa.list_(pa.string()),
            ["ordinal_encode", {"multi_hot": 3}],
            "Give the encoder `top_k`",
        ),
        (pa.list_(pa.int64()), [{"multi_hot": {"places": "ids"}}], "needs lists of ids, and it is list"),
        (pa.list_(pa.string()), [{"hash_encode": 1 << 20}, "multi_hot"], "1,048,577 ids would have as many places"),
        (pa.list_(pa.string()), [{"multi_hot": {"places": 3}}], "lists of whole numbers or ids"),
        (pa.list_(pa.float32()), ["multi_hot"], "of each element: multi_hot needs integers, booleans or text"),
        (pa.string(), ["multi_hot"], "needs lists, and the column is text. Put `tokenize`"),
    ):
        with pytest.raises(JobError, match=text):
            fitted(pa.array([], kind), *steps)


@pytest.mark.parametrize("layout", ["blocks", "rows"])
def test_ragged_ids_through_records(tmp_path: Path, layout: str) -> None:
    tf = pytest.importorskip("tensorflow")
    seen = [["b", "a", "b"], [], ["c"], ["b"]] * 5
    pq.write_table(pa.table({"n": np.arange(20), "bought": pa.array(seen)}), tmp_path / "a.parquet")
    job = {
        "version": 1,
        "source": {"path": str(tmp_path / "a.parquet")},
        "features": [
            {"columns": "n"},
            {"columns": "bought", "steps": ["ordinal_encode"]},
            {"columns": "bought", "steps": [{"hash_encode": 99}, {"pad": {"length": 2, "mask": True}}], "as": "last"},
        ],
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
    order = [seen[int(n)] for n in batch["n"].numpy()]
    assert batch["last_mask"].numpy().tolist() == [[len(row) > 0, len(row) > 1] for row in order]
    assert batch["last"].shape == (20, 2)
    assert (batch["last"].dtype, batch["last_mask"].dtype) == (tf.int64, tf.bool)
    given = dtap_dask.inputs(str(tmp_path / "out"))
    assert (given["last"].ids, given["last"].shape) == (100, (None, 2))
    assert (given["last_mask"].dtype, given["last_mask"].shape) == ("bool", (None, 2))


@pytest.mark.parametrize("step", [{"pad": 2}, {"pad": {"length": 2, "truncating": "post"}}])
def test_nulls_and_infinities_that_are_cut_off_are_no_errors(step: Any, tmp_path: Path) -> None:
    elements = [1.0, 2.0, None, float("inf"), 3.0, 4.0]
    pq.write_table(pa.table({"x": pa.array([elements, []], pa.list_(pa.float32()))}), tmp_path / "x.parquet")
    job: dict[str, Any] = {
        "version": 1,
        "source": {"path": str(tmp_path / "x.parquet")},
        "features": [{"columns": ["x"], "steps": [step]}],
        "output": {"path": str(tmp_path / "out"), "shuffle": "none"},
    }
    run_in_process(job)
    [rows] = dtap_dask.load(str(tmp_path / "out"), batch_size=2, shuffle=False)
    assert rows["x"].numpy().tolist() == [[1, 2] if step != {"pad": 2} else [3, 4], [0, 0]]
    job["features"] = [{"columns": ["x"], "steps": [{"pad": 4}]}]
    with pytest.raises(DataError, match="null"):
        run_in_process(job, overwrite=True)


CONSTANT = {"impute": {"strategy": "constant", "value": "c"}}


@pytest.mark.parametrize(
    ("steps", "passes"),
    [
        (["ordinal_encode"], 1),
        ([{"last": 1}, "ordinal_encode"], 2),
        (["list_length", "standard_scale"], 2),
        ([{"first": 2}, "multi_hot"], 2),
    ],
)
def test_elements_that_are_filled_are_learnt_from(steps: list[Any], passes: int) -> None:
    array = pa.array([["c", None, "d"], [None, None], [], ["c", "d", None]])
    state, other = fitted(array, {"impute": "most_frequent"}, *steps), fitted(array, CONSTANT, *steps)
    assert state.graph.passes == passes
    assert [*state.fitted.values()][-1] == [*other.fitted.values()][-1]
    rows = pa.record_batch({"x": array})
    made, wanted = (Transform(one).apply(rows)["x"] for one in (state, other))
    assert made.tolist() == wanted.tolist()
