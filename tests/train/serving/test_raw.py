"""Raw tensors as they are handed over: lists, arrays, other dtypes, nulls; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from dtap_dask.errors import DataError
from dtap_dask.train.serving.raw import RawColumn, raw_columns_of
from dtap_dask.train.serving.tensors import ListTensor


def column(kind: pa.DataType) -> RawColumn:
    return RawColumn.of(pa.field("x", kind))


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (pa.int32(), [3], [1.5]),
        (pa.timestamp("us"), [3], ["2020-01-01"]),
        (pa.bool_(), [1], [0.5]),
        (pa.string(), ["a"], [1]),
        (pa.float64(), [1.5], ["1.5"]),
        (pa.float32(), [1.5], [True]),
    ],
)
def test_a_raw_column_takes_its_own_values_only(kind: pa.DataType, taken: list[Any], refused: list[Any]) -> None:
    column = RawColumn.of(pa.field("x", kind))
    assert column.column({"x": tf.constant(taken)}).values.numpy().tolist() == [
        one.encode() if isinstance(one, str) else one for one in taken
    ]
    with pytest.raises(DataError, match="The raw tensor of column 'x' is to be"):
        column.column({"x": tf.constant(refused)})


@pytest.mark.parametrize("make", [list, np.array, tf.constant], ids=["list", "array", "tensor"])
def test_numbers_keep_all_their_digits(make: Any) -> None:
    values = make(np.array([0.1, 1e300, np.nan]) if make is tf.constant else [0.1, 1e300, np.nan])
    made = column(pa.float64()).column({"x": values}).values
    np.testing.assert_array_equal(made, np.array([0.1, 1e300, np.nan]))
    whole = make([2**53 + 1, -(2**63)])
    assert column(pa.int64()).column({"x": whole}).values.numpy().tolist() == [2**53 + 1, -(2**63)]


LOST = [
    (pa.int64(), np.array([1, 2**63], np.uint64), "uint64 that is none of int64"),
    (pa.bool_(), np.array([0, 2]), "int64 that is none of bool"),
    (pa.float32(), np.array([1, 2**24 + 1]), "int64 that is none of float32"),
    (pa.float64(), np.array([1, 2**53 + 1]), "int64 that is none of float64"),
    (pa.float64(), np.array([1, 2**63 - 1]), "int64 that is none of float64"),
    (pa.float32(), np.array([1, 1e39]), "float64 that is none of float32"),
]


@pytest.mark.parametrize(("kind", "values", "says"), LOST)
def test_numbers_that_would_become_others_are_refused(kind: pa.DataType, values: Any, says: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"column 'x': the rows hold a number of {says}"):
        column(kind).column({"x": values})
    made = column(kind).column({"x": values[:1]}).values
    np.testing.assert_array_equal(made, values[:1].astype(made.dtype.as_numpy_dtype))


def test_other_dtypes_of_the_same_numbers_are_taken() -> None:
    for dtype in (np.float16, np.float32, np.int8, np.uint8, np.int64):
        assert column(pa.float64()).column({"x": np.array([0, 7], dtype)}).values.numpy().tolist() == [0.0, 7.0]
    infinite = np.array([np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(column(pa.float32()).column({"x": infinite}).values, infinite)


NO_TENSOR = [
    (pa.int64(), [1, None], "A value is null where the bool tensor 'x_null' is true"),
    (pa.string(), ["a", None], "A value is null where the bool tensor 'x_null' is true"),
    (pa.string(), np.array(["a", 1.5], object), "no tensor of string"),
    (pa.float64(), [1.0, None], "NaN is null"),
    (pa.float64(), None, "NaN is null"),
    (pa.float64(), [[1.0], [1.0, 2.0]], "no tensor of float64"),
    (pa.timestamp("us"), np.array(["2020-01-01"], "datetime64[us]"), "no tensor of int64"),
    (pa.float64(), tf.ragged.constant([[1.0], [1.0, 2.0]]), "no tensor of float64"),
    (pa.float64(), tf.sparse.from_dense([1.0]), "no tensor of float64"),
]


@pytest.mark.parametrize(("kind", "values", "says"), NO_TENSOR)
def test_what_is_no_tensor_is_refused_by_the_name_of_its_column(kind: pa.DataType, values: Any, says: str) -> None:
    with pytest.raises(DataError, match="values of column 'x' are no tensor of") as caught:
        raw_columns_of({"x": values}, [column(kind)])
    assert says in str(caught.value)


def test_one_value_is_one_row() -> None:
    columns = [column(pa.string()), RawColumn.of(pa.field("y", pa.float64()))]
    assert raw_columns_of({"x": "a", "y": 0.1}, columns)["y"].values.numpy().tolist() == [0.1]
    with pytest.raises(DataError, match="different numbers of rows: 'x' 1, 'y' 2"):
        raw_columns_of({"x": "a", "y": [1.0, 2.0]}, columns)


def test_numbers_of_rows_are_compared_as_a_graph_runs() -> None:
    """A null tensor of one row would otherwise make all rows null."""
    columns = [column(pa.int64()), RawColumn.of(pa.field("y", pa.list_(pa.float64())))]
    null = columns[0].null_name

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def read(x: Any, x_null: Any, y: Any) -> Any:
        made = raw_columns_of({"x": x, null: x_null, "y": y}, columns)
        return made["x"].values, made["x"].null

    ragged = tf.RaggedTensorSpec([None, None], tf.float64)
    running = tf.function(read, [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.bool), ragged])
    for count in (0, 1, 3):
        values, nulls = running([7] * count, [True] * count, tf.ragged.constant([[0.5]] * count, tf.float64, 1))
        assert (values.numpy().tolist(), nulls.numpy().tolist()) == ([7] * count, [True] * count)
    for counts in ((3, 1, 3), (3, 3, 1), (1, 3, 3)):
        given = [[7] * counts[0], [True] * counts[1], tf.ragged.constant([[0.5]] * counts[2], tf.float64)]
        says = r"the raw tensors .*x.*, .*x_null.*, .*y.* have different numbers of rows:\] \[{} {} {}\]"
        with pytest.raises(tf.errors.InvalidArgumentError, match=says.format(*counts)):
            running(*given)


def test_floats_are_null_where_their_tensor_says_so_too() -> None:
    null = [False, True]
    made = column(pa.float32()).column({"x": [1.5, 2.5], "x_null": null})
    np.testing.assert_array_equal(made.values, [1.5, np.nan])
    vectors = column(pa.list_(pa.float64(), 2)).column({"x": [[1.0, 2.0], [3.0, 4.0]], "x_null": null})
    np.testing.assert_array_equal(vectors.values, [[1.0, 2.0], [np.nan, np.nan]])


def test_null_lists_have_no_elements_whatever_is_given() -> None:
    given = {"x": tf.ragged.constant([[1, 2], [3], [], [4]]), "x_null": [False, True, True, False]}
    made = column(pa.list_(pa.int64())).column(given)
    assert isinstance(made, ListTensor)
    assert made.splits.numpy().tolist() == [0, 2, 2, 2, 3]
    assert made.elements.values.numpy().tolist() == [1, 2, 4]
    assert made.null.numpy().tolist() == given["x_null"]


@pytest.mark.parametrize(
    "values",
    [
        [1, 2],
        tf.ragged.constant([[[1], [2, 3]], [[4]]], dtype=tf.int64),
        tf.ragged.constant([[[1, 2]], [[4, 5]]], ragged_rank=1, dtype=tf.int64),
    ],
    ids=["scalars", "lists of lists", "lists of vectors"],
)
def test_lists_have_one_level(values: Any) -> None:
    with pytest.raises(DataError, match=r"column 'x' is to be of shape \[n, None\], not .*tf\.ragged\.constant"):
        column(pa.list_(pa.int64())).column({"x": values})
    with pytest.raises(DataError, match=r"no tensor of int64: .*tf\.ragged\.constant"):
        column(pa.list_(pa.int64())).column({"x": [[1], [2, 3]]})
    dense = column(pa.list_(pa.int64())).column({"x": [[1, 2], [3, 4]]})
    assert isinstance(dense, ListTensor)
    assert dense.splits.numpy().tolist() == [0, 2, 4]
