"""Plain Python loops over a loaded dataset: fast iteration, and dtap_dask's own errors.

TensorFlow spends several microseconds per component on turning a batch into a Python structure, among others on
checking shapes that the dataset itself states. For forty features that is more than the rest of a small batch's cost.

This depends on TensorFlow's internals, the iterator's class and attributes. tests/train/test_tensorflow_internals.py
fails where a release of TensorFlow changes them.
"""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import tensorflow as tf
from tensorflow.python.data.ops import iterator_ops
from tensorflow.python.ops import gen_dataset_ops

from dtap_dask.errors import StorageError
from dtap_dask.loading.feed import LoopMeter
from dtap_dask.train.clock import TimedSpec
from dtap_dask.train.passes import Passes
from dtap_dask.train.place import Place

_SAVED = "dtap_dask_position"  # the name of a position in a checkpoint
_Iterator: Any = iterator_ops.OwnedIterator
Fill = Callable[[Sequence[tf.Tensor]], Any]  # makes a batch of its tensors


@dataclass(frozen=True)
class LoopHooks:
    """Properties that a loaded dataset shares with those made from it.

    `place` says where iterators are, None for datasets whose elements are not the loaded batches one by one. `batches`
    is the number of a whole epoch's, for datasets whose first epoch is shorter. `rest` makes the dataset for an
    iterator that has finished a number of epochs: without its known number of batches, as the epoch that is continued
    has fewer. `for_service` makes it in the form for tf.data service.
    """

    passes: Passes
    place: Place | None
    rest: Callable[[int], tf.data.Dataset]
    for_service: Callable[[], tf.data.Dataset]
    repeated: bool = False
    batches: int | None = None


class _PlainIterator(_Iterator):  # type: ignore[misc]
    """TensorFlow's own iterator, which Keras passes to its compiled functions, with its own `__next__` for loops."""

    _hooks: LoopHooks
    _fill: Any  # a Fill; None to use TensorFlow's own `__next__`
    _dtypes: list[int]
    _shapes: list[None]
    _begun: int | None = None  # the number of its first pass
    _taken = 0  # batches
    _meter: LoopMeter

    @property
    def _type_spec(self) -> Any:
        """How this iterator is passed to functions."""
        clock = self._hooks.passes.clock
        return super()._type_spec if clock is None else TimedSpec(self.element_spec, clock.number)

    def __next__(self) -> Any:
        if self._begun is None:
            return self._first()
        clock = perf_counter()
        batch = self._next()
        self._taken += 1
        self._meter.took(clock)
        return batch

    def _first(self) -> Any:
        """The first batch; one iterator at a time, so that each knows which pass it began."""
        passes = self._hooks.passes
        with passes.beginning:
            begun, clock = len(passes.begun), perf_counter()
            self._meter = passes.begin_loop(batches=self._hooks.place is not None)
            batch = self._next()
            self._meter.took(clock)
            self._begun, self._taken = begun, 1
            passes.first.add(begun)
        return batch

    def _next(self) -> Any:
        try:
            return super().__next__() if self._fill is None or not tf.executing_eagerly() else self._fast_next()
        except tf.errors.OpError:
            failure = self._hooks.passes.failure
            if failure is None:
                raise
            raise copy.copy(failure) from None  # a stored error's traceback would keep this iterator alive

    def state(self) -> dict[str, Any]:
        """The position after the last batch that this loop took, as JSON types: `load(..., state=...)` continues there.

        Raises StorageError where it is unknown.
        """
        hooks = self._hooks
        if hooks.place is None:
            raise StorageError(_OTHER_ELEMENTS)
        return hooks.place.state(self._begun, self._taken)

    def _serialize_to_tensors(self) -> Any:
        """The state for tf.train.Checkpoint. StorageError where it is unknown."""
        state = self.state()
        done = 0 if self._begun is None else state["epoch"] - self._hooks.passes.begun[self._begun].epoch
        return {_SAVED: tf.constant(json.dumps({"state": state, "epochs": done}))}

    def _restore_from_tensors(self, restored_tensors: Any) -> Any:
        if self._hooks.place is None:
            raise StorageError(_OTHER_ELEMENTS)
        saved = json.loads(restored_tensors[_SAVED].numpy())
        self._hooks.place.seek(saved["state"])
        self._begun, self._taken = None, 0
        self._create_iterator(self._hooks.rest(saved["epochs"]))
        return []

    def _fast_next(self) -> Any:
        try:
            tensors = gen_dataset_ops.iterator_get_next(self._iterator_resource, self._dtypes, self._shapes)
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        return self._fill(tensors)


