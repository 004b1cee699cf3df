"""The graph of values: what is shared, what a pass takes, and operations of any shape through the whole engine."""

from __future__ import annotations

import pickle
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dtap_dask.errors import JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.engine.fit import measures
from dtap_dask.features.steps.operation import Source
from dtap_dask.features.steps.registry import OPERATIONS, STEPS
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.lake.scan import read_task
from dtap_dask.storage import open_store
from fitting import fit_batches
from operations import Cross, DatePart, DateParts, Polynomial, TargetEncode

OWN = (Cross, DateParts, DatePart, Polynomial, TargetEncode)
ROWS = 400


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for operation in OWN:
        monkeypatch.setitem(OPERATIONS, operation.name, operation)
        monkeypatch.setitem(STEPS, operation.name, operation)


def rows() -> pa.RecordBatch:
    rng = np.random.default_rng(0)
    return pa.record_batch(
        {
            "a": pa.array(rng.choice(["p", "q", "r"], ROWS)),
            "b": pa.array(rng.choice(["u", "v"], ROWS)),
            "x": rng.normal(size=ROWS),
            "z": rng.normal(size=ROWS),
            "t": pa.array(rng.integers(0, 2 * 10**15, ROWS), pa.timestamp("us")),
            "y": (rng.random(ROWS) < 0.4).astype(float),
            "<fold 3>": rng.integers(-1, 3, ROWS),
        }
    )


def spec(name: str, columns: str, *steps: Any, role: Any = "feature", **more: Any) -> FeatureSpec:
    parsed = tuple(parse_step(step) if isinstance(step, str) else step for step in steps)
    return FeatureSpec(name, role, tuple(columns.split()), parsed, place="features[0]", **more)


LABEL = spec("y", "y", role="label")
SCHEMA = pa.schema([field for field in rows().schema if field.name != "<fold 3>"])


def fitted(*specs: FeatureSpec) -> FittedState:
    """Two tasks; the rows outside any fold are not fitted."""
    batch = rows()
    mask = batch.column("<fold 3>").to_numpy() >= 0
    pieces = [batch.slice(0, 250), batch.slice(250)]
    return fit_batches(build(specs, SCHEMA), pieces, [mask[:250], mask[250:]])


def saved(state: FittedState, folder: Path) -> FittedState:
    """The state as it is read from disk, which must be the same."""
    state.save(open_store(str(folder)))
    loaded = FittedState.load(open_store(str(folder)))
    assert loaded.graph == state.graph
    assert loaded.as_json() == state.as_json()
    return loaded


@pytest.mark.usefixtures("registered")
def test_an_operation_of_two_columns(tmp_path: Path) -> None:
    state = saved(fitted(spec("a_x_b", "a b", Cross(buckets=100), vector=True)), tmp_path)
    [info] = Transform(state).infos
    assert (info.shape, info.dtype, info.stored, info.ids, info.columns) == ((), "int64", "uint8", 100, ("a", "b"))
    ids = Transform(state).apply(rows())["a_x_b"]
    pairs = list(zip(rows().column("a").to_pylist(), rows().column("b").to_pylist(), strict=True))
    known = dict(zip(pairs, ids.tolist(), strict=True))
    assert [known[pair] for pair in pairs] == ids.tolist()
    assert len(set(known.values())) == len(known) == 6


@pytest.mark.usefixtures("registered")
def test_a_step_with_several_results(tmp_path: Path) -> None:
    scaled = spec("t", "t", DateParts(), "standard_scale")
    state = saved(fitted(scaled, spec("both", "t", DateParts(), vector=True)), tmp_path)
    assert [info.name for info in Transform(state).infos] == ["t_hour", "t_day_of_week", "both"]
    made = Transform(state).apply(rows())
    hours = pc.hour(rows().column("t")).to_numpy()
    np.testing.assert_array_equal(made["both"], np.column_stack([hours, pc.day_of_week(rows().column("t"))]))
    used = hours[rows().column("<fold 3>").to_numpy() >= 0]
    np.testing.assert_allclose(made["t_hour"], (hours - used.mean()) / used.std(), rtol=1e-6)
    parts = [value for value in state.graph.values if isinstance(value.operation, DatePart)]
    assert len(parts) == 2  # not four: the outputs share them


@pytest.mark.usefixtures("registered")
def test_a_block_that_learns_nothing_behind_scalers(tmp_path: Path) -> None:
    state = saved(fitted(spec("p", "x z", "standard_scale", Polynomial(degree=2), vector=True)), tmp_path)
    plain = Transform(fitted(spec("v", "x z", "standard_scale", parse_step("cast", "float64"), vector=True)))
    block = plain.apply(rows())["v"]
    expected = [block[:, list(ps)].prod(axis=1) for d in (1, 2) for ps in combinations_with_replacement((0, 1), d)]
    made = Transform(state).apply(rows())["p"]
    assert made.shape == (ROWS, 5)
    np.testing.assert_allclose(made, np.column_stack(expected), rtol=1e-6)


def by_definition(words: Any, label: Any, folds: Any) -> Any:
    means = []
    for word, fold in zip(words, folds, strict=True):
        used = (words == word) & (folds >= 0) & (folds != fold if fold >= 0 else True)
        means.append(label[used].mean())
    return np.array(means)


