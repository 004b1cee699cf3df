"""The passes of a mixture as a tf.data.Dataset of chunks of rows."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DtapError
from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.mixture.source import MixturePosition, MixtureSource
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.records import columns
from dtap_dask.train.mapped import as_it_is, mapped
from dtap_dask.train.passes import Passes

OPEN = 2  # passes of components in place; there is no way to know which of them were given up


class ChunkPasses(Passes):
    """The passes of a mixture, whose chunks come one after the other from a generator with threads of its own."""

    def __init__(self, source: MixtureSource, options: BatchOptions, start: Any):
        super().__init__(source, options, start)
        self._source = source
        self._open: dict[int, Generator[list[Any]]] = {}
        self._given: dict[int, int] = {}  # rows of each pass

    def windows(self) -> tf.data.Dataset:
        """See Passes. As for WindowPasses, a pass over staged shards must be closed if the iterator is given up."""
        dtypes = [tf.string, *self._form.dtypes]
        if self._source.staged:
            signature = tuple(tf.TensorSpec(None, dtype) for dtype in dtypes)
            chunks = tf.data.Dataset.from_generator(self._called("_staged", [self._gone()]), output_signature=signature)
        else:
            start, after = self._called("_start", 0), self._called("_next", self._gone())
            passes = mapped(tf.data.Dataset.range(1), lambda _: tf.numpy_function(start, [], tf.int64))
            numbers = passes.flat_map(as_it_is(lambda number: tf.data.Dataset.from_tensors(number).repeat()))
            chunks = mapped(numbers, lambda number: tf.numpy_function(after, [number], dtypes), ends=True)
        return mapped(chunks, self._structured, self._threads)

    def _next(self, number: int) -> list[Any]:
        """The next chunk of a pass, opened again if nobody read from it for long. StopIteration after the last one."""
        with self._lock:
            found = self._open.pop(number, None) or self._chunks(number)
            self._open[number] = found
            while len(self._open) > OPEN:
                del self._open[next(iter(self._open))]
        return next(found)

    def _staged(self) -> Iterator[tuple[Any, ...]]:
        yield from map(tuple, self._chunks(self._start()))

    def _chunks(self, number: int) -> Generator[list[Any]]:
        """The chunks of a pass that are left of it."""
        begun, given = self.begun[number], self._given.setdefault(number, 0)
        batches, rest = divmod(given, self.batch_size)
        position = self._source.further(begun, self._options, batches)
        try:
            for rows in self._prepared(position):
                count = columns.row_count(rows)
                taken = min(rest, count)
                rest -= taken
                self._given[number] += count - taken
                yield self._found(number, self._form.of_prepared(columns.cut(rows, taken, count)))
        except DtapError as error:
            yield self._failed(error)
        except RuntimeError as error:
            if "shutdown" not in str(error):  # at the end of the program, in which pools refuse tasks
                raise

    def _prepared(self, position: MixturePosition) -> Iterator[Rows]:
        return self._source.packed(position, self._options, self._decoder, self._threads, self._form.prepared)
