"""What comes out for every type, role and shape; and what is refused."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pytest

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.columns.arrow import from_arrow
from fitting import fit_batches


def run(columns, *steps, role="feature", name="x", **more):
    rows = pa.record_batch(columns)
    parsed = tuple(parse_step(*step) for step in steps)
    spec = FeatureSpec(name, role, tuple(rows.schema.names), parsed, **more)
    graph = build([spec], rows.schema)
    transform = Transform(fit_batches(graph, [rows]))
    made = transform.apply(rows)
    for info in transform.infos:
        if info.stored != "bytes" and None not in info.shape:
            assert made[info.name].flags.c_contiguous
            assert made[info.name].dtype == info.stored
            assert made[info.name].shape == (rows.num_rows, *info.shape)
    return transform.infos[0], made[name]


@pytest.mark.parametrize(
    ("array", "dtype", "stored"),
    [
        (pa.array([1.5, 2.0]), "float32", "float32"),
        (pa.array([1.5, 2.0], pa.float32()), "float32", "float32"),
        (pa.array(np.array([1.5, 2.0], np.float16)), "float32", "float32"),
        (pa.array([decimal.Decimal("1.25"), decimal.Decimal("-3.10")]), "float32", "float32"),
        (pa.array([1, -2], pa.int8()), "int64", "int8"),
        (pa.array([1, 2], pa.uint16()), "int64", "uint16"),
        (pa.array([1, 2], pa.uint32()), "int64", "int64"),
        (pa.array([-(2**63), 2**63 - 1]), "int64", "int64"),
        (pa.array([1, 2], pa.uint64()), "int64", "int64"),
        (pa.array([True, False]), "int64", "uint8"),
        (pa.array([5, 5]).dictionary_encode(), "int64", "int64"),
    ],
)
def test_numbers_pass_through(array, dtype, stored):
    info, out = run({"x": array})
    assert (info.dtype, info.stored, info.shape) == (dtype, stored, ())
    np.testing.assert_array_equal(
        out, np.array(array.to_pylist(), dtype=float).astype(np.float32) if dtype == "float32" else array.to_pylist()
    )


def test_floats_are_rounded_once():
    value = 1.0000000596046448  # halfway between two float32, a little above
    _, out = run({"x": pa.array([value])})
    assert out[0] == np.float32(value)


def test_integers_beyond_int64_are_refused():
    with pytest.raises(DataError, match=r"'x' holds integers beyond int64.*cast: float32"):
        run({"x": pa.array([2**63], pa.uint64())})


def test_floats_beyond_float32_are_refused():
    with pytest.raises(DataError, match=r"'x' are infinite at step output as float32"):
        run({"x": pa.array([1e39])})


@pytest.mark.parametrize(
    "encode",
    [
        lambda a: a,
        lambda a: a.dictionary_encode(),
        lambda a: a.cast(pa.large_string()),
        lambda a: a.cast(pa.string_view()),
        lambda a: a.cast(pa.binary()),
    ],
)
def test_text_passes_through(encode):
    info, out = run({"x": encode(pa.array(["a", "", "ü", "a"]))})
    assert (info.dtype, info.stored) == ("bytes", "bytes")
    assert out.type == pa.large_binary()
    assert out.to_pylist() == [b"a", b"", "ü".encode(), b"a"]


def test_nulls_that_reach_the_output_are_errors_with_a_remedy():
    floats, encode = {"impute", "allow_null"}, {"ordinal_encode", "coalesce"}
    cases = [
        (pa.array([1.0, None]), floats),
        (pa.array([1.0, np.nan]), floats),
        (pa.array([1, None]), {"impute"}),
        (pa.array(["a", None]), encode),
        (pa.array(["a", None]).dictionary_encode(), encode),
        (pa.array([True, None]), encode),
        (pa.array([[1], None]), {"impute"}),
        (pa.array([[1.0], [None]]), {"impute"}),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), {"leave the column out"}),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), {"impute", "leave the column out", "allow_null"}),
    ]
    for array, says in cases:
        with pytest.raises(DataError, match=r"1 of 2 rows of a batch of column 'x' are null.*x is not null") as error:
            run({"x": array})
        remedies = ("impute", "allow_null", "ordinal_encode", "coalesce", "leave the column out")
        assert {remedy for remedy in remedies if remedy in str(error.value)} == says, str(error.value)


@pytest.mark.parametrize(
    ("role", "use"), [("weight", "make that the weight"), ("kept", "keep that"), ("label", "make that the label")]
)
def test_nulls_of_what_is_no_feature_are_derived_away(role, use):
    with pytest.raises(DataError, match=rf"Leave .*x is not null.*`coalesce\(x, 0\)` and {use}\.") as error:
        run({"x": pa.array([1.0, None])}, role=role)
    assert "impute" not in str(error.value)


def test_what_is_kept_has_no_steps_to_put_right():
    with pytest.raises(
        JobError, match=r"timestamp\[us\]: `derive` a whole number, `epoch_us\(x\)`.*`cast\(x as varchar\)`.*keep that"
    ) as error:
        run({"x": pa.array([0], pa.timestamp("us"))}, role="kept")
    assert "cast: int64" not in str(error.value)
    with pytest.raises(DataError, match=r"'x' holds integers beyond int64.*cast\(x as varchar\).*keep that"):
        run({"x": pa.array([2**64 - 1], pa.uint64())}, role="kept")
    with pytest.raises(DataError, match=r"infinite.*`derive` a column without them") as error:
        run({"x": pa.array([np.inf])}, role="kept")
    assert "clip" not in str(error.value)


def test_the_logarithm_of_what_has_none_is_clipped_not_imputed():
    rows = pa.record_batch({"x": pa.array([1.0, -3.0])})
    graph = build([FeatureSpec("x", "feature", ("x",), (parse_step("log1p"),))], rows.schema)
    with pytest.raises(DataError, match=r"by step log1p, which has no result.*`clip: \{min: 0\}`") as error:
        Transform(FittedState.unfitted(graph)).apply(rows)
    assert "impute" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "remedy"),
    [
        (pa.array([[1]]), "rows with nulls with `source.where`"),
        (pa.array(["a"]), "encode the column"),
        (pa.array([True]), "Impute it"),
    ],
)
def test_allow_null_is_refused_where_no_nan_can_be(array, remedy):
    with pytest.raises(JobError, match=remedy) as error:
        run({"x": array}, allow_null=True)
    assert ("Impute" in str(error.value)) == (remedy == "Impute it")


def test_allow_null_writes_nan():
    _, out = run({"x": pa.array([1.0, None, np.nan])}, allow_null=True)
    np.testing.assert_array_equal(out, [1, np.nan, np.nan])
    _, out = run({"a": pa.array([1, None]), "b": pa.array([None, 2.5])}, name="v", vector=True, allow_null=True)
    np.testing.assert_array_equal(out, [[1, np.nan], [np.nan, 2.5]])


def test_vectors():
    info, out = run({"a": pa.array([1, 2], pa.int8()), "b": pa.array([0.5, 1.5])}, name="v", vector=True)
    np.testing.assert_array_equal(out, [[1, 0.5], [2, 1.5]])
    assert (info.dtype, info.shape, info.columns) == ("float32", (2,), ("a", "b"))
    info, out = run({"a": pa.array([1, 2], pa.int8()), "b": pa.array([300, 4], pa.uint16())}, name="v", vector=True)
    assert (info.dtype, info.stored, out.tolist()) == ("int64", "int32", [[1, 300], [2, 4]])
    info, out = run({"a": pa.array(["x", "y"]), "b": pa.array(["z", "z"])}, ("ordinal_encode",), name="v", vector=True)
    assert (info.dtype, info.stored, info.ids) == ("int64", "uint8", 4)
    assert out.tolist() == [[2, 2], [3, 2]]
    info, out = run({"a": pa.array(["x", "y"]), "b": pa.array([1, 2])}, ("one_hot_encode",), name="v", vector=True)
    assert (info.dtype, info.stored, info.shape) == ("float32", "uint8", (4,))
    assert out.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_an_infinity_in_a_vector_names_its_column():
    with pytest.raises(DataError, match=r"column 'b' \(feature 'v'\) are infinite at step passthrough"):
        run({"a": pa.array([1.0]), "b": pa.array([np.inf])}, name="v", vector=True)


def test_fixed_size_lists_are_vectors():
    array = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2))
    info, out = run({"x": array})
    assert (info.shape, info.dtype, out.tolist()) == ((2,), "float32", [[1, 2], [3, 4]])
    assert run({"x": array.slice(1)})[1].tolist() == [[3, 4]]
    with pytest.raises(DataError, match="1 of 2 rows"):
        run({"x": pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2))})
    _, out = run({"x": array, "y": pa.array([7, 8])}, name="v", vector=True)
    assert out.tolist() == [[1, 2, 7], [3, 4, 8]]


def test_lists_pass_through():
    info, out = run({"x": pa.array([[1.5], [], [2.5, 3.5]])})
    assert (info.shape, info.dtype, out.type) == ((None,), "float32", pa.large_list(pa.float32()))
    assert out.to_pylist() == [[1.5], [], [2.5, 3.5]]
    info, out = run({"x": pa.array([["a"], ["b", ""]]).slice(1)})
    assert (info.stored, out.to_pylist()) == ("bytes", [[b"b", b""]])
    info, out = run({"x": pa.array([[1], [2, 3]], pa.large_list(pa.int16()))})
    assert (info.dtype, info.stored, out.to_pylist()) == ("int64", "int16", [[1], [2, 3]])


def test_labels_weights_and_kept_columns():
    info, out = run({"x": pa.array([True, False])}, role="label")
    assert (info.dtype, info.stored, out.tolist()) == ("float32", "uint8", [1, 0])
    info, _ = run({"x": pa.array([3, 4], pa.int32())}, role="label")
    assert info.dtype == "int64"
    info, out = run({"x": pa.array([3, 4], pa.int32())}, role="weight")
    assert (info.dtype, out.tolist()) == ("float32", [3.0, 4.0])
    with pytest.raises(DataError, match="negative"):
        run({"x": pa.array([1.0, -0.5])}, role="weight")
    info, out = run({"x": pa.array([0.1])}, role="kept")
    assert (info.dtype, out[0]) == ("float64", 0.1)


def test_slices_of_batches_give_slices_of_the_result():
    rng = np.random.default_rng(0)
    rows = pa.record_batch(
        {
            "x": pa.array([None if i % 3 == 0 else i / 2 for i in range(100)]),
            "s": pa.array([None if i % 7 == 0 else str(i % 5) for i in range(100)]).dictionary_encode(),
            "b": pa.array(rng.random(100) < 0.5),
        }
    )
    specs = [
        FeatureSpec("x", "feature", ("x",), (parse_step("impute"), parse_step("standard_scale"))),
        FeatureSpec("s", "feature", ("s",), (parse_step("ordinal_encode"),)),
        FeatureSpec("b", "label", ("b",)),
    ]
    graph = build(specs, rows.schema)
    transform = Transform(fit_batches(graph, [rows]))
    whole = transform.apply(rows)
    for start, length in ((0, 100), (13, 20), (99, 1), (50, 0), (8, 64)):
        part = transform.apply(rows.slice(start, length))
        for name, values in part.items():
            np.testing.assert_array_equal(values, whole[name][start : start + length])


def test_the_rows_that_came_in_are_not_changed():
    values = np.array([1.0, np.nan, 3.0])
    rows = pa.record_batch({"x": pa.array(values)})
    spec = FeatureSpec(
        "x", "feature", ("x",), (parse_step("impute"), parse_step("clip", {"min": 2}), parse_step("minmax_scale"))
    )
    graph = build([spec], rows.schema)
    Transform(fit_batches(graph, [rows])).apply(rows)
    np.testing.assert_array_equal(values, [1, np.nan, 3])


def test_an_unfinished_state_is_refused():
    rows = pa.record_batch({"x": [1.0, 2.0]})
    graph = build([FeatureSpec("x", "feature", ("x",), (parse_step("standard_scale"),))], rows.schema)
    with pytest.raises(ValueError, match="0 of 1 passes"):
        Transform(FittedState.unfitted(graph))


def test_lists_that_overflow_float32_are_refused():
    with pytest.raises(DataError, match="1 values of column 'x' are infinite at step output as float32"):
        run({"x": pa.array([[1.0], [1e300]])})


@pytest.mark.parametrize(
    "dtype", [pa.decimal32(9, 2), pa.decimal128(9, 2), pa.decimal128(38, 20), pa.decimal256(76, 3)]
)
def test_decimals_are_computed_with_as_the_nearest_doubles(dtype: pa.DataType) -> None:
    values = [decimal.Decimal(number).scaleb(-2) for number in range(-100, 20_000, 7)]
    numbers = from_arrow(pa.array([*values, None], dtype)).numbers
    assert numbers.values[:-1].tolist() == [float(value) for value in values]
