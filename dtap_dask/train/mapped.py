"""Dataset.map with functions that TensorFlow does not optimize anew for every iterator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.data.ops import dataset_ops, map_op, structured_function

# A function with this attribute is taken to be on one device, the processor's in tf.data. TensorFlow then starts it
# without its optimizer of graphs, which for some forty columns takes twenty milliseconds of every epoch.
ON_ONE_DEVICE = "experimental_ints_on_device"
_Map: Any = map_op._ParallelMapDataset
# For functions without conditions on tensors: AutoGraph's conversion would take most of the time that `load` takes.
as_it_is = tf.autograph.experimental.do_not_convert


def mapped(
    data: tf.data.Dataset, function: Callable[..., Any], threads: int | None = None, *, ends: bool = False
) -> tf.data.Dataset:
    """`data.map(function)`, in order; with `threads` that many elements are made at the same time.

    If it `ends`, StopIteration in Python ends the data, which is an error otherwise. The function is traced as it is,
    without AutoGraph.
    """
    return _MappedDataset(data, as_it_is(function), threads, ends)


class _MappedDataset(_Map):  # type: ignore[misc]
    """TensorFlow's own dataset of this kind, whose function has the attribute."""

    def __init__(self, data: tf.data.Dataset, function: Callable[..., Any], threads: int | None, ends: bool):
        self._input_dataset = data
        self._map_func = structured_function.StructuredFunctionWrapper(
            function, self._transformation_name(), dataset=data, defun_kwargs={ON_ONE_DEVICE: True}
        )
        made = self._map_func.function
        arguments: dict[str, Any] = {
            "input_dataset": tf.data.experimental.to_variant(data),
            "other_arguments": made.captured_inputs,
            "f": made,
            "preserve_cardinality": not ends,
            **self._flat_structure,
        }
        if threads is None:
            variant = tf.raw_ops.MapDataset(**arguments)
        else:
            variant = tf.raw_ops.ParallelMapDatasetV2(
                **arguments, num_parallel_calls=tf.constant(threads, tf.int64), deterministic="true"
            )
        dataset_ops.UnaryDataset.__init__(self, data, variant)
