"""What a plain Python loop over a loaded dataset gets: batches at little cost, and this tool's own errors.

TensorFlow spends several microseconds a component on turning a batch into Python's structure: shapes are checked that
the dataset states itself. For forty features that is more than everything else that a small batch costs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DtapError

_Iterator: Any = type(iter(tf.data.Dataset.range(0)))


class _PlainIterator(_Iterator):  # type: ignore[misc]
    """TensorFlow's own iterator, which Keras hands to its compiled functions, but for the plain loop."""

    _failure: Callable[[], DtapError | None]
    _places: Any  # the structure of a batch with the number of a tensor at each leaf; None: as TensorFlow does it
    _kinds: list[int]

    def __next__(self) -> Any:
        try:
            return super().__next__() if self._places is None or not tf.executing_eagerly() else self._quick()
        except tf.errors.OpError:
            failure = self._failure()
            if failure is None:
                raise
            raise copy.copy(failure) from None  # the traceback of one that is kept would keep this iterator alive

    def _quick(self) -> Any:
        try:
            tensors = tf.raw_ops.IteratorGetNext(
                iterator=self._iterator_resource, output_types=self._kinds, output_shapes=[None] * len(self._kinds)
            )
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        return _filled(self._places, tensors)


class LoopDataset(tf.data.Dataset):  # type: ignore[misc]
    """`data`, whose loops are quick, and raise `failure()` where there is one.

    Within `fit` and in datasets made from this one (`map`, `repeat`) the error is TensorFlow's, with the same message.
    """

    def __init__(self, data: tf.data.Dataset, failure: Callable[[], DtapError | None]):
        self._data, self._failure = data, failure
        super().__init__(data._variant_tensor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._data]

    @property
    def element_spec(self) -> Any:
        """As TensorFlow has it."""
        return self._data.element_spec

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        if type(iterator) is _Iterator:
            iterator.__class__ = _PlainIterator
            iterator._failure = self._failure
            iterator._places, iterator._kinds = _places(self.element_spec)
        return iterator


def _places(spec: Any) -> tuple[Any, list[int]]:
    """The structure with numbers for tensors, and their dtypes; (None, []) unless all components are plain tensors."""
    parts = tf.nest.flatten(spec)
    if not all(type(part) is tf.TensorSpec for part in parts) or not tf.config.experimental.get_synchronous_execution():
        return None, []
    return tf.nest.pack_sequence_as(spec, range(len(parts))), [part.dtype.as_datatype_enum for part in parts]


def _filled(places: Any, tensors: Sequence[tf.Tensor]) -> Any:
    if isinstance(places, dict):
        return {name: _filled(place, tensors) for name, place in places.items()}
    if isinstance(places, tuple):
        return tuple(_filled(place, tensors) for place in places)
    return tensors[places]
