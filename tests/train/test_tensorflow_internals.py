"""TensorFlow's internals on which loop.py, clock.py, mapped.py and ending.py of train/ depend; run with every release.

A failure here names what a release has changed; the tests of `load` then show what it means for users.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.columns import _of_matrix
from dtap_dask.loading.feed import FeedTotals, LoopMeter
from dtap_dask.train import ending
from dtap_dask.train.clock import GraphNumbers, StepClock, TimedIterator
from dtap_dask.train.loop import LoopDataset, LoopHooks, _PlainIterator
from dtap_dask.train.mapped import ON_ONE_DEVICE, mapped
from waiting import until

OWN = type(iter(tf.data.Dataset.range(0)))


def looped(data: tf.data.Dataset, clock: StepClock | None = None) -> LoopDataset:
    passes = SimpleNamespace(beginning=threading.Lock(), begun=[], first=set(), failure=None, clock=clock, iterators=0)
    passes.begin_loop = lambda *, batches: LoopMeter(FeedTotals)
    return LoopDataset(data, LoopHooks(cast("Any", passes), None, lambda _: data, lambda: data))


def test_loops_use_the_fast_iterator_and_get_tensorflows_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tf.data.Dataset.range(7).map(lambda n: ({"n": n, "f": tf.cast(n, tf.float32)}, -n)).batch(3)
    calls = []
    fast_next = _PlainIterator._fast_next
    monkeypatch.setattr(_PlainIterator, "_fast_next", lambda self: (calls.append(1), fast_next(self))[1])
    iterator = iter(looped(data))
    assert type(iterator) is _PlainIterator
    assert isinstance(iterator, OWN)
    found, expected = list(iterator), list(data)
    assert len(calls) == len(expected) + 1 == 4
    for ours, theirs in zip(found, expected, strict=True):
        tf.nest.assert_same_structure(ours, theirs)
        for mine, own in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
            assert mine.dtype == own.dtype
            assert mine.numpy().tolist() == own.numpy().tolist()


@pytest.mark.parametrize("after", [True, False])
def test_a_function_that_takes_an_iterator_gets_one_that_measures(after: bool) -> None:
    """However the function takes elements: the same ones, and once traced for all iterators of a dataset."""
    data, clock, traces = tf.data.Dataset.range(12), StepClock(), []
    clock.after = tf.Variable(0) if after else None
    looping = looped(data, clock)

    @tf.function
    def five(iterator: Any) -> Any:
        traces.append(type(iterator))
        optional = iterator.get_next_as_optional()
        return [iterator.get_next(), next(iterator), optional.get_value(), *[iterator.get_next() for _ in range(2)]]

    iterator = iter(looping)
    assert sorted(map(int, five(iterator))) == [0, 1, 2, 3, 4]
    assert clock.times is not None
    assert clock.times.batches == 5
    assert 0 <= clock.times.waited <= clock.times.seconds
    five(iterator)
    clock.reset()
    assert clock.times is None
    with pytest.raises(tf.errors.OutOfRangeError):
        five(iterator)
    five(iter(looping))
    assert traces == [TimedIterator]

    @tf.function
    def all_of(iterator: Any) -> Any:
        total = tf.constant(0, tf.int64)
        for number in iterator:
            total += number
        return total

    clock.reset()
    assert int(all_of(iter(looping))) == 66
    assert clock.times.batches == 12  # the empty one at the end is none


def test_numbers_of_functions_are_one_for_all_replicas() -> None:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        numbers = GraphNumbers(2)
    add = tf.function(lambda: numbers.change(lambda found: tf.add(found, [1, 2])))
    add()
    add()
    assert numbers.read() == [2, 4]
    assert isinstance(numbers._variable, resource_variable_ops.ResourceVariable)
    assert not isinstance(numbers._variable, tf.distribute.DistributedValues)


def test_an_iterator_has_a_resource_and_a_hook_for_checkpoints() -> None:
    iterator = iter(tf.data.Dataset.range(3))
    assert iterator._iterator_resource.dtype == tf.resource
    assert callable(OWN._serialize_to_tensors)


def test_datasets_have_a_variant_and_tools_look_for_these_attributes() -> None:
    data = tf.data.Dataset.range(3)
    batched: Any = data.batch(2)
    assert data._variant_tensor.dtype == tf.variant
    assert batched._input_dataset is data
    assert int(batched._batch_size) == 2
    assert batched._drop_remainder is not None


@pytest.mark.parametrize("threads", [None, 2])
def test_functions_of_maps_are_on_one_device(threads: int | None) -> None:
    """TensorFlow does not optimize those anew for every iterator; results are those of Dataset.map."""
    data = tf.data.Dataset.range(5)
    made: Any = mapped(data, lambda n: {"n": n, "half": n / 2}, threads)
    assert made._functions()[0].function.function_def.attr[ON_ONE_DEVICE].b
    assert made.element_spec == data.map(lambda n: {"n": n, "half": n / 2}).element_spec
    assert [(int(one["n"]), float(one["half"])) for one in made] == [(n, n / 2) for n in range(5)]
    assert int(made.cardinality()) == 5


def test_stop_iteration_ends_a_map_that_ends_and_is_an_error_otherwise() -> None:
    def below_three(number: int) -> int:
        if number == 3:
            raise StopIteration
        return number

    def called(number: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(below_three, [number], tf.int64)

    assert list(map(int, mapped(tf.data.Dataset.range(5), called, ends=True))) == [0, 1, 2]
    for threads in (None, 2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="OutOfRange"):
            list(mapped(tf.data.Dataset.range(5), called, threads))


def test_columns_are_in_memory_that_tensorflow_takes_without_a_copy() -> None:
    infos = [FeatureInfo(name, "feature", "int64", "uint16") for name in "abc"]
    packed: Any = {"uint16": np.arange(30, dtype=np.uint16).reshape(10, 3)}
    columns = list(_of_matrix(infos, packed["uint16"], dict.fromkeys("abc", "int64")).values())
    data = mapped(tf.data.Dataset.range(1), lambda _: tf.numpy_function(lambda: columns, [], [tf.int64] * 3))
    for mine, theirs in zip(columns, next(iter(data)), strict=True):
        assert np.asarray(memoryview(theirs)).ctypes.data == mine.ctypes.data


class Blocked:
    """A dataset whose generator waits in Python, called by TensorFlow, until it is released."""

    def __init__(self) -> None:
        self.entered, self.release, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.data = tf.data.Dataset.from_generator(self._numbers, output_signature=tf.TensorSpec([], tf.int64))

    def _numbers(self) -> Iterator[int]:
        try:
            yield 0
            self.entered.set()
            self.release.wait()
            yield from range(1, 1000)
        finally:
            self.closed.set()


def test_a_thread_that_waits_for_tensorflow_or_is_called_by_it_is_seen() -> None:
    blocked = Blocked()
    thread = threading.Thread(target=lambda: list(blocked.data))
    thread.start()
    assert blocked.entered.wait(60)
    assert not ending._quiet()
    blocked.release.set()
    thread.join(60)
    until(ending._quiet)


def test_an_iterator_without_its_resource_is_deleted_by_tensorflow() -> None:
    blocked = Blocked()
    blocked.release.set()
    iterator = iter(blocked.data)
    assert int(next(iterator)) == 0
    assert not blocked.closed.is_set()
    ending._delete_iterators()
    assert blocked.closed.wait(60)
    assert iterator._iterator_resource is None
