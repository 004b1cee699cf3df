"""The place of a word or an integer in a vocabulary, exact for any bytes; the vocabulary is one asset of a SavedModel.

The asset is a text file with a word a line, which TensorFlow reads itself. A line cannot hold every word, so where a
vocabulary has one with a line break or a backslash, or the empty one, the words of the file and those that are looked
up are escaped: `\\\\` for a backslash, `\\n`, `\\r`, and `\\e` for the empty word.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dtap_dask.train.serving.tensors import Tensor

_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_EMPTY = b"\\e"
_SPECIAL = re.compile(rb"[\\\n\r]")
FILE = "vocabulary.txt"


class Lookup(tf.Module):  # type: ignore[misc]
    """A table from distinct text, bytes or integers to their places, -1 for all others.

    The file of the table is in a temporary folder, which is removed with this object.
    """

    def __init__(self, values: pa.Array):
        super().__init__()
        whole = pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)
        self._dtype = tf.int64 if whole else tf.string
        self._size = len(values)
        self._escapes = False
        if self._size == 0:  # TensorFlow refuses an empty file
            return
        content = pc.cast(values.cast(pa.int64()), pa.string()) if whole else values
        words = content.cast(pa.large_binary())
        self._escapes = not whole and _is_special(words)
        path = Path(tempfile.mkdtemp(prefix="dtap_dask-"), FILE)
        weakref.finalize(self, shutil.rmtree, path.parent, ignore_errors=True)
        path.write_bytes(_lines(_escaped_words(words) if self._escapes else words))
        index = tf.lookup.TextFileIndex
        initializer = tf.lookup.TextFileInitializer(
            str(path),
            key_dtype=self._dtype,
            key_index=0 if whole else index.WHOLE_LINE,
            value_dtype=tf.int64,
            value_index=index.LINE_NUMBER,
            vocab_size=self._size,
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    def __call__(self, values: Tensor) -> Tensor:
        """The places, int64, of string or int64 values of any shape."""
        if self._size == 0:
            return tf.fill(tf.shape(values), tf.constant(-1, tf.int64))
        return self.table.lookup(_escaped(values) if self._escapes else values)


def _is_special(words: pa.Array) -> bool:
    """Whether a word cannot be a line as it is."""
    block = memoryview(words.buffers()[2] or b"")
    return pc.min(pc.binary_length(words)).as_py() == 0 or _SPECIAL.search(block) is not None


def _escaped_words(words: pa.Array) -> pa.Array:
    for char, escape in _ESCAPES.items():
        words = pc.replace_substring(words, char, escape)
    return pc.if_else(pc.equal(pc.binary_length(words), 0), pa.scalar(_EMPTY, words.type), words)


def _lines(words: pa.Array) -> memoryview:
    """The words with a line break after each."""
    ended = pc.binary_join_element_wise(words, pa.scalar(b"\n", words.type), pa.scalar(b"", words.type))
    return memoryview(ended.buffers()[2])


def _escaped(values: Tensor) -> Tensor:
    for pattern, escape in ((r"\\", r"\\\\"), (r"\n", r"\\n"), (r"\r", r"\\r")):
        values = tf.strings.regex_replace(values, pattern, escape)
    return tf.where(values == b"", tf.constant(_EMPTY), values)
