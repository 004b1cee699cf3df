"""The passes of a mixture as a tf.data.Dataset of chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DtapError
from dtap_dask.train.forms import as_it_is
from dtap_dask.train.passes import Passes


class ChunkPasses(Passes):
    """The passes of a mixture, whose chunks come one after the other from a generator with threads of its own."""

    def windows(self) -> tf.data.Dataset:
        """See Passes."""
        signature = tuple(tf.TensorSpec(None, dtype) for dtype in [tf.string, *self._form.dtypes])
        chunks = tf.data.Dataset.from_generator(self._chunks, output_signature=signature)
        return chunks.map(as_it_is(self._structured), num_parallel_calls=self._threads)

    def _chunks(self) -> Iterator[tuple[Any, ...]]:
        number = self._start()
        try:
            for rows in self._of.packed(self.begun[number], self._options, self._decoder, self._threads):
                yield tuple(self._found(number, self._form.packed(rows)))
        except DtapError as error:
            yield tuple(self._failed(error))
        except RuntimeError as error:
            if "shutdown" not in str(error):  # at the end of the program, in which pools refuse tasks
                raise
