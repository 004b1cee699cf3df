"""The passes of a loaded dataset as a tf.data.Dataset of windows of rows.

TensorFlow asks Python for a pass when the first row of an epoch is requested: where shards are staged a generator,
which it ends with the iterator. The pieces of the pass are read by Python, several at a time, and leave it as
the delivered columns, already shuffled, in memory that TensorFlow does not copy, or, where there are texts or lists, as
serialized records and the order of their rows, which TensorFlow decodes.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from dtap_dask.errors import DtapError
from dtap_dask.loading.feed import LoopMeter
from dtap_dask.loading.mixture.source import MixtureSource
from dtap_dask.loading.reading.epoch import ReaderPass
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.reading.source import RowSource
from dtap_dask.train import ending
from dtap_dask.train.clock import StepClock
from dtap_dask.train.forms import ColumnForm, Form, RecordForm
from dtap_dask.train.mapped import mapped

# Windows decoded in parallel, if there are as many processors. Autotune would choose the same; it is off, see load.
DECODERS = 4
KEPT = 8  # passes; there is no way to know which of those in place are over
_GONE = b"The dataset that was loaded is gone. Keep it as long as something made from it is used."


class Passes(ABC):
    """The passes of a loaded dataset: where each one `begun` so far began, and where the `next` one will.

    `first` has the numbers of those that are the first of a loop. `failure` is the error of the last pass. `beginning`
    is held by a loop that asks for its first batch.
    """

    def __init__(self, source: RowSource | MixtureSource, options: BatchOptions, start: Any):
        self.begun: list[Any] = []
        self.first = set[int]()
        self.next = start
        self.beginning = threading.Lock()
        self._lock = threading.Lock()
        self.failure: DtapError | None = None
        self._of, self._options, self._decoder = source, options, source.decoder(options)
        self._threads = min(DECODERS, os.cpu_count() or 1)
        self._form: Form = (
            ColumnForm(self._decoder, options) if self._decoder.quick else RecordForm(source.split, options)
        )
        self.clock: StepClock | None = None  # measures the steps of functions, if one was wanted
        self.iterators = self._taken_from = 0  # that were made, and the newest of those that functions took from
        self._size: int | None = options.size  # of what the current loop takes, if that is batches
        self._since = self._rows = 0  # the first pass of the current loop, and the rows that were read for it
        self._loop = LoopMeter(self._of.read_so_far)
        ending.prepare()

    @property
    def batch_size(self) -> int:
        """The rows of a batch."""
        return self._options.size

    def begin_loop(self, *, batches: bool) -> LoopMeter:
        """Measure a loop that begins now, over the loaded batches or over something that was made from them."""
        self._since, self._rows, self._size = len(self.begun), 0, self._options.size if batches else None
        self._loop = LoopMeter(self._of.read_so_far)
        return self._loop

    def begin_epoch(self, clock: StepClock) -> None:
        """Measure what functions take from now on, from a new iterator or from the one that they have taken from."""
        times = clock.times
        if self._taken_from == self.iterators and times is not None:
            self._rows -= min(times.batches * self._options.size, self._rows)
        else:
            self._since, self._rows = len(self.begun), 0
        self._size, self._loop = self._options.size, LoopMeter(self._of.read_so_far)
        clock.reset()

    def first_taken(self) -> None:
        """A function has taken its first batch."""
        self._taken_from = self.iterators
        self._loop.first()

    def stats(self) -> dict[str, Any]:
        """See LoopDataset.stats."""
        times = self._loop.times or (self.clock.times if self.clock is not None else None)
        found = self._loop.stats(times, self._size, self._rows, self._threads)
        return {**found, "skipped_records": self._of.skipped.count}

    @abstractmethod
    def windows(self) -> tf.data.Dataset:
        """The rows of an epoch in the structure of a batch, piece by piece; every iteration is the next epoch."""

    def _called(self, name: str, otherwise: Any) -> Callable[..., Any]:
        """The method of that name as a function for TensorFlow, which returns `otherwise` once this object is gone.

        TensorFlow keeps Python functions for ever, and this object has the open files; the datasets keep it.
        """
        if not tf.executing_eagerly():  # the graph, in which no dataset may be left, keeps it
            return getattr(self, name)  # type: ignore[no-any-return]
        found = weakref.ref(self)

        def method(*arguments: Any) -> Any:
            passes = found()
            return otherwise if passes is None else getattr(passes, name)(*arguments)

        return method

    def _gone(self) -> list[Any]:
        """What is in place of a piece once this object is gone."""
        return [_GONE, *self._form.none()]

    def _start(self) -> int:
        """Begin a pass: its number."""
        with self._lock:  # iterators that TensorFlow fills ahead may begin at the same time
            number, self.failure, position = len(self.begun), None, self.next
            self.begun.append(position)
            self.next = self._of.next_epoch(position)
        return number

    def _found(self, number: int, arrays: list[Any]) -> list[Any]:
        """A piece of a pass with these arrays, the last of which has an entry for each row."""
        with self._lock:
            self._rows += len(arrays[-1]) if number >= self._since else 0
        return [b"", *arrays]

    def _failed(self, error: DtapError) -> list[Any]:
        """What is in place of a piece that could not be read. An exception would reach users as a traceback."""
        self.failure = error
        return [str(error).encode(), *self._form.none()]

    def _structured(self, failure: tf.Tensor, *tensors: tf.Tensor) -> Any:
        """A piece in the structure of a batch: `failure` is what was wrong, if anything, the others the arrays."""
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(failure, ""), [failure])]):
            arrays = list(map(tf.identity, tensors))
        return self._form.structured(arrays)


class WindowPasses(Passes):
    """The passes of one dataset. TensorFlow's threads read their windows, each by its number."""

    def __init__(self, source: RowSource, options: BatchOptions, start: Any):
        super().__init__(source, options, start)
        self._source = source
        self._open: dict[int, ReaderPass] = {}
        self._unread: dict[int, int] = {}  # pieces of each pass

    def windows(self) -> tf.data.Dataset:
        """See Passes."""
        spec = tf.TensorSpec([None, 2], tf.int64)
        if self._source.cache is None:
            begin = self._called("_begin", _ONE_PIECE)
            passes = mapped(tf.data.Dataset.range(1), lambda _: _numbers(begin, spec))
        else:  # the generator notices when an iterator is given up; it also makes TensorFlow return memory all the time
            passes = tf.data.Dataset.from_generator(self._called("_pass", [_ONE_PIECE]), output_signature=spec)
        read = self._called("_read", self._gone())

        def loaded(piece: tf.Tensor) -> Any:
            return self._structured(*tf.numpy_function(read, [piece], [tf.string, *self._form.dtypes]))

        return mapped(passes.unbatch(), loaded, self._threads)

    def _begin(self) -> npt.NDArray[np.int64]:
        """Begin a pass: its pieces."""
        return self._pieces(self._start())

    def _pieces(self, number: int) -> npt.NDArray[np.int64]:
        """The number of a pass and that of each of its pieces, [pieces, 2]."""
        self._unread[number] = len(self._opened(number))
        pieces = np.arange(self._unread[number])
        return np.stack([np.full_like(pieces, number), pieces], axis=1)

    def _opened(self, number: int) -> ReaderPass:
        """A pass; one in place that nobody has read from for long is opened again."""
        with self._lock:
            if number not in self._open:
                self._open[number] = self._source.reader_pass(self.begun[number], self._options)
                while self._source.cache is None and len(self._open) > KEPT:
                    del self._open[min(self._open)]
            return self._open[number]

    def _pass(self) -> Iterator[npt.NDArray[np.int64]]:
        """`_begin` for a pass that must be closed if the iterator is given up."""
        number = self._start()
        try:
            yield self._pieces(number)
        except GeneratorExit:
            self._close(number)
            raise

    def _close(self, number: int) -> None:
        with self._lock:
            found = self._open.pop(number, None)
        if found is not None:
            found.close()

    def _was_read(self, number: int) -> None:
        """Close a pass after its last piece, which is read after TensorFlow has asked for all of them."""
        with self._lock:
            self._unread[number] -= 1
            done = not self._unread[number]
        if done:
            del self._unread[number]
            self._close(number)

    def _read(self, numbers: npt.NDArray[np.int64]) -> list[Any]:
        """What was wrong, if anything, and the arrays of a piece, by the numbers of its pass and its own, [2]."""
        number, piece = numbers.tolist()
        try:
            return self._found(number, self._form.arrays(self._opened(number), piece))
        except DtapError as error:
            return self._failed(error)
        finally:
            self._was_read(number)


_ONE_PIECE = np.zeros((1, 2), np.int64)  # of the passes of an object that is gone


def _numbers(begin: Callable[..., Any], spec: tf.TensorSpec) -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(begin, [], spec.dtype), spec.shape)
