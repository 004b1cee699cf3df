"""What a plain Python loop over a loaded dataset gets: batches at little cost, and dtap_dask's own errors.

TensorFlow spends several microseconds a component on turning a batch into Python's structure: shapes are checked that
the dataset states itself. For forty features that is more than everything else that a small batch costs.
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
    """What a loaded dataset and those made from it have in common.

    `failure` gives the error behind one of TensorFlow's, None where there is none. `unsaved` says why an iterator's
    position cannot be saved, None where it can. `served` makes the dataset in the form for tf.data service.
    """

    failure: Callable[[tf.errors.OpError], DtapError | None]
    unsaved: str | None
    served: Callable[[], tf.data.Dataset]


class _PlainIterator(_Iterator):  # type: ignore[misc]
    """TensorFlow's own iterator, which Keras hands to its compiled functions, but for the plain loop."""

    _ways: LoopHooks
    _places: Any  # the structure of a batch with the number of a tensor at each leaf; None: as TensorFlow does it
    _kinds: list[int]

    def __next__(self) -> Any:
        try:
            return super().__next__() if self._places is None or not tf.executing_eagerly() else self._quick()
        except tf.errors.OpError as error:
            failure = self._ways.failure(error)
            if failure is None:
                raise
            raise copy.copy(failure) from None  # the traceback of one that is kept would keep this iterator alive

    def _serialize_to_tensors(self) -> Any:
        """For tf.train.Checkpoint. StorageError where the position in the dataset cannot be saved."""
        if self._ways.unsaved is not None:
            raise StorageError(self._ways.unsaved)
        return super()._serialize_to_tensors()

    def _quick(self) -> Any:
        try:
            tensors = tf.raw_ops.IteratorGetNext(
                iterator=self._iterator_resource, output_types=self._kinds, output_shapes=[None] * len(self._kinds)
            )
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        return _filled(self._places, tensors)


class LoopDataset(tf.data.Dataset):  # type: ignore[misc]
    """`data`, whose loops are quick, and raise dtap_dask's own errors, as do those of datasets made from it.

    Within `fit` an error is TensorFlow's.
    """

    def __init__(self, data: tf.data.Dataset, ways: LoopHooks, batch_size: int | None = None):
        self._input_dataset, self._ways = data, ways
        if batch_size is not None:
            self._batch_size = batch_size  # where tools look for it
        super().__init__(data._variant_tensor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._input_dataset]

    @property
    def element_spec(self) -> Any:
        """As TensorFlow has it."""
        return self._input_dataset.element_spec

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        if type(iterator) is _Iterator:
            iterator.__class__ = _PlainIterator
            iterator._ways = self._ways
            iterator._places, iterator._kinds = _places(self.element_spec)
        return iterator

    def apply(self, transformation_func: Callable[[tf.data.Dataset], tf.data.Dataset]) -> tf.data.Dataset:
        """As TensorFlow does it, except that tf.data service is given the dataset in the form that workers can share.

        Raises StorageError where the shards lie on no filesystem that its workers could open.
        """
        if getattr(transformation_func, "__module__", "").endswith(".data_service_ops"):
            return self._ways.served().apply(transformation_func)
        return super().apply(transformation_func)


def _derived(name: str) -> Callable[..., LoopDataset]:
    """The method of tf.data.Dataset of that name, which here gives a LoopDataset again."""
    plain = getattr(tf.data.Dataset, name)

    @functools.wraps(plain)
    def method(self: LoopDataset, *args: Any, **options: Any) -> LoopDataset:
        ways = self._ways
        return LoopDataset(
            plain(self, *args, **options), replace(ways, served=lambda: plain(ways.served(), *args, **options))
        )

    return method


for _name in ("batch", "filter", "map", "prefetch", "repeat", "skip", "take", "unbatch", "with_options"):
    setattr(LoopDataset, _name, _derived(_name))


def _places(spec: Any) -> tuple[Any, list[int]]:
    """The structure with numbers for tensors, and their dtypes; (None, []) unless all components are plain tensors."""
    parts = tf.nest.flatten(spec)
    plain = all(type(part) is tf.TensorSpec for part in parts) and _is_plain(spec)
    if not plain or not tf.config.experimental.get_synchronous_execution():
        return None, []
    return tf.nest.pack_sequence_as(spec, range(len(parts))), [part.dtype.as_datatype_enum for part in parts]


def _is_plain(spec: Any) -> bool:
    """Whether the structure is of dicts and tuples only, none of another class."""
    if type(spec) is tf.TensorSpec:
        return True
    parts = spec.values() if type(spec) is dict else spec if type(spec) is tuple else [None]
    return all(map(_is_plain, parts))


def _filled(places: Any, tensors: Sequence[tf.Tensor]) -> Any:
    if isinstance(places, dict):
        return {name: _filled(place, tensors) for name, place in places.items()}
    if isinstance(places, tuple):
        return tuple(_filled(place, tensors) for place in places)
    return tensors[places]
