"""Twins of the functions of text, which is UTF-8. Positions and lengths count code points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dtap_dask.lake.sql.functions.text import LONGEST, SPACES
from dtap_dask.lake.sql.types import family
from dtap_dask.train.serving.sql.tensor import SqlTensor, Twin, any_of, is_null, of_values, strict
from dtap_dask.train.serving.tensors import Tensor

_FAR = 2**31 - 1
ANYTHING = "(?s:.*)"


def literal(text: str) -> str:
    """A regular expression of RE2 that matches the text."""
    return "".join(char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)


def rewritten(text: str) -> str:
    """A replacement of RE2 that gives the text."""
    return text.replace("\\", "\\\\")


def characters(values: Tensor) -> Tensor:
    """The number of code points, int64."""
    return tf.cast(tf.strings.length(values, unit="UTF8_CHAR"), tf.int64)


def piece(values: Tensor, start: Tensor, stop: Tensor | None) -> Tensor:
    """Python's values[start:stop] of each text."""
    length = characters(values)
    first = _place(start, length)
    last = length if stop is None else _place(stop, length)
    size = tf.maximum(last - first, 0)
    shape = tf.broadcast_dynamic_shape(tf.shape(values), tf.shape(size))
    places = [tf.cast(tf.broadcast_to(one, shape), tf.int32) for one in (first, size)]
    return tf.strings.substr(tf.broadcast_to(values, shape), *places, unit="UTF8_CHAR")


def _place(index: Tensor, length: Tensor) -> Tensor:
    near = tf.clip_by_value(tf.cast(index, tf.int64), -_FAR, _FAR)
    return tf.clip_by_value(tf.where(near < 0, near + length, near), 0, length)


def _substring(values: Tensor, start: Tensor, length: Tensor | None = None) -> Tensor:
    """SQL's substring: `start` counts from 1, or from the end if negative; a negative length extends to the left."""
    start = tf.clip_by_value(start, -_FAR, _FAR)
    ahead = start >= 0
    first = tf.where(ahead, start - 1, start)
    if length is None:
        return piece(values, tf.where(ahead, tf.maximum(first, 0), first), None)
    other = first + tf.clip_by_value(length, -_FAR, _FAR)
    low, high = tf.minimum(first, other), tf.maximum(first, other)
    low, high = (tf.where(ahead, tf.maximum(one, 0), one) for one in (low, high))
    return piece(values, low, tf.where(~ahead & (high >= 0), tf.constant(_FAR, tf.int64), high))


def _left(values: Tensor, count: Tensor) -> Tensor:
    return piece(values, tf.zeros_like(count), count)


def _right(values: Tensor, count: Tensor) -> Tensor:
    return piece(values, tf.where(count == 0, tf.constant(_FAR, tf.int64), -tf.maximum(count, -_FAR)), None)


