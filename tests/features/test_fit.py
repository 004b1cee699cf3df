"""Levels, shared statistics, determinism, and errors that the first pass raises."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import (
    Accumulator,
    FeatureSpec,
    FittedState,
    Transform,
    build,
    finish,
    merge,
    parse_step,
)
from dtap_dask.features.engine.fit import measures
from fitting import fit_batches
from property_tests import examples

SCHEMA = pa.schema({"x": pa.float64(), "y": pa.float64(), "n": pa.int64(), "s": pa.string(), "b": pa.bool_()})


def spec(name, columns, *steps, role="feature", **more):
    parsed = tuple(parse_step(step) if isinstance(step, str) else parse_step(*step) for step in steps)
    return FeatureSpec(name, role, tuple(columns), parsed, place=more.pop("place", "features[0]"), **more)


def graph_of(*specs, schema=SCHEMA):
    return build(specs, schema)


def rows_of(count, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.lognormal(size=count)
    return pa.record_batch(
        {
            "x": pa.array(np.where(rng.random(count) < 0.2, np.nan, x)),
            "y": pa.array(rng.normal(size=count)),
            "n": pa.array(rng.integers(-5, 5, count)),
            "s": pa.array(rng.choice(["a", "b", "c", None], count)).dictionary_encode(),
            "b": pa.array(rng.random(count) < 0.5),
        }
    )


MEDIAN = ("impute", {"strategy": "median"})
FREQUENT = ("impute", {"strategy": "most_frequent"})


@pytest.mark.parametrize(
    ("steps", "levels"),
    [
        ([], 0),
        (["log1p", ("clip", {"min": 0})], 0),
        ([("impute", {"strategy": "constant", "value": 0}), ("bucketize", {"boundaries": [1]})], 0),
        (["impute"], 1),
        (["standard_scale"], 1),
        (["impute", "standard_scale"], 1),
        ([MEDIAN, "log1p", ("clip", {"max": 9}), "minmax_scale"], 1),
        ([FREQUENT, "maxabs_scale", "log1p"], 1),
        ([MEDIAN, ("bucketize", {"quantiles": 4})], 1),
        (["standard_scale", "minmax_scale"], 2),
        (["impute", "standard_scale", ("bucketize", {"quantiles": 4})], 2),
        ([("bucketize", {"quantiles": 4}), "one_hot_encode"], 2),
        (["standard_scale", "impute", "minmax_scale"], 2),
        (["impute", "log1p", MEDIAN, "minmax_scale"], 2),
    ],
)
def test_levels(steps, levels):
    graph = graph_of(spec("out", ["x" if levels and steps[0] != "standard_scale" else "y"], *steps))
    assert graph.passes == levels
    assert len(graph.reasons) == levels
    if levels:
        rows = rows_of(300)
        state = fit_batches(graph, [rows.slice(0, 100), rows.slice(100)])
        assert state.passes == levels
        assert len(Transform(state).apply(rows)["out"]) == 300


def test_reasons_name_step_and_feature():
    graph = graph_of(spec("x", ["x"], "impute", "standard_scale", "minmax_scale"), spec("y", ["y"], "standard_scale"))
    assert graph.reasons[0] == "level 1: impute of x; standard_scale of x, y"
    assert graph.reasons[1].startswith("level 2: minmax_scale of x (")


def test_equal_statistics_are_taken_once():
    graph = graph_of(
        spec("x", ["x"], "impute", "standard_scale"),
        spec("again", ["x"], "standard_scale", allow_null=True),
        spec("sizes", ["x", "y"], "impute", "standard_scale", vector=True),
        spec("s", ["s"], "ordinal_encode"),
        spec("hot", ["s"], "one_hot_encode"),
    )
    assert [(m.values[0].columns[0], m.statistic.kind.__name__) for m in measures(graph, 0)] == [
        ("x", "Moments"),
        ("y", "Moments"),
        ("s", "Counts"),
    ]


def many():
    return graph_of(
        spec("x", ["x"], MEDIAN, "log1p", "standard_scale"),
        spec("deep", ["x"], "impute", "standard_scale", ("bucketize", {"quantiles": 5})),
        spec("v", ["y", "n"], "standard_scale", ("pca", 2), vector=True),
        spec("s", ["s"], ("ordinal_encode", {"top_k": 2, "oov_buckets": 3})),
        spec("b", ["b"], role="label"),
    )


def fit(graph, pieces, masks, fan_in):
    state = FittedState.unfitted(graph)
    for _ in range(graph.passes):
        parts = []
        for rows, mask in zip(pieces, masks, strict=True):
            accumulator = Accumulator(state)
            for start in range(0, rows.num_rows, 64):
                accumulator.add(rows.slice(start, 64), mask[start : start + 64])
            parts.append(pickle.loads(pickle.dumps(accumulator.partial())))
        while len(parts) > 1:
            parts = [merge(parts[i : i + fan_in]) for i in range(0, len(parts), fan_in)]
        state = finish(parts[0], state)
    return state


@examples(0.125)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=8), st.integers(2, 9), st.integers(0, 5))
def test_the_same_partition_gives_the_same_state_and_others_nearly(sizes, fan_in, seed):
    sizes = [*sizes, 50]
    rows = rows_of(sum(sizes), seed)
    rng = np.random.default_rng(seed)
    mask = rng.random(rows.num_rows) < 0.8
    mask[:40] = True
    ends = np.cumsum([0, *sizes])
    pieces = [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    masks = [mask[a:b] for a, b in itertools.pairwise(ends)]
    graph = many()
    state = fit(graph, pieces, masks, fan_in)
    again = fit(graph, pieces, masks, fan_in)
    assert again == state
    assert again.as_json() == state.as_json()
    whole = fit(graph, [rows.filter(pa.array(mask))], [np.ones(mask.sum(), bool)], 2)
    assert whole.rows == state.rows == mask.sum()
    first, second = Transform(state).apply(rows), Transform(whole).apply(rows)
    for name in ("x", "v"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=1e-4)
    for name in ("s", "b"):
        np.testing.assert_array_equal(first[name], second[name])


def test_merging_leaves_the_parts_as_they_are():
    graph = many()
    rows = rows_of(500)
    parts = []
    for piece in (rows.slice(0, 200), rows.slice(200)):
        accumulator = Accumulator(FittedState.unfitted(graph))
        accumulator.add(piece)
        parts.append(accumulator.partial())
    before = pickle.dumps(parts)
    first = finish(merge(parts), FittedState.unfitted(graph))
    assert finish(merge(parts), FittedState.unfitted(graph)) == first
    assert pickle.dumps(parts) == before


def test_nulls_of_rows_outside_the_fit_are_seen_by_the_first_pass():
    graph = graph_of(spec("y", ["y"], "standard_scale"), spec("n", ["n"]), spec("b", ["b"], role="label"))
    rows = pa.record_batch(
        {
            "x": pa.array([1.0] * 4),
            "y": pa.array([1.0, 2.0, np.nan, None]),
            "n": pa.array([1, 2, 3, None]),
            "s": pa.array(["a"] * 4),
            "b": pa.array([True, False, True, True]),
        }
    )
    accumulator = Accumulator(FittedState.unfitted(graph))
    accumulator.add(rows, np.array([True, True, False, False]))
    with pytest.raises(DataError, match=r"columns 'y' \(2\), 'n' \(1\).*among 4 rows.*impute.*is not null.*allow_null"):
        finish(accumulator.partial(), FittedState.unfitted(graph))


def test_what_is_wrong_is_counted_once_for_all_features_of_a_column():
    graph = graph_of(
        spec("a", ["y"], ("clip", {"min": 0})), spec("b", ["y"]), spec("c", ["y"], "standard_scale", allow_null=True)
    )
    rows = rows_of(12).set_column(rows_of(12).schema.names.index("y"), "y", pa.array([None, 1.0, 2.0] * 4))
    accumulator = Accumulator(FittedState.unfitted(graph))
    accumulator.add(rows)
    with pytest.raises(DataError, match=r"column 'y' \(4\) among 12 rows would reach the output"):
        finish(accumulator.partial(), FittedState.unfitted(graph))


def test_columns_of_several_kinds_have_remedies_of_their_own():
    graph = graph_of(spec("y", ["y"], "standard_scale"), spec("s", ["s"]), spec("k", ["x"], role="kept"))
    nothing = {
        name: pa.nulls(2, kind) for name, kind in zip(rows_of(1).schema.names, rows_of(1).schema.types, strict=True)
    }
    accumulator = Accumulator(FittedState.unfitted(graph))
    accumulator.add(pa.record_batch(nothing))
    with pytest.raises(DataError, match=r"For 'y': put `impute` .*For 's': encode it .*For 'x': leave .*keep that\."):
        finish(accumulator.partial(), FittedState.unfitted(graph))


@pytest.mark.parametrize("name", ["taxi/y", ""])
def test_names_that_no_output_can_have(name):
    with pytest.raises(JobError, match=r"features\[0\]: .* cannot name an output.*'/', which Keras refuses.*`as`"):
        graph_of(spec(name, ["y"], place="features[0]"), spec(name + "/", ["x"], place="features[0]"))
    with pytest.raises(JobError, match="another name with `name`"):
        graph_of(spec("a/b", ["y"], vector=True))
    with pytest.raises(JobError, match="`derive` the column under another name, and keep that"):
        graph_of(spec("a/b", ["y"], role="kept"))


def test_a_name_given_twice_is_put_right_where_it_can_be():
    feature, vector = spec("y", ["x"], place="features[0]"), spec("y", ["x"], vector=True, place="features[0]")
    label, kept = spec("y", ["y"], role="label", place="label"), spec("y", ["y"], role="kept", place="keep[0]")
    for specs, says in (
        ((feature, spec("y", ["y"])), r"made by features\[0\]. Give it another name with `as`"),
        ((feature, kept), r"^keep\[0\]: .*features\[0\]. Give the feature another name with `as`"),
        ((vector, kept), r"Give the feature another name with `name`"),
        ((label, kept), r"already made by label. `derive` the column under another name, and keep that"),
    ):
        with pytest.raises(JobError, match=says) as error:
            graph_of(*specs)
        assert len(error.value.problems) == 1


def test_infinities_and_negative_weights_of_all_rows_are_seen_by_the_first_pass():
    schema = pa.schema({"x": pa.float64(), "w": pa.float64()})
    graph = graph_of(spec("x", ["x"], "standard_scale"), spec("w", ["w"], role="weight"), schema=schema)
    for x, w, message in (
        [np.inf, 1.0, r"'x' are infinite at step standard_scale"],
        [1.0, -1.0, "weight 'w' are negative"],
    ):
        accumulator = Accumulator(FittedState.unfitted(graph))
        accumulator.add(pa.record_batch({"x": [1.0, x], "w": [1.0, w]}), np.array([True, False]))
        with pytest.raises(DataError, match=message):
            finish(accumulator.partial(), FittedState.unfitted(graph))


def test_no_rows_at_all():
    graph = graph_of(spec("y", ["y"], "standard_scale"))
    accumulator = Accumulator(FittedState.unfitted(graph))
    accumulator.add(rows_of(0))
    with pytest.raises(DataError, match=r"nothing to learn in column 'y'"):
        finish(
            merge([accumulator.partial(), Accumulator(FittedState.unfitted(graph)).partial()]),
            FittedState.unfitted(graph),
        )


def test_one_row_and_empty_batches():
    graph = many()
    row = rows_of(60).slice(0, 3)
    state = fit(
        graph, [row, row.slice(0, 0), row.slice(1, 1)], [np.ones(3, bool), np.ones(0, bool), np.zeros(1, bool)], 2
    )
    assert state.rows == 3
    assert Transform(state).apply(row.slice(0, 0))["v"].shape == (0, 2)


def test_all_problems_come_at_once_with_their_places():
    specs = [
        spec("x", ["xx"], place="features[0]"),
        spec("s", ["s"], "impute", place="features[1]"),
        spec("n", ["n"], "log1p", "one_hot_encode", place="features[2]"),
        spec("v", ["s", "x"], vector=True, place="features[3]"),
        spec("y", ["y"], place="features[4]"),
        spec("y", ["x"], place="features[5]"),
        spec("s", ["s"], role="label", place="label[0]"),
        spec("n", ["n"], "standard_scale", role="weight", place="weight"),
        spec("b2", ["b"], allow_null=True, place="features[6]"),
    ]
    with pytest.raises(JobError) as error:
        graph_of(*specs)
    found = {problem.place: problem.message for problem in error.value.problems}
    assert "'xx'" in found["features[0].columns"]
    assert "Did you mean" in found["features[0].columns"] or "Known here" in found["features[0].columns"]
    assert "needs numbers" in found["features[1].steps[0]"]
    assert "cast: int64" in found["features[2].steps[1]"]
    assert "text cannot be part of a vector" in found["features[3]"]
    assert "already made by features[4]" in found["features[5]"]
    assert "ordinal_encode" in found["label[0]"]
    assert "not fitted" in found["weight"]
    assert "only float features" in found["features[6]"]


@pytest.mark.parametrize("kind", [pa.struct({"a": pa.int8()}), pa.time32("s"), pa.null(), pa.duration("s")])
def test_types_that_cannot_be_features(kind):
    with pytest.raises(JobError, match="column 'z' cannot be used"):
        graph_of(spec("z", ["z"]), schema=pa.schema({"z": kind}))
