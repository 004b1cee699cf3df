"""Failures of the background as this tool's own errors, where TensorFlow would put them into a text of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DtapError

_Iterator: Any = type(iter(tf.data.Dataset.range(0)))


class _SpeakingIterator(_Iterator):  # type: ignore[misc]
    """TensorFlow's own iterator, which Keras hands to its compiled functions, but for the error of a plain loop."""

    _failure: Callable[[], DtapError | None]

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except tf.errors.OpError:
            failure = self._failure()
            if failure is None:
                raise
            raise copy.copy(failure) from None  # the traceback of one that is kept would keep this iterator alive


class SpeakingDataset(tf.data.Dataset):  # type: ignore[misc]
    """`data`, whose loops raise `failure()` where there is one.

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
            iterator.__class__ = _SpeakingIterator
            iterator._failure = self._failure
        return iterator
