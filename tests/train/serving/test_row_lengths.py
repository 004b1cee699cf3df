"""How many values a row of a raw tensor has: known as the graph is made, or checked as it runs, in a SavedModel too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from dtap_dask.errors import DataError
from dtap_dask.train.serving.raw import RawColumn
from dtap_dask.train.serving.tensors import numbers

NUMBER, VECTOR, TENSOR = pa.float32(), pa.list_(pa.float32(), 3), pa.list_(pa.list_(pa.int32(), 2), 2)
SHAPES: list[
    tuple[pa.DataType, tuple[int, ...], tuple[int, ...] | None]
] = [  # of the tensor, and of what is made of it
    (NUMBER, (2,), (2,)),
    (NUMBER, (2, 1), (2,)),
    (NUMBER, (), (1,)),
    (NUMBER, (2, 2), None),
    (NUMBER, (3, 0), None),
    (VECTOR, (1, 3), (1, 3)),
    (VECTOR, (0, 3), (0, 3)),
    (VECTOR, (2, 6), None),
    (VECTOR, (3, 2), None),
    (VECTOR, (3,), None),
    (VECTOR, (), None),
    (TENSOR, (2, 2, 2), (2, 4)),
    (TENSOR, (2, 4), (2, 4)),
    (TENSOR, (2, 2), None),
    (TENSOR, (4, 2, 1), None),
]


class Reading(tf.Module):  # type: ignore[misc]
    """A column as it is read, with nothing known of the tensor but its rank, or not even that."""

    def __init__(self, kind: pa.DataType, rank: int | None):
        super().__init__()
        self._column = RawColumn.of(pa.field("x", kind))
        shape = None if rank is None else [None] * rank
        self.read = tf.function(self._read, [tf.TensorSpec(shape, self._column.dtype)])

    def _read(self, values: Any) -> Any:
        return numbers(self._column.column({"x": values})).values


@pytest.mark.parametrize(("kind", "shape", "made"), SHAPES)
def test_a_row_has_as_many_values_as_the_column(
    kind: pa.DataType, shape: tuple[int, ...], made: tuple[int, ...] | None
) -> None:
    column = RawColumn.of(pa.field("x", kind))
    values = tf.zeros(shape, column.dtype)
    if made is None:
        with pytest.raises(DataError, match=r"tensor of column 'x' is to be of shape \[n.*\], not \(") as error:
            column.column({"x": values})
        assert str(error.value).endswith(f"not {shape}.")
    else:
        assert column.column({"x": values}).values.shape == made
    for rank in (len(shape), None):
        if rank is not None and rank < 2 and made is None:
            continue  # which is known without the number of rows
        read = Reading(kind, rank).read
        if made is None:
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"column .*x.*: a row does not hold"):
                read(values)
        else:
            assert read(values).shape == made


def test_a_saved_model_refuses_other_lengths(tmp_path: Path) -> None:
    tf.saved_model.save(Reading(VECTOR, 2), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    rows = np.arange(6, dtype=np.float32)
    assert loaded.read(rows.reshape(2, 3)).numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"column .*x.*: a row does not hold 3 values"):
        loaded.read(rows.reshape(1, 6))


def test_a_known_length_needs_no_check_in_the_graph() -> None:
    column = RawColumn.of(pa.field("x", VECTOR))
    known = tf.function(lambda x: column.column({"x": x}).values, [tf.TensorSpec([None, 3], tf.float32)])
    assert not [one for one in known.get_concrete_function().graph.get_operations() if one.type == "Assert"]