def _padded(on_left: bool) -> Twin:
    def kernel(dtype: pa.DataType, given: SqlTensor, count: SqlTensor, fill: SqlTensor) -> Any:
        width, text = max(count.constant, 0), fill.constant
        kept = piece(given.values, tf.constant(0, tf.int64), tf.constant(width, tf.int64))
        wanted = width - characters(kept)
        if not text:
            return kept, wanted > 0
        fills = piece(tf.constant(text * (width // len(text) + 1)), tf.zeros_like(wanted), wanted)
        return tf.strings.join([fills, kept] if on_left else [kept, fills])

    return strict(kernel)


def _repeated(dtype: pa.DataType, given: SqlTensor, count: SqlTensor) -> Any:
    times = max(count.constant, 0)
    size = tf.cast(tf.strings.length(given.values), tf.int64)
    wrong = size > LONGEST // times if times else tf.zeros_like(size, tf.bool)
    short = tf.where(wrong, tf.constant(""), given.values)[..., tf.newaxis]
    many = tf.repeat(short, times, axis=-1)
    return tf.strings.reduce_join(many, axis=-1), wrong


def _replaced(dtype: pa.DataType, given: SqlTensor, old: SqlTensor, new: SqlTensor) -> Tensor:
    if not old.constant:
        return given.values
    return tf.strings.regex_replace(given.values, literal(old.constant), rewritten(new.constant))


def mapped(values: Tensor, sources: Sequence[int], targets: Sequence[int]) -> Tensor:
    """Each code point of `sources` (rising) replaced by the one in its place in `targets`, removed where that is -1."""
    points = tf.strings.unicode_decode(tf.reshape(values, [-1]), "UTF-8")
    known = tf.constant(sources, tf.int32)
    place = tf.minimum(tf.searchsorted(known, points.flat_values), len(sources) - 1)
    found = tf.gather(known, place) == points.flat_values
    points = points.with_flat_values(
        tf.where(found, tf.gather(tf.constant(targets, tf.int32), place), points.flat_values)
    )
    if min(targets) < 0:
        points = tf.ragged.boolean_mask(points, points >= 0)
    return tf.reshape(tf.strings.unicode_encode(points, "UTF-8"), tf.shape(values))


@lru_cache(maxsize=2)
def _case(upper: bool) -> tuple[list[int], list[int]]:
    """The code points that Arrow changes, and what to: it maps each to one."""
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    letters = pa.array(list(map(chr, points)))
    other = (pc.utf8_upper if upper else pc.utf8_lower)(letters)
    changed = np.flatnonzero(np.asarray(pc.not_equal(letters, other))).tolist()
    return [points[place] for place in changed], [ord(other[place].as_py()) for place in changed]


def in_case(values: Tensor, upper: bool) -> Tensor:
    """Text in lower or upper case."""
    return mapped(values, *_case(upper))


def _translated(dtype: pa.DataType, given: SqlTensor, old: SqlTensor, new: SqlTensor) -> Tensor:
    table: dict[int, int] = {}
    for index, char in enumerate(old.constant):
        table.setdefault(ord(char), ord(new.constant[index]) if index < len(new.constant) else -1)
    sources = sorted(table)
    return mapped(given.values, sources, [table[one] for one in sources]) if sources else given.values


def _trimmed(at_start: bool, at_end: bool) -> Twin:
    def kernel(dtype: pa.DataType, given: SqlTensor, chosen: SqlTensor | None = None) -> Tensor:
        letters, values = SPACES if chosen is None else chosen.constant, given.values
        if not letters:
            return values
        group = f"[{literal(letters)}]+"
        if at_start:
            values = tf.strings.regex_replace(values, rf"\A{group}", "", replace_global=False)
        return tf.strings.regex_replace(values, rf"{group}\z", "", replace_global=False) if at_end else values

    return strict(kernel)


def _starts(values: Tensor, part: Tensor) -> Tensor:
    return _ends_at(values, part, tf.zeros_like(tf.strings.length(values)))


def _ends(values: Tensor, part: Tensor) -> Tensor:
    return _ends_at(values, part, tf.maximum(tf.strings.length(values) - tf.strings.length(part), 0))


def _ends_at(values: Tensor, part: Tensor, start: Tensor) -> Tensor:
    """Whether `part` is in the text from the byte `start` on."""
    shape = tf.broadcast_dynamic_shape(tf.shape(values), tf.shape(part))
    given, sought, first = (tf.broadcast_to(one, shape) for one in (values, part, start))
    return tf.strings.substr(given, first, tf.strings.length(sought)) == sought


def _contained(dtype: pa.DataType, given: SqlTensor, part: SqlTensor) -> Tensor:
    return tf.strings.regex_full_match(given.values, f"{ANYTHING}{literal(part.constant)}{ANYTHING}")


def _position(dtype: pa.DataType, given: SqlTensor, part: SqlTensor) -> Tensor:
    sought = literal(part.constant)
    before = tf.strings.regex_replace(given.values, rf"\A((?s:.*?)){sought}(?s:.*)\z", r"\1", replace_global=False)
    found = tf.strings.regex_full_match(given.values, f"{ANYTHING}{sought}{ANYTHING}")
    return tf.where(found, characters(before) + 1, tf.constant(0, tf.int64))


def _split_part(dtype: pa.DataType, given: SqlTensor, separator: SqlTensor, index: SqlTensor) -> Tensor:
    at, values = index.constant, given.values
    if at == 0:
        return tf.zeros_like(values)
    if not separator.constant:  # its characters
        first = tf.constant(at - 1 if at > 0 else at, tf.int64)
        size = characters(values)
        place = tf.where(first < 0, first + size, first)
        return tf.where(place < 0, tf.constant(""), piece(values, tf.maximum(place, 0), tf.maximum(place, 0) + 1))
    parts = tf.strings.split(tf.reshape(values, [-1]), separator.constant)
    counts = parts.row_lengths()
    place = tf.constant(at - 1, tf.int64) if at > 0 else counts + at
    known = (place >= 0) & (place < counts)
    places = tf.where(known, parts.row_starts() + place, tf.zeros_like(counts))
    found = tf.gather(tf.concat([parts.flat_values, [""]], 0), places)
    return tf.reshape(tf.where(known, found, tf.constant("")), tf.shape(values))


def _length(dtype: pa.DataType, given: SqlTensor) -> Tensor:
    if family(given.type) == "text":
        return characters(given.values)
    return tf.cast(tf.strings.length(given.values), tf.int64)


def _concatenated(dtype: pa.DataType, args: Sequence[SqlTensor]) -> SqlTensor:
    texts = [one.values if one.null is None else tf.where(one.null, tf.constant(""), one.values) for one in args]
    return SqlTensor(dtype, tf.strings.join(texts), None, any_of(*(one.bad for one in args)))


def _concatenated_with(dtype: pa.DataType, args: Sequence[SqlTensor]) -> SqlTensor:
    separator, *given = args
    text, begun = tf.constant(""), tf.constant(False)
    for one in given:
        there = ~is_null(one)
        between = tf.where(begun & there, separator.values, tf.constant(""))
        text = tf.strings.join([text, between, tf.where(there, one.values, tf.constant(""))])
        begun = begun | there
    return SqlTensor(dtype, text, separator.null, any_of(*(one.bad for one in args)))


def checked(twin: Twin) -> Twin:
    """A twin that fails for bytes that are not UTF-8, as Arrow's kernels do."""

    def of_text(dtype: pa.DataType, args: Sequence[SqlTensor]) -> SqlTensor:
        made = twin(dtype, args)
        if family(args[0].type) != "text":
            return made
        wrong = ~tf.strings.regex_full_match(args[0].values, ANYTHING)
        return made.but(bad=any_of(made.bad, wrong if made.null is None else wrong & ~made.null))

    return of_text


_CODE_POINTS: dict[str, Twin] = {
    "lower": of_values(lambda values: in_case(values, upper=False)),
    "upper": of_values(lambda values: in_case(values, upper=True)),
    "trim": _trimmed(True, True),
    "ltrim": _trimmed(True, False),
    "rtrim": _trimmed(False, True),
    "substring": of_values(_substring),
    "left": of_values(_left),
    "right": of_values(_right),
    "lpad": _padded(True),
    "rpad": _padded(False),
    "replace": strict(_replaced),
    "translate": strict(_translated),
    "split_part": strict(_split_part),
    "contains": strict(_contained),
    "strpos": strict(_position),
    "length": strict(_length),
}
TEXT_TWINS: dict[str, Twin] = {
    **{name: checked(twin) for name, twin in _CODE_POINTS.items()},
    "repeat": strict(_repeated),
    "concat": _concatenated,
    "concat_ws": _concatenated_with,
    "||": of_values(lambda *texts: tf.strings.join(texts)),
    "starts_with": of_values(_starts),
    "ends_with": of_values(_ends),
    "strlen": of_values(lambda values: tf.cast(tf.strings.length(values), tf.int64)),
}


def before(a: Tensor, b: Tensor) -> Tensor:
    """Whether text or bytes `a` comes before `b`, byte by byte."""
    shape = tf.broadcast_dynamic_shape(tf.shape(a), tf.shape(b))
    a, b = (tf.reshape(tf.broadcast_to(one, shape), [-1]) for one in (a, b))
    sizes = [tf.strings.length(one) for one in (a, b)]
    width = tf.reduce_max(tf.concat([*sizes, [1]], 0))
    left, right = (tf.io.decode_raw(one, tf.uint8, fixed_length=width) for one in (a, b))
    place = tf.argmax(tf.cast(left != right, tf.uint8), axis=1, output_type=tf.int32)  # of the first difference, or 0
    first, second = (tf.gather(one, place, axis=1, batch_dims=1) for one in (left, right))
    return tf.reshape(tf.where(first == second, sizes[0] < sizes[1], first < second), shape)