class LoopDataset(tf.data.Dataset):  # type: ignore[misc]
    """`data` with fast Python loops that raise dtap_dask's own errors, as do loops over datasets made from it.

    Within `fit` errors are TensorFlow's.
    """

    vectors: Mapping[str, list[str]] = {}  # the features of each matrix, in a dataset that was loaded `as_vectors`

    def __init__(self, data: tf.data.Dataset, hooks: LoopHooks, batch_size: int | None = None):
        self._input_dataset, self._hooks = data, hooks
        if batch_size is not None:
            self._batch_size = batch_size  # tools look for it here
        super().__init__(data._variant_tensor)
        self._variant_tensor._dtap_dask = hooks.passes  # which the functions that capture the tensor need

    def stats(self) -> dict[str, Any]:
        """How fast the current or last loop is fed, and what it waits for; see `dtap-dask docs loading`, Feed rate.

        Within `fit` only with the callback FeedRate. `skipped_records`: the damaged records left out so far, in all
        epochs.
        """
        return self._hooks.passes.stats()

    def state(self, batches: int = 0) -> dict[str, Any]:
        """The position that many batches after the one where the dataset was loaded: for loops that count them.

        The iterators of tf.distribute have no state. Raises StorageError where it is unknown.
        """
        if self._hooks.place is None:
            raise StorageError(_OTHER_ELEMENTS)
        return self._hooks.place.state_after(batches)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._input_dataset]

    @property
    def element_spec(self) -> Any:
        """The structure of a batch, as for any dataset."""
        return self._input_dataset.element_spec

    def cardinality(self) -> Any:
        """The number of batches of a whole epoch. Keras asks for it once, before it knows that the first is shorter."""
        known = self._hooks.batches
        return super().cardinality() if known is None else tf.constant(known, tf.int64)

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        if type(iterator) is _Iterator:
            iterator.__class__ = _PlainIterator
            iterator._hooks = self._hooks
            self._hooks.passes.iterators += 1
            iterator._fill, iterator._dtypes = _structure_of(self.element_spec)
            iterator._shapes = [None] * len(iterator._dtypes)
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
        hooks, same = self._hooks, name in _ONE_BY_ONE and _in_order(name, args, options)
        return LoopDataset(
            plain(self, *args, **options),
            replace(
                hooks,
                place=hooks.place if same else None,
                batches=hooks.batches if same else None,
                rest=lambda done: plain(hooks.rest(done), *args, **options),
                for_service=lambda: plain(hooks.for_service(), *args, **options),
            ),
        )

    return method


def _in_order(name: str, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether a method that makes one element of each keeps their order, as it does unless it was told not to."""
    if name == "with_options":
        return [*args, *options.values()][0].deterministic is not False
    return options.get("deterministic", args[2] if name == "map" and len(args) > 2 else None) is not False


def _repeat(self: LoopDataset, count: int | None = None, name: str | None = None) -> LoopDataset:
    """TensorFlow's `repeat`: every repetition is the next epoch."""
    plain, hooks = tf.data.Dataset.repeat, self._hooks

    def rest(done: int) -> tf.data.Dataset:
        return plain(hooks.rest(0), count if count is None or count < 0 else max(0, count - done), name)

    def for_service() -> tf.data.Dataset:
        return plain(hooks.for_service(), count, name)

    place = None if hooks.repeated else hooks.place
    again = replace(hooks, place=place, repeated=True, batches=None, rest=rest, for_service=for_service)
    return LoopDataset(plain(self, count, name), again)


_ONE_BY_ONE = ("map", "prefetch", "with_options")
for _name in (*_ONE_BY_ONE, "batch", "filter", "skip", "take", "unbatch"):
    setattr(LoopDataset, _name, _derived(_name))
LoopDataset.repeat = _repeat

_OTHER_ELEMENTS = (
    "The position of this iterator is not known: what it yields are not the loaded batches one by one, but made from "
    "them by `batch`, `filter`, `skip`, `take` or `unbatch`, or in another order (deterministic=False). Iterate over "
    "the loaded dataset, or over what `map`, `prefetch` and `repeat` make of it, and save the state of that iterator."
)


def _structure_of(spec: Any) -> tuple[Fill | None, list[int]]:
    """What makes a batch of its tensors, and their dtypes; (None, []) unless all components are plain tensors."""
    parts = tf.nest.flatten(spec)
    plain = all(type(part) is tf.TensorSpec for part in parts) and _is_plain(spec)
    if not plain or not tf.config.experimental.get_synchronous_execution():
        return None, []
    indexed = tf.nest.pack_sequence_as(spec, range(len(parts)))
    return _filling(indexed), [part.dtype.as_datatype_enum for part in parts]


def _is_plain(spec: Any) -> bool:
    """Whether the structure consists of dicts and tuples only, not of their subclasses or other classes."""
    if type(spec) is tf.TensorSpec:
        return True
    parts = spec.values() if type(spec) is dict else spec if type(spec) is tuple else [None]
    return all(map(_is_plain, parts))


def _filling(indexed: Any) -> Fill:
    """What puts tensors in the place of their indices."""
    if isinstance(indexed, int):
        return operator.itemgetter(indexed)
    if isinstance(indexed, tuple):
        parts = list(map(_filling, indexed))
        return lambda tensors: tuple([part(tensors) for part in parts])
    if len(indexed) > 1 and all(isinstance(part, int) for part in indexed.values()):  # many columns, at once
        names, columns = list(indexed), operator.itemgetter(*indexed.values())
        return lambda tensors: dict(zip(names, columns(tensors), strict=True))
    each = {name: _filling(part) for name, part in indexed.items()}
    return lambda tensors: {name: part(tensors) for name, part in each.items()}
