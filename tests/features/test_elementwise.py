"""clip, log1p and cast against NumPy and Arrow, over every type."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from fitting import fit_batches
from property_tests import examples


def run(array, *steps, **spec):
    rows = pa.record_batch({"x": array})
    parsed = tuple(parse_step(*step) for step in steps)
    graph = build([FeatureSpec("x", "feature", ("x",), parsed, place="features[0]", **spec)], rows.schema)
    transform = Transform(fit_batches(graph, [rows]))
    return transform.infos[0], transform.apply(rows)["x"]


@examples(0.4)
@given(hnp.arrays(np.float64, 20, elements=st.floats(-1e30, 1e30)), st.floats(-10, 0), st.floats(0, 10))
def test_clip_then_log1p_is_numpys(values, low, high):
    low = max(low, -0.99)
    _, out = run(values, ("clip", {"min": low, "max": high}), ("log1p",))
    np.testing.assert_array_equal(out, np.log1p(np.clip(values, low, high)).astype(np.float32))


@examples(0.4)
@given(
    st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.uint64]),
    st.data(),
    st.none() | st.integers(-(2**63), 0),
    st.integers(0, 2**63 - 1),
)
def test_clip_of_integers_is_exact(dtype, data, low, high):
    limits = np.iinfo(dtype)
    values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1, max_size=9))
    _, out = run(pa.array(np.array(values, dtype)), ("clip", {"min": low, "max": high}))
    expected = [min(max(value, low if low is not None else value), high) for value in values]
    assert out.tolist() == expected
    assert out.dtype.kind in "iu"


def test_clip_takes_infinities_and_keeps_nulls():
    _, out = run(pa.array([np.inf, -np.inf, None, 3]), ("clip", {"min": 0, "max": 5}), allow_null=True)
    np.testing.assert_array_equal(out, [5, 0, np.nan, 3])


def test_where_log1p_has_no_result_the_step_is_named():
    with pytest.raises(DataError, match=r"1 of 2 rows.*'x'.*by step log1p"):
        run(pa.array([-2.0, 1.0]), ("log1p",))
    with pytest.raises(DataError, match=r"'x' are infinite at step log1p"):
        run(pa.array([-1.0, 1.0]), ("log1p",))
    with pytest.raises(DataError, match=r"'x' are infinite at step standard_scale"):
        run(pa.array([-1.0, 1.0]), ("log1p",), ("standard_scale",))


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16"]
)
def test_cast_of_numbers_is_numpys(dtype):
    values = np.array([0.0, 1.9, 100.5, 7.0])
    info, out = run(values, ("cast", dtype))
    np.testing.assert_array_equal(out, values.astype(dtype))
    assert (info.dtype, info.stored) == (dtype, dtype)
    assert out.dtype == dtype


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([300], "uint8"), ([-1.5], "uint16"), ([2.0**63], "int64"), ([1e300], "float32"), ([70_000.0], "float16")],
)
def test_what_a_type_cannot_hold_is_an_error(values, dtype):
    with pytest.raises(DataError, match=rf"1 values of column 'x', step cast do not fit {dtype}"):
        run(pa.array(values), ("cast", dtype))


def test_the_ends_of_a_type_fit():
    _, out = run(pa.array([-0.9, 255.9]), ("cast", "uint8"))
    assert out.tolist() == [0, 255]
    ends = [-(2**63), 2**63 - 1]
    assert run(pa.array(ends), ("cast", "int64"))[1].tolist() == ends


def test_cast_to_bool_and_back():
    info, out = run(pa.array([0, 2, -1]), ("cast", "bool"))
    assert (info.dtype, info.stored) == ("bool", "uint8")
    assert out.tolist() == [0, 1, 1]
    assert run(pa.array([True, False]), ("cast", "float64"))[1].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dictionary", [False, True])
def test_text_is_parsed(dictionary):
    array = pa.array(["1.5", None, "-2", "1.5"])
    array = array.dictionary_encode() if dictionary else array
    info, out = run(array, ("cast", {"dtype": "float64"}), allow_null=True)
    np.testing.assert_array_equal(out, [1.5, np.nan, -2, 1.5])
    assert info.dtype == "float64"
    assert run(pa.array(["9007199254740993"]), ("cast", "int64"))[1].tolist() == [2**53 + 1]
    with pytest.raises(DataError, match=r"'x', step cast does not spell a int64: .*abc"):
        run(pa.array(["abc"]), ("cast", "int64"))


def test_numbers_become_text_and_then_ids():
    _, out = run(
        pa.array([1, 22, None], pa.int64()), ("cast", "string"), ("impute", {"strategy": "constant", "value": "?"})
    )
    assert out.to_pylist() == [b"1", b"22", b"?"]
    info, out = run(pa.array([1.5, 2.5, 1.5, None]), ("cast", "string"), ("ordinal_encode",))
    assert out.tolist() == [2, 3, 2, 0]
    assert info.ids == 4


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates_and_timestamps_are_microseconds_rounded_down(unit):
    moments = [datetime.datetime(1969, 12, 31, 23, 59, 59), datetime.datetime(2020, 2, 29, 1, 2, 3)]
    array = pa.array(moments, pa.timestamp(unit))
    assert run(array, ("cast", "int64"))[1].tolist() == [-1_000_000, 1_582_938_123_000_000]
    assert run(pa.array([-1], pa.timestamp("ns")), ("cast", "int64"))[1].tolist() == [-1]
    days = pa.array([datetime.date(1970, 1, 2)])
    for kind in (pa.date32(), pa.date64()):
        assert run(days.cast(kind), ("cast", "int64"))[1].tolist() == [86_400_000_000]


@pytest.mark.parametrize("bound", [np.inf, -np.inf, np.nan, 10**400])
def test_bounds_and_values_that_are_not_finite_are_refused(bound):
    with pytest.raises(JobError, match=r"clip: `min` and `max` must be finite"):
        parse_step("clip", {"max": bound})
    with pytest.raises(JobError, match=r"impute: `value` must be finite"):
        parse_step("impute", {"strategy": "constant", "value": bound})


def test_a_timestamp_without_cast_is_refused():
    with pytest.raises(JobError, match=r"features\[0\]: column 'x'.*cast: int64"):
        run(pa.array([0], pa.timestamp("us")))


def test_cast_of_ids_keeps_them_narrow():
    info, out = run(pa.array(["a", "b"]), ("ordinal_encode",), ("cast", "int32"))
    assert (info.dtype, info.stored, info.ids) == ("int32", "uint8", 4)
    assert out.dtype == np.uint8
    info, out = run(pa.array(["a", "b"]), ("ordinal_encode",), ("cast", "float32"))
    assert (info.dtype, info.stored) == ("float32", "float32")
    assert out.tolist() == [2.0, 3.0]


def test_cast_of_lists():
    info, out = run(pa.array([[1, 2], [], [3]]), ("cast", "float32"))
    assert out.to_pylist() == [[1.0, 2.0], [], [3.0]]
    assert (info.dtype, info.shape) == ("float32", (None,))
