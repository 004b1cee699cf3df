"""What features that TensorFlow computes are compared with: values to draw for raw columns, and the comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from hypothesis import strategies as st

from dtap_dask.apply.parity import precision_floor
from dtap_dask.errors import DataError
from dtap_dask.features import FittedState

FLOATS = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 3e38, -1e300, -1.0]),
    st.floats(allow_subnormal=False),
    st.floats(-1e6, 1e6, allow_subnormal=False),
)
PLAIN = st.none() | st.floats(-1e6, -1e-30) | st.floats(1e-30, 1e6) | st.just(0.0)
WHOLE = st.one_of(st.integers(-3, 6), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1]))
INTEGERS = st.none() | WHOLE
WORDS_ONLY = st.one_of(
    st.sampled_from([b"", b"a", b"b", b"\\", b"\\n", b"\n", b"\r", b"\\e", b"\xff\xfe", "ä".encode(), b"a b", b"\x00"]),
    st.binary(max_size=4),
)
WORDS = st.none() | WORDS_ONLY
DIGITS = st.one_of(st.none(), st.sampled_from(["1", "-5", " 7", "x", "", "9223372036854775807", "1e3"]))
TIMES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-(10**15), 10**16))
MICROSECONDS = st.none() | TIMES
BOOLEANS = st.one_of(st.none(), st.booleans())

F64, F32, I64, I8, TEXT, BOOL = pa.float64(), pa.float32(), pa.int64(), pa.int8(), pa.binary(), pa.bool_()

SUMS = 4
"""Units in the last place of float32, of the largest entry, by which sums over a block may differ: of pca."""


def outcome(make: Any, rows: Any) -> Any:
    """The features, or None where the rows are refused."""
    try:
        return make(rows)
    except (DataError, tf.errors.InvalidArgumentError):
        return None


def assert_equal(state: FittedState, ours: Any, theirs: Any) -> None:
    """The features of records and of TensorFlow are equal, in name, dtype, shape and values."""
    assert list(ours) == list(theirs)
    for info, output in zip(state.infos, state.graph.outputs, strict=True):
        made, wanted = theirs[info.name], ours[info.name]
        assert made.dtype.name == ("string" if info.dtype == "bytes" else info.dtype)
        if isinstance(made, tf.RaggedTensor):
            assert made.to_list() == wanted.to_pylist()
        elif isinstance(wanted, pa.Array):
            assert made.numpy().tolist() == wanted.to_pylist()
        elif np.dtype(info.dtype).kind == "f":
            floor = precision_floor(output)
            assert_close(made.numpy(), wanted.astype(info.dtype), is_sum=len(info.columns) > 1, floor=floor)
        else:
            np.testing.assert_array_equal(made, wanted)


def assert_close(made: Any, wanted: Any, *, is_sum: bool, floor: float = 0.0) -> None:
    """Floats within one unit in the last place, that of `floor` at least; TensorFlow has 0 in place of denormals."""
    made, wanted = (np.where(np.abs(one) < np.finfo(one.dtype).tiny, one.dtype.type(0), one) for one in (made, wanted))
    if is_sum:
        largest = np.nanmax(np.abs(wanted), initial=1e-30)
        np.testing.assert_allclose(made, wanted, rtol=0, atol=SUMS * np.spacing(np.float32(largest)))
    elif floor:
        np.testing.assert_allclose(
            made, wanted, rtol=np.finfo(wanted.dtype).eps, atol=np.spacing(wanted.dtype.type(floor))
        )
    else:
        assert made.shape == wanted.shape
        np.testing.assert_array_max_ulp(made, wanted, 1)
