"""Plain Python loops over a loaded dataset: fast iteration, and dtap_dask's own errors.

TensorFlow spends several microseconds per component on turning a batch into a Python structure, among others on
checking shapes that the dataset itself states. For forty features that is more than the rest of a small batch's cost.

This depends on TensorFlow's internals, the iterator's class and attributes. tests/train/test_tensorflow_internals.py
fails where a release of TensorFlow changes them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DtapError, StorageError

_Iterator: Any = type(iter(tf.data.Dataset.range(0)))


@dataclass(frozen=True)
class LoopHooks:
    """Properties that a loaded dataset shares with those made from it.

    `explain` returns dtap_dask's own error for one of TensorFlow's, None where there is none. `unsaved` is the reason
    why an iterator's position cannot be saved, None where it can. `for_service` makes the dataset in the form for
    tf.data service.
    """

    explain: Callable[[tf.errors.OpError], DtapError | None]
    unsaved: str | None
    for_service: Callable[[], tf.data.Dataset]


class _PlainIterator(_Iterator):  # type: ignore[misc]
    """TensorFlow's own iterator, which Keras passes to its compiled functions, with its own `__next__` for loops."""

    _hooks: LoopHooks
    _structure: Any  # of a batch, with the index of a tensor at each leaf; None to use TensorFlow's own `__next__`
    _dtypes: list[int]

    def __next__(self) -> Any:
        try:
            return super().__next__() if self._structure is None or not tf.executing_eagerly() else self._fast_next()
        except tf.errors.OpError as error:
            failure = self._hooks.explain(error)
            if failure is None:
                raise
            raise copy.copy(failure) from None  # a stored error's traceback would keep this iterator alive

    def _serialize_to_tensors(self) -> Any:
        """The position for tf.train.Checkpoint. StorageError where it cannot be saved."""
        if self._hooks.unsaved is not None:
            raise StorageError(self._hooks.unsaved)
        return super()._serialize_to_tensors()

    def _fast_next(self) -> Any:
        try:
            tensors = tf.raw_ops.IteratorGetNext(
                iterator=self._iterator_resource, output_types=self._dtypes, output_shapes=[None] * len(self._dtypes)
            )
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        return _filled(self._structure, tensors)


class LoopDataset(tf.data.Dataset):  # type: ignore[misc]
    """`data` with fast Python loops that raise dtap_dask's own errors, as do loops over datasets made from it.

    Within `fit` errors are TensorFlow's.
    """

    def __init__(self, data: tf.data.Dataset, hooks: LoopHooks, batch_size: int | None = None):
        self._input_dataset, self._hooks = data, hooks
        if batch_size is not None:
            self._batch_size = batch_size  # tools look for it here
        super().__init__(data._variant_tensor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._input_dataset]

    @property
    def element_spec(self) -> Any:
        """The structure of a batch, as for any dataset."""
        return self._input_dataset.element_spec

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        if type(iterator) is _Iterator:
            iterator.__class__ = _PlainIterator
            iterator._hooks = self._hooks
            iterator._structure, iterator._dtypes = _structure_of(self.element_spec)
        return iterator

    def apply(self, transformation_func: Callable[[tf.data.Dataset], tf.data.Dataset]) -> tf.data.Dataset:
        """TensorFlow's `apply`, except that tf.data service gets the dataset in the form that workers can share.

        Raises StorageError where the shards are on no filesystem that its workers can open.
        """
        if getattr(transformation_func, "__module__", "").endswith(".data_service_ops"):
            return self._hooks.for_service().apply(transformation_func)
        return super().apply(transformation_func)


def _derived(name: str) -> Callable[..., LoopDataset]:
    """The method of tf.data.Dataset with that name, but returning a LoopDataset."""
    plain = getattr(tf.data.Dataset, name)

    @functools.wraps(plain)
    def method(self: LoopDataset, *args: Any, **options: Any) -> LoopDataset:
        hooks = self._hooks
        return LoopDataset(
            plain(self, *args, **options),
            replace(hooks, for_service=lambda: plain(hooks.for_service(), *args, **options)),
        )

    return method


for _name in ("batch", "filter", "map", "prefetch", "repeat", "skip", "take", "unbatch", "with_options"):
    setattr(LoopDataset, _name, _derived(_name))


def _structure_of(spec: Any) -> tuple[Any, list[int]]:
    """The structure with indices for tensors, and their dtypes; (None, []) unless all components are plain tensors."""
    parts = tf.nest.flatten(spec)
    plain = all(type(part) is tf.TensorSpec for part in parts) and _is_plain(spec)
    if not plain or not tf.config.experimental.get_synchronous_execution():
        return None, []
    return tf.nest.pack_sequence_as(spec, range(len(parts))), [part.dtype.as_datatype_enum for part in parts]


def _is_plain(spec: Any) -> bool:
    """Whether the structure consists of dicts and tuples only, not of their subclasses or other classes."""
    if type(spec) is tf.TensorSpec:
        return True
    parts = spec.values() if type(spec) is dict else spec if type(spec) is tuple else [None]
    return all(map(_is_plain, parts))


def _filled(structure: Any, tensors: Sequence[tf.Tensor]) -> Any:
    if isinstance(structure, dict):
        return {name: _filled(part, tensors) for name, part in structure.items()}
    if isinstance(structure, tuple):
        return tuple(_filled(part, tensors) for part in structure)
    return tensors[structure]
