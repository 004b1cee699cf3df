"""Times that are measured within TensorFlow's functions, where Python sees nothing.

How long a compiled training step waits for its batch is measured by TensorFlow itself: an iterator that is passed to a
function becomes a TimedIterator there. This depends on how TensorFlow passes iterators to functions;
tests/train/test_tensorflow_internals.py fails where a release changes that.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.data.ops import iterator_ops
from tensorflow.python.ops import resource_variable_ops

from dtap_dask.loading.feed import LoopTimes

_CPU = "CPU:0"
_Iterator: Any = iterator_ops.OwnedIterator
_Spec: Any = iterator_ops.IteratorSpec
_numbers = itertools.count()
_clocks: weakref.WeakValueDictionary[int, StepClock] = weakref.WeakValueDictionary()


class GraphNumbers:
    """A few float64 numbers that functions of TensorFlow change and Python reads."""

    def __init__(self, count: int):
        # Not tf.Variable, of which a strategy of tf.distribute would make one for each replica.
        with tf.init_scope(), tf.device(_CPU):
            self._variable = resource_variable_ops.ResourceVariable(np.zeros(count), trainable=False)

    def read(self) -> list[float]:
        """The numbers."""
        found: list[float] = self._variable.numpy().tolist()
        return found

    def change(self, changed: Callable[[tf.Tensor], tf.Tensor]) -> None:
        """Replace the numbers by a function of them."""
        with tf.device(_CPU):
            self._variable.assign(changed(self._variable.read_value()), read_value=False)

    def reset(self) -> None:
        """Set all to zero."""
        self._variable.assign(tf.zeros_like(self._variable), read_value=False)


class StepClock:
    """What the functions that an iterator is passed to take from it, and wait for.

    `after`: a variable that each step changes last. Where a function takes several steps, TensorFlow may ask for a
    batch while it still computes the step before, and this is no waiting.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.after: Any = None
        self._numbers = GraphNumbers(4)  # seconds that were waited, batches, the times of the first and the last one
        _clocks[self.number] = self

    @property
    def times(self) -> LoopTimes | None:
        """What was taken since `reset`; None if nothing was."""
        waited, batches, first, last = self._numbers.read()
        return LoopTimes(int(batches), last - first, waited) if batches else None

    def reset(self) -> None:
        """Begin anew."""
        self._numbers.reset()

    def timed(self, take: Callable[[], Any]) -> Any:
        """What `take` takes from an iterator, in the graph of a function. Its first batch is not waited for."""
        begin = _now(None if self.after is None else tf.identity(self.after))
        with tf.control_dependencies([begin]):
            got = take()
        end = _now(got)
        is_batch = got.has_value() if isinstance(got, tf.experimental.Optional) else tf.constant(True)

        def changed(numbers: tf.Tensor) -> tf.Tensor:
            waited, batches, first, _ = tf.unstack(numbers)
            again = batches > 0
            found = [tf.where(again, waited + end - begin, 0), batches + 1, tf.where(again, first, end), end]
            return tf.where(is_batch, tf.stack(found), numbers)

        self._numbers.change(changed)
        return got


def _now(after: Any) -> tf.Tensor:
    """Seconds since 1970, once all tensors of a structure have been computed."""
    tensors = [part for part in tf.nest.flatten(after, expand_composites=True) if part is not None]
    with tf.device(_CPU), tf.control_dependencies(tensors):
        return tf.timestamp()


class TimedIterator(_Iterator):  # type: ignore[misc]
    """An iterator in a function's graph; its clock measures what is taken from it there."""

    _clock: StepClock

    def __next__(self) -> Any:
        return self._clock.timed(super().__next__)

    def get_next(self) -> Any:
        """The next element."""
        return self._clock.timed(super().get_next)

    def get_next_as_optional(self) -> Any:
        """The next element, or an empty Optional at the end."""
        return self._clock.timed(super().get_next_as_optional)


class TimedSpec(_Spec):  # type: ignore[misc]
    """How an iterator with a clock is passed to functions."""

    __slots__ = ["_number"]

    def __init__(self, element_spec: Any, number: int):
        super().__init__(element_spec)
        self._number = number

    @property
    def value_type(self) -> type:
        """The class within a function."""
        return TimedIterator

    def _serialize(self) -> tuple[Any, int]:
        return self._element_spec, self._number

    def _from_components(self, components: Any) -> Any:
        found = super()._from_components(components)
        clock = _clocks.get(self._number)
        if clock is not None:
            found.__class__, found._clock = TimedIterator, clock
        return found
