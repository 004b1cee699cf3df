"""target_encode against scikit-learn's TargetEncoder, and that no row sees its own label."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import TargetEncoder

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.engine.program import Program
from dtap_dask.features.graph.serving import of_new_rows, raw_columns
from dtap_dask.features.statistics.labels import LabelMoments
from dtap_dask.storage import open_store
from fitting import fit_batches, learnt
from property_tests import examples

FOLDS = 3


def batch(values: Any, labels: Any, folds: Any) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(values), "y": pa.array(labels), f"<fold {FOLDS}>": np.asarray(folds)})


def fit(rows: pa.RecordBatch, *cuts: int, encode: tuple[str, ...] = (), **options: Any) -> FittedState:
    step = parse_step("target_encode", {"cv": FOLDS, **options})
    label = FeatureSpec("y", "label", ("y",), tuple(map(parse_step, encode)), place="label")
    schema = pa.schema(list(rows.schema)[:2])
    graph = build([FeatureSpec("x", "feature", ("x",), (step,), place="features[0]"), label], schema)
    ends = sorted({0, *(cut for cut in cuts if cut < rows.num_rows), rows.num_rows})
    pieces = [rows.slice(low, high - low) for low, high in pairwise(ends)]
    return fit_batches(graph, pieces, [piece.column(f"<fold {FOLDS}>").to_numpy() >= 0 for piece in pieces])


def encoded(state: FittedState, rows: pa.RecordBatch) -> Any:
    """float64 [n, classes], before rounding."""
    program = Program(state.graph.values, state.fitted)
    found = program.run(rows)[program.places[state.graph.outputs[0].values[0]]]
    return found.values.reshape(rows.num_rows, -1)


def by_sklearn(rows: pa.RecordBatch, target_type: str, smooth: Any) -> tuple[Any, Any]:
    """scikit-learn's encoder of the fitted rows, and what one for each fold's complement makes of its rows."""
    values = np.array(rows.column("x").to_pylist(), object)[:, None]
    labels, folds = np.array(rows.column("y").to_pylist()), rows.column(f"<fold {FOLDS}>").to_numpy()

    def learn(used: Any) -> Any:
        return TargetEncoder(smooth=smooth, target_type=target_type).fit(values[used], labels[used])

    whole = learn(folds >= 0)
    made = np.empty((len(labels), len(np.atleast_1d(whole.target_mean_))))
    for fold in range(-1, FOLDS):
        encoder = learn((folds >= 0) & (folds != fold))
        mine = folds == fold
        if mine.any():
            made[mine] = encoder.transform(values[mine]).reshape(mine.sum(), -1)
    return whole, made


def some(kind: str, labels: Any, count: int = 400) -> pa.RecordBatch:
    rng = np.random.default_rng(0)
    among = [7, -3, 2**40, 0, None] if kind == "int" else ["b", "a", "né", "", None]
    values = rng.choice(among, count, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    made = rng.normal(5, 2, count) if labels is None else rng.choice(labels, count)
    rows = batch(values.tolist(), made, rng.integers(-1, FOLDS, count))
    if kind == "coded":
        return rows.set_column(0, "x", rows.column("x").dictionary_encode())
    return rows


@pytest.mark.parametrize("smooth", ["auto", 0, 12.5])
@pytest.mark.parametrize(
    ("kind", "target_type", "labels"),
    [
        ("text", "continuous", None),
        ("int", "binary", [3.0, 7.0]),
        ("coded", "binary", [False, True]),
        ("coded", "multiclass", [9, 1, 4]),
    ],
)
def test_it_is_scikit_learns(kind: str, target_type: str, labels: Any, smooth: Any) -> None:
    rows = some(kind, labels)
    state = fit(rows, 100, 250, target_type=target_type, smooth=smooth)
    whole, made = by_sklearn(rows, target_type, smooth)
    fitted = learnt(state)
    assert fitted["categories_"].to_pylist() == whole.categories_[0].tolist()
    np.testing.assert_allclose(np.array(fitted["encodings_"].to_pylist()).T, whole.encodings_, rtol=1e-12)
    np.testing.assert_allclose(fitted["target_mean_"], np.atleast_1d(whole.target_mean_), rtol=1e-12)
    np.testing.assert_allclose(encoded(state, rows), made, rtol=1e-12)
    [info] = [info for info in Transform(state).infos if info.role == "feature"]
    assert info.shape == ((3,) if target_type == "multiclass" else ())
    assert info.dtype == "float32"


@given(
    rows=st.lists(
        st.tuples(st.none() | st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 3), st.integers(-1, FOLDS - 1)),
        max_size=25,
    ),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    smooth=st.sampled_from(["auto", 0.0, 2.0]),
)
@examples(0.4)
def test_however_the_rows_are_cut(rows: list[Any], cuts: list[int], smooth: Any) -> None:
    rows = [("a", 0, 0), ("a", 1, 1), ("b", 1, 2), *rows]
    made = batch(*map(list, zip(*rows, strict=True)))
    state = fit(made, *cuts, smooth=smooth)
    _, expected = by_sklearn(made, "continuous", smooth)
    np.testing.assert_allclose(encoded(state, made), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("target_type", ["continuous", "multiclass"])
def test_no_row_sees_its_own_label_or_that_of_another_part(target_type: str) -> None:
    rows = some("text", [1, 2, 3], 90)
    before = encoded(fit(rows, target_type=target_type), rows)
    labels, folds = np.array(rows.column("y").to_pylist()), rows.column(f"<fold {FOLDS}>").to_numpy()
    for fold in range(FOLDS):
        changed = np.where(folds == fold, 4 - labels, labels)
        after = encoded(fit(rows.set_column(1, "y", pa.array(changed)), target_type=target_type), rows)
        np.testing.assert_array_equal(after[folds == fold], before[folds == fold])
        assert (after[folds != fold] != before[folds != fold]).any()
    others = rows.set_column(1, "y", pa.array(np.where(folds == -1, 4 - labels, labels)))
    np.testing.assert_array_equal(encoded(fit(others, target_type=target_type), rows), before)


def test_new_rows_need_neither_label_nor_folds(tmp_path: Path) -> None:
    rows = some("text", None)
    state = fit(rows)
    assert raw_columns(state.graph, ()) == ("x",)
    new = pa.record_batch({"x": ["a", None, "unseen"]})
    served = of_new_rows(state)
    assert served.graph.columns == ("x",)
    served.save(open_store(str(tmp_path)))
    assert FittedState.load(open_store(str(tmp_path))).fitted == served.fitted
    made = encoded(served, new)[:, 0]
    whole, _ = by_sklearn(rows, "continuous", "auto")
    expected = whole.transform(np.array([["a"], [None], ["unseen"]], object))[:, 0]
    np.testing.assert_allclose(made, expected, rtol=1e-12)


def test_classes_of_an_encoded_label_are_in_the_order_of_its_ids() -> None:
    rows = batch(["a", "a", "b", "b", "a", "b"], ["no", "yes", "yes", "yes", "no", "may"], [0, 1, 2, 0, 1, 2])
    state = fit(rows, encode=("ordinal_encode",), target_type="multiclass", smooth=0)
    assert state.passes == 2
    assert state.fitted[state.graph.outputs[1].values[0]]["vocabulary"].to_pylist() == ["yes", "no", "may"]
    made = learnt(state)["encodings_"].to_pylist()
    np.testing.assert_allclose(made, [[1 / 3, 2 / 3, 0], [2 / 3, 0, 1 / 3]], rtol=1e-15)


ROWS = batch(["a", "b", "a", "c", "b", "a"], [1.0, 2.0, 3.0, 1.0, 2.0, 5.0], [0, 1, 2, 0, 1, 2])
BINARY, CLASSES = {"target_type": "binary"}, {"target_type": "multiclass"}


def labels(values: list[Any]) -> pa.RecordBatch:
    return batch(["a"] * len(values), values, np.arange(len(values)) % FOLDS)


@pytest.mark.parametrize(
    ("rows", "options", "encode", "says"),
    [
        (ROWS.set_column(0, "x", pa.array([1.5] * 6)), {}, (), "'x': target_encode needs integers, booleans or text"),
        (labels(["u", "v", "u"]), {}, ("one_hot_encode",), "a label that is one number a row, and it is one-hot vec"),
        (labels(["u", "v", "u"]), {}, ("ordinal_encode",), "ids, which are classes; valid: target_type binary or"),
        (ROWS, {"max_values": 2}, (), "column 'x', step target_encode meets 3 distinct values, and max_values is 2"),
        (ROWS, BINARY, (), "step target_encode learns from has 4 values, and target_type binary needs 2"),
        (labels([1.0] * 3), CLASSES, (), "one value in the fitted rows, and target_type multiclass needs two"),
        (ROWS.slice(0, 2), {}, (), "1 of the 3 folds of column 'x', step target_encode, have no row: there are 2"),
        (
            labels([2**53, 2**53 + 1, 0]),
            CLASSES,
            (),
            "beyond 2.53, which float64 does not tell apart. Give the",
        ),
        (labels([1e200, 0, -1e200]), {}, (), "learns from overflow float64"),
        (labels([1.0, None, 2.0]), {}, (), "column 'y' .*null"),
    ],
)
def test_what_is_refused(rows: pa.RecordBatch, options: Any, encode: Any, says: str) -> None:
    with pytest.raises((DataError, JobError), match=says):
        fit(rows, encode=encode, **options)


def test_many_labels_taken_as_classes_end_in_an_error_and_not_in_a_huge_table() -> None:
    count = 30_000
    rows = batch(np.arange(count) % 500, np.arange(count) * 1.0, np.arange(count) % FOLDS)
    with pytest.raises(DataError, match="has more than 1,000 values, which is the most for target_type multiclass"):
        fit(rows, 10_000, 20_000, target_type="multiclass")


def test_the_counts_of_classes_do_not_depend_on_the_cut() -> None:
    rows = some("coded", [1, 2, 3])
    parts = [learnt(fit(rows, *cuts, target_type="multiclass")) for cuts in ((), (1, 399), range(0, 400, 7))]
    assert all(part == parts[0] for part in parts)
    assert LabelMoments(FOLDS, True).empty().classes
