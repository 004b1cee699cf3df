"""Steps with `by` against scikit-learn's estimators fitted on each group of pandas' groupby."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import KBinsDiscretizer, MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.columns.column import Numbers
from dtap_dask.features.engine.program import Program
from dtap_dask.features.graph.serving import of_new_rows, raw_columns
from dtap_dask.features.statistics import keyed
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.features.statistics.keyed import KeyedStatistic
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import Moments
from dtap_dask.storage import open_store
from fitting import fit_batches, learnt
from property_tests import examples

KEYS = {
    "text": (pa.binary(), [b"a", b"", "né".encode(), b"\xff", None]),
    "coded": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "c", "d", None]),
    "int": (pa.int64(), [-(2**63), 0, 7, 2**53 + 1, None]),
    "unsigned": (pa.uint64(), [0, 2**64 - 1, 2**63, 1, None]),
    "bool": (pa.bool_(), [True, False, None]),
    "date": (pa.date32(), [-1, 0, 9000, None]),
}


def spec(steps: list[Any], column: str = "x", **more: Any) -> FeatureSpec:
    return FeatureSpec("x", "feature", (column,), tuple(parse_step(*one) for one in steps), place="features[0]", **more)


def fit(rows: pa.RecordBatch, steps: list[Any], *cuts: int) -> FittedState:
    graph = build([spec(steps, allow_null=not steps[-1][0].startswith(("imp", "buck")))], rows.schema)
    ends = sorted({0, *(cut for cut in cuts if cut < rows.num_rows), rows.num_rows})
    return fit_batches(graph, [rows.slice(low, high - low) for low, high in pairwise(ends)])


def computed(state: FittedState, rows: pa.RecordBatch) -> Any:
    """The feature before it is rounded."""
    program = Program(state.graph.values, state.fitted)
    found = program.run(rows)[program.places[state.graph.outputs[0].values[0]]]
    return found.floats()


def by_group(make: Callable[[], Any], fitted: pd.DataFrame, rows: pd.DataFrame) -> Any:
    """What estimators give, one fitted on each group with values and one on all rows for all other keys."""
    known = fitted.dropna(subset=["x"])
    groups = dict(list(known.groupby("k")["x"]))
    made = np.full(len(rows), np.nan)
    keys = rows["k"].where(rows["k"].isin(groups), None)
    for key in keys.unique():
        own = (keys.isna() if pd.isna(key) else keys == key).to_numpy()
        estimator = make().fit(groups.get(key, known["x"]).to_numpy()[:, None])
        made[own] = estimator.transform(rows["x"].to_numpy()[own, None])[:, 0]
    return made


def plain(rows: pa.RecordBatch) -> pd.DataFrame:
    keys = [None if one is None else repr(one) for one in rows.column("k").to_pylist()]
    return pd.DataFrame({"x": np.array(rows.column("x").to_pylist(), float), "k": pd.Series(keys, dtype=object)})


SCALERS: dict[str, tuple[list[Any], Callable[[], Any]]] = {
    "standard_scale": ([("standard_scale", {"by": "k"})], StandardScaler),
    "without_mean": ([("standard_scale", {"by": "k", "with_mean": False})], lambda: StandardScaler(with_mean=False)),
    "minmax_scale": ([("minmax_scale", {"by": "k", "feature_range": [-1, 3]})], lambda: MinMaxScaler((-1, 3))),
    "maxabs_scale": ([("maxabs_scale", {"by": "k"})], MaxAbsScaler),
    "robust_scale": ([("robust_scale", {"by": "k"})], RobustScaler),
    "impute": ([("impute", {"by": "k"})], SimpleImputer),
    "median": ([("impute", {"by": "k", "strategy": "median"})], lambda: SimpleImputer(strategy="median")),
    "frequent": (
        [("impute", {"by": "k", "strategy": "most_frequent"})],
        lambda: SimpleImputer(strategy="most_frequent"),
    ),
}
NUMBERS = st.integers(-3, 3).map(float) | st.integers(-(10**6), 10**6).map(lambda x: x / 8)
VALUES = st.none() | NUMBERS


def drawn(kind: str, values: Any, least: int = 1) -> st.SearchStrategy[pa.RecordBatch]:
    arrow, keys = KEYS[kind]
    rows = st.lists(st.tuples(values, st.sampled_from(keys)), min_size=least, max_size=20)
    return rows.map(lambda found: batch([x for x, _ in found], pa.array([key for _, key in found], arrow)))


def batch(x: Any, k: Any) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(x, pa.float64()) if isinstance(x, list) else x, "k": k})


@pytest.mark.parametrize("name", SCALERS)
@given(data=st.data(), cuts=st.lists(st.integers(0, 20), max_size=3))
@examples(0.5)
def test_each_key_has_an_estimator_of_its_own(name: str, data: Any, cuts: list[int]) -> None:
    kind = data.draw(st.sampled_from([*KEYS]))
    rows, new = data.draw(drawn(kind, VALUES)), data.draw(drawn(kind, VALUES))
    steps, make = SCALERS[name]
    if rows.column("x").null_count == rows.num_rows:
        with pytest.raises(
            DataError, match=f"nothing to learn in column 'x'.* by 'k': the fitted rows hold {len(rows)}"
        ):
            fit(rows, steps, *cuts)
        return
    state = fit(rows, steps, *cuts)
    assert state.graph.passes == 1
    for some in (rows, new):
        expected = by_group(make, plain(rows), plain(some))
        np.testing.assert_allclose(computed(state, some), expected, rtol=1e-9, atol=1e-9)


@given(data=st.data(), cuts=st.lists(st.integers(0, 20), max_size=3))
@examples(0.5)
def test_buckets_are_those_of_each_key(data: Any, cuts: list[int]) -> None:
    kind = data.draw(st.sampled_from([*KEYS]))
    rows, new = (data.draw(drawn(kind, NUMBERS, 4)) for _ in range(2))
    state = fit(rows, [("bucketize", {"by": "k", "quantiles": 4})], *cuts)
    known, seen = plain(rows).dropna().groupby("k")["x"], set(plain(rows)["k"].dropna())
    for some in (rows, new):
        expected = []
        for x, key in zip(*map(plain(some).get, "xk"), strict=True):
            values = known.get_group(key) if key in seen else plain(rows)["x"]
            expected.append(np.digitize(x, np.unique(np.quantile(values, [0.25, 0.5, 0.75]))))
        assert computed(state, some).tolist() == expected
    assert state.infos[0].ids == 1 + max(len(one) for one in learnt(state)["boundaries_"].to_pylist())
    assert state.infos[0].vocabulary is None


def test_buckets_are_k_bins_discretizers() -> None:
    rng = np.random.default_rng(0)
    rows = batch(rng.normal(size=2000).tolist(), pa.array(rng.choice(["a", "b"], 2000)))
    bins = {"encode": "ordinal", "strategy": "quantile", "quantile_method": "linear", "subsample": None}
    expected = by_group(lambda: KBinsDiscretizer(5, **bins), plain(rows), plain(rows))
    assert computed(fit(rows, [("bucketize", {"by": "k", "quantiles": 5})], 700), rows).tolist() == expected.tolist()


def test_buckets_of_integers_are_exact() -> None:
    near = [2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3, 2**63 - 1, -(2**63)]
    rows = batch(pa.array([*near, 5], pa.int64()), pa.array([*"aabbcc", None]))
    state = fit(rows, [("bucketize", {"by": "k", "quantiles": 2})])
    assert learnt(state)["boundaries_"].to_pylist()[:2] == [[2.0**53], [2.0**53 + 4]]
    new = batch(pa.array([2**53 - 1, 2**53, 2**53 + 3, 2**53 + 4], pa.int64()), pa.array([*"aabb"]))
    assert computed(state, new).tolist() == [0, 1, 0, 1]


NINES = "9" * 36 + ".01"


@pytest.mark.parametrize(
    ("kind", "values", "filled"),
    [
        (pa.string(), ["u", "v", "v", None, "w", "w", None], ["v", "w"]),
        (pa.binary(), [b"\xff", b"\xff", b"", None, b"", b"", None], [b"\xff", b""]),
        (pa.uint64(), [2**64 - 1, 2**64 - 1, 3, None, 4, 4, None], [2**64 - 1, 4]),
        (pa.int8(), [-128, -128, 3, None, 4, 4, None], [-128, 4]),
        (pa.bool_(), [True, True, False, None, False, False, None], [True, False]),
        (pa.decimal128(38, 2), [NINES, NINES, "1.10", None, "-2.30", "-2.3", None], [NINES, "-2.30"]),
    ],
)  # fmt: skip
def test_most_frequent_values_of_every_type_are_exact(kind: pa.DataType, values: list[Any], filled: list[Any]) -> None:
    own = pa.string() if pa.types.is_decimal(kind) else kind
    rows = batch(pa.array(values, own).cast(kind), pa.array([*"aaaabbb"]))
    graph = build([spec([("impute", {"strategy": "most_frequent", "by": "k"})])], rows.schema)
    state = fit_batches(graph, [rows.slice(0, 2), rows.slice(2)])
    program = Program(state.graph.values, state.fitted)
    found = program.run(rows)[program.places[graph.outputs[0].values[0]]]
    made = found.plain() if hasattr(found, "plain") else getattr(found, "array", None)
    listed = (made.cast(own) if made is not None else pa.array(found.values)).to_pylist()
    assert [listed[3], listed[6]] == filled


def test_keys_and_values_are_saved_and_loaded(tmp_path: Path) -> None:
    rows = batch(pa.array(["u", "u", "v", None]), pa.array([2**63, 2**63, 1, 5], pa.uint64()))
    graph = build([spec([("impute", {"strategy": "most_frequent", "by": "k"})])], rows.schema)
    state = fit_batches(graph, [rows])
    state.save(open_store(str(tmp_path)))
    loaded = FittedState.load(open_store(str(tmp_path)))
    assert (loaded.graph, loaded.fitted) == (state.graph, state.fitted)
    assert learnt(loaded)["keys_"].to_pylist() == [1, 2**63, None]
    assert learnt(loaded)["statistics_"].to_pylist() == ["v", "u", "u"]
    assert "x, k > impute by 'k' (keys_ of 3, statistics_ of 3)" in repr(loaded)


def test_new_rows_need_the_key_and_nothing_else() -> None:
    rows = batch([1.0, 3.0, 5.0, 9.0], pa.array([*"aabb"])).append_column("y", pa.array([0, 1, 0, 1]))
    label = FeatureSpec("y", "label", ("y",), (), place="label")
    graph = build([spec([("standard_scale", {"by": "k"})]), label], rows.schema)
    assert graph.columns == ("x", "k", "y")
    assert graph.reasons == ("level 1: standard_scale by 'k' of x",)
    state = of_new_rows(fit_batches(graph, [rows]))
    assert raw_columns(graph, ()) == raw_columns(state.graph, ()) == ("x", "k")
    assert Transform(state).apply(rows.select(["x", "k"]))["x"].tolist() == [-1, 1, -1, 1]
    assert of_new_rows(state).graph == state.graph


@pytest.mark.parametrize(
    ("steps", "passes"),
    [
        ([("impute", {}), ("standard_scale", {"by": "k"})], 2),
        ([("impute", {"by": "k"}), ("standard_scale", {})], 2),
        ([("impute", {"by": "k"}), ("standard_scale", {"by": "k"})], 2),
        ([("standard_scale", {"by": "k"}), ("minmax_scale", {})], 2),
    ],
)
@given(rows=drawn("text", VALUES, 3).filter(lambda rows: rows.column("x").null_count < rows.num_rows))
@examples(0.3)
def test_steps_behind_each_other(steps: list[Any], passes: int, rows: pa.RecordBatch) -> None:
    state = fit(rows, steps, 2)
    assert state.graph.passes == passes
    last = computed(state, rows)
    for step in steps:  # one after the other, each on the column that the one before made
        rows = rows.set_column(0, "x", pa.array(computed(fit(rows, [step]), rows), from_pandas=True))
    np.testing.assert_allclose(last, rows.column("x").to_numpy(zero_copy_only=False), rtol=1e-9, atol=1e-9)


def test_the_size_of_what_is_not_fitted_yet_can_be_told() -> None:
    schema = pa.schema({"x": pa.float64(), "k": pa.string()})
    graph = build([spec([("impute", {"by": "k"}), ("bucketize", {"quantiles": 300, "by": "k"})])], schema)
    guessed = {value: value.applied.guess(9)[1] for value in graph.values if value.learns}
    [info] = FittedState(graph, graph.passes, 9, guessed).infos
    assert (info.ids, info.stored) == (300, "uint16")


def test_a_vector_has_a_value_by_its_key_in_each_place() -> None:
    rows = pa.record_batch({"x": [1.0, 3.0, 5.0, 9.0], "y": [1.0, 2.0, 1.0, 3.0], "k": [*"aabb"]})
    step = (parse_step("standard_scale", {"by": "k"}),)
    graph = build([FeatureSpec("v", "feature", ("x", "y"), step, vector=True)], rows.schema)
    assert Transform(fit_batches(graph, [rows])).apply(rows)["v"].tolist() == [[-1, -1], [1, 1], [-1, -1], [1, 1]]


BAD: dict[str, tuple[dict[str, pa.DataType], list[Any], str]] = {
    "no such column": ({"x": pa.float64(), "key": pa.string()}, [("standard_scale", {"by": "kez"})],
                       "features[0].steps[0]: by: there is no column 'kez'. Did you mean 'key'?"),
    "float": ({"x": pa.float64(), "k": pa.float32()}, [("standard_scale", {"by": "k"})],
              "by: keys are text, integers, booleans, dates or timestamps, and column 'k' is float. `derive` such a"),
    "decimal": ({"x": pa.float64(), "k": pa.decimal128(9, 0)}, [("impute", {"by": "k"})],
                "column 'k' is decimal128(9, 0). `derive` such"),
    "list key": ({"x": pa.float64(), "k": pa.list_(pa.string())}, [("impute", {"by": "k"})],
                 "'k' is a list (list<"),
    "time of day": ({"x": pa.float64(), "k": pa.time32("s")}, [("impute", {"by": "k"})],
                    "by: column 'k' cannot be a key: it is time32[s]"),
    "list": ({"x": pa.list_(pa.float64()), "k": pa.string()}, [("minmax_scale", {"by": "k"})],
             "`by` takes one number or text a row, and the column is a list"),
    "text": ({"x": pa.string(), "k": pa.string()}, [("robust_scale", {"by": "k"})],
             "column 'x': robust_scale needs numbers, and the column is text."),
    "label": ({"x": pa.float64(), "y": pa.int64()}, [("maxabs_scale", {"by": "y"})],
              "by: column 'y' is the label, which new rows do not have. Use another key."),
}  # fmt: skip


@pytest.mark.parametrize(("types", "steps", "message"), BAD.values(), ids=[*BAD])
def test_bad_keys_and_columns(types: dict[str, pa.DataType], steps: list[Any], message: str) -> None:
    label = [FeatureSpec("y", "label", ("y",), (), place="label")] if "y" in types else []
    with pytest.raises(JobError) as caught:
        build([spec(steps), *label], pa.schema(types))
    assert str(caught.value).startswith("features[0].steps[0]: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        ("impute", {"strategy": "constant", "value": 1, "by": "k"}, "`by` goes with a strategy that learns"),
        ("bucketize", {"boundaries": [1, 2], "by": "k"}, "`by` goes with `quantiles`"),
        ("standard_scale", {"by": ""}, "at least 1 character"),
        ("standard_scale", {"by": ["k", "l"]}, "by: "),
        ("standard_scale", {"by": "k", "max_keys": 0}, "max_keys: "),
        ("clip", {"min": 0, "by": "k"}, "unknown key 'by'"),
    ],
)
def test_bad_options(step: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError) as caught:
        parse_step(step, options)
    assert message in str(caught.value)


@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 3)])
def test_too_many_keys(cuts: tuple[int, ...]) -> None:
    rows = batch([1.0, 2.0, 3.0, None, 4.0], pa.array([*"abcda"]))
    assert learnt(fit(rows, [("standard_scale", {"by": "k", "max_keys": 3})], *cuts))["mean_"][0].as_py() == 2.5
    with pytest.raises(DataError) as caught:
        fit(rows, [("standard_scale", {"by": "k", "max_keys": 2})], *cuts)
    assert str(caught.value) == (
        "The column 'x', step standard_scale by 'k', meets more than 2 keys that have values, and max_keys is 2. Raise "
        "`max_keys`, or `derive` a key with fewer values."
    )


def test_infinities_name_the_step() -> None:
    rows = batch([1.0, float("inf")], pa.array(["a", None]))
    with pytest.raises(DataError, match="1 values of column 'x' are infinite at step standard_scale by 'k'"):
        fit(rows, [("standard_scale", {"by": "k"})])


def test_keys_without_variance_follow_scikit_learn() -> None:
    rows = batch([7.0, 7.0, 0.0, 5.0, None], pa.array([*"aabcd"]))
    for name, steps in {"standard_scale": [0, 0, 0, 0], "minmax_scale": [-1, -1, -1, -1], "maxabs_scale": [1, 1, 0, 1],
                        "robust_scale": [0, 0, 0, 0]}.items():  # fmt: skip
        state = fit(rows, SCALERS[name][0])
        assert computed(state, rows)[:4].tolist() == steps
        assert learnt(state)["keys_"].to_pylist() == ["a", "b", "c", None]  # the key d has no value


@pytest.mark.parametrize("kind", [Moments, Counts])
@pytest.mark.parametrize("pending", [1, 70, 1 << 20])
def test_a_part_is_the_statistic_of_its_rows(kind: Any, pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed, "PENDING", pending)
    rng = np.random.default_rng(1)
    values, keys = rng.integers(0, 5, 300), rng.integers(0, 40, 300)
    parts = []
    for at in range(0, 300, 60):
        part = KeyedStatistic(kind, 100)
        for begin in (at, at + 30):
            own = slice(begin, begin + 30)
            part.add(Sample(Numbers(values[own])), Sample(Numbers(keys[own])))
        part.settle()
        parts.append(part)
    found = KeyedStatistic.merged([KeyedStatistic.merged(parts[:2]), KeyedStatistic.merged(parts[2:])])
    assert [key for key, _ in found.by_key()] == sorted(set(keys.tolist()))
    for key, part in found.by_key():
        alone = kind()
        alone.add(Sample(Numbers(values[keys == key])))
        alone.settle()
        if kind is Counts:
            assert [one.tolist() for one in part.by_value()] == [one.tolist() for one in alone.by_value()]
        else:
            np.testing.assert_allclose([part.mean, part.squares], [alone.mean, alone.squares], atol=1e-12)
