"""TensorFlow's internals on which train/loop.py and train/ending.py depend, to be run with every release of TensorFlow.

A failure here names what a release has changed; the tests of `load` then show what it means for users.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tensorflow as tf

from dtap_dask.train import ending
from dtap_dask.train.loop import LoopDataset, LoopHooks, _PlainIterator
from waiting import until

OWN = type(iter(tf.data.Dataset.range(0)))


def looped(data: tf.data.Dataset) -> LoopDataset:
    passes = SimpleNamespace(beginning=threading.Lock(), begun=[], first=set(), failure=None)
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