@pytest.mark.usefixtures("registered")
def test_an_operation_that_needs_label_and_folds(tmp_path: Path) -> None:
    alone, scaled = spec("a", "a", TargetEncode()), spec("s", "a", TargetEncode(), "standard_scale")
    state = saved(fitted(alone, scaled, LABEL), tmp_path)
    assert state.passes == 2  # the scaler waits for what it scales
    assert state.graph.columns == ("a", "y")
    assert state.graph.folds == (3,)
    words, label = np.array(rows().column("a").to_pylist()), rows().column("y").to_numpy()
    expected = by_definition(words, label, rows().column("<fold 3>").to_numpy())
    made = Transform(state).apply(rows())
    np.testing.assert_allclose(made["a"], expected, rtol=1e-6)
    serving = rows().drop_columns(["<fold 3>"])
    whole = [label[(words == word) & (rows().column("<fold 3>").to_numpy() >= 0)].mean() for word in words]
    np.testing.assert_allclose(Transform(state).apply(serving)["a"], whole, rtol=1e-6)


@pytest.mark.usefixtures("registered")
def test_labels_that_cannot_be_learnt_from() -> None:
    for specs, says in (
        ([spec("a", "a", TargetEncode())], "learns from the label, and the job has none"),
        ([spec("a", "a", TargetEncode()), LABEL, spec("x", "x", role="label")], "the job has 2"),
        ([spec("a", "a", TargetEncode(), role="label")], "cannot make it"),
    ):
        with pytest.raises(JobError, match=says) as error:
            build(specs, SCHEMA)
        assert len(error.value.problems) == 1
    with pytest.raises(JobError, match="a label of text needs an encoder") as error:
        build([spec("a", "a", TargetEncode()), spec("b", "b", role="label")], SCHEMA)
    assert len(error.value.problems) == 1  # what is wrong with the label is reported once


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("split", [None, {"parts": {"train": 0.7, "eval": 0.3}, "key": ["a", "t"]}])
def test_the_scan_gives_folds_of_the_fitted_rows(split: Any, tmp_path: Path) -> None:
    batch = rows().drop_columns(["<fold 3>"])
    pq.write_table(pa.Table.from_batches([batch]), tmp_path / "a.parquet", row_group_size=150)
    job = {
        "version": 1,
        "source": {"path": str(tmp_path / "a.parquet")},
        "label": "y",
        "features": [{"columns": "a", "steps": [{"test_target": {"folds": 3}}]}],
        "output": {"path": str(tmp_path / "out")},
        **({"split": split} if split else {}),
    }
    plan = make_plan(job)
    scan = plan.checked.scan
    batches = list(read_task(plan.source, scan, plan.task(0, range(len(plan.groups)))))
    folds = np.concatenate([one.rows.column("<fold 3>").to_numpy() for one in batches])
    mask = np.concatenate([scan.fit_mask(one.split) for one in batches])
    assert ((folds >= 0) == mask).all()
    assert np.bincount(folds[mask], minlength=3).min() > mask.sum() / 5
    state = fit_batches(
        plan.checked.graph, [one.rows for one in batches], [scan.fit_mask(one.split) for one in batches]
    )
    read = pa.Table.from_batches([one.rows for one in batches])
    made = np.concatenate([Transform(state).apply(one.rows)["a"] for one in batches])
    words = np.array(read.column("a").to_pylist())
    np.testing.assert_allclose(made, by_definition(words, read.column("y").to_numpy(), folds), rtol=1e-6)
    again = list(read_task(plan.source, scan, plan.task(0, range(len(plan.groups)))))
    assert [one.rows for one in again] == [one.rows for one in batches]


def test_values_survive_another_process_and_know_each_other() -> None:
    graph = build([spec("v", "x z", "standard_scale", parse_step("pca", 2), vector=True), LABEL], SCHEMA)
    copy = pickle.loads(pickle.dumps(graph))
    assert copy == graph
    assert set(copy.values) == set(graph.values)
    assert [measure.values for measure in measures(copy, 0)] == [measure.values for measure in measures(graph, 0)]


def test_equal_steps_with_other_results_are_two_values() -> None:
    schema = pa.schema({"n": pa.int64()})
    specs = [spec(name, "n", parse_step("clip", {"min": low})) for name, low in (("i", 0), ("f", 0.0), ("j", 0))]
    whole, floats, same = (output.values[0] for output in build(specs, schema).outputs)
    assert whole is same
    assert whole != floats  # 0 == 0.0, but one gives integers and the other floats


def test_messages_name_the_first_output_that_uses_a_value() -> None:
    graph = build([spec("one", "x"), spec("two", "x", "standard_scale"), spec("three", "x", "standard_scale")], SCHEMA)
    [scaled] = [value for value in graph.values if value.learns]
    assert str(graph.context(scaled)) == "column 'x' (feature 'two'), step standard_scale"
    [source] = [value for value in graph.values if isinstance(value.operation, Source)]
    assert str(graph.context(source)) == "column 'x' (feature 'one'), step reading"
