"""Functions of text. Positions and lengths count Unicode code points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.functions.definition import Args, Function, Kernel, Types, constant, per_value, plain
from dtap_dask.lake.sql.tree import Node, describe
from dtap_dask.lake.sql.types import BOOL, INT64, TEXT, family

SPACES = "\u0020\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_FAR = 2**31  # beyond the length of any text
LONGEST = 1_000_000  # characters of one result of lpad, rpad and repeat
_BIGGEST = 2**31 - 1  # bytes of an Arrow array of text


def _slice(values: pa.Array, start: int, stop: int | None) -> pa.Array:
    """Python's values[start:stop] of each text."""
    near = max(min(start, _FAR), -_FAR)
    return pc.utf8_slice_codeunits(values, near, None if stop is None else max(min(stop, _FAR), -_FAR))


def _substring(values: pa.Array, start: int, length: int | None = None) -> pa.Array:
    """SQL's substring: `start` counts from 1, or from the end if negative; a negative length extends to the left."""
    first = start - 1 if start >= 0 else start
    if length is None:
        return _slice(values, max(first, 0) if start >= 0 else first, None)
    low, high = sorted((first, first + length))
    if start >= 0:
        return _slice(values, max(low, 0), max(high, 0))
    return _slice(values, low, high if high < 0 else None)


def _left(values: pa.Array, count: int) -> pa.Array:
    return _slice(values, 0, count)


def _right(values: pa.Array, count: int) -> pa.Array:
    return _slice(values, -count, None) if count else _slice(values, 0, 0)


def _pad(values: pa.Array, count: int, fill: str, on_left: bool) -> pa.Array:
    _bounded(count, len(values) * max(count, 0) * 4)
    kept = _slice(values, 0, max(count, 0))
    wanted = np.maximum(count - pc.utf8_length(kept).fill_null(count).to_numpy(), 0)
    if not fill and wanted.any():
        raise pa.ArrowInvalid("the text is shorter than the width, and `fill` is empty")
    repeated = fill * (max(count, 0) // max(len(fill), 1) + 1)
    lengths, places = np.unique(wanted, return_inverse=True)
    fills = pa.array([repeated[:length] for length in lengths.tolist()], TEXT).take(pa.array(places))
    return pc.binary_join_element_wise(*((fills, kept) if on_left else (kept, fills)), "")


def _repeat(values: pa.Array, count: int) -> pa.Array:
    count = max(count, 0)
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    _bounded(longest * count, (pc.sum(pc.binary_length(values)).as_py() or 0) * count)
    return pc.binary_repeat(values, count)


def _bounded(longest: int, total: int) -> None:
    if longest > LONGEST or total > _BIGGEST:
        raise pa.ArrowInvalid(f"a text may have at most {LONGEST:,} characters, and a batch of them 2 GiB")


def _replace(values: pa.Array, old: str, new: str) -> pa.Array:
    return pc.replace_substring(values, old, new) if old else values


def _translate(values: pa.Array, old: str, new: str) -> pa.Array:
    table: dict[int, str | None] = {}
    for index, char in enumerate(old):
        table.setdefault(ord(char), new[index : index + 1] or None)
    encoded = values.dictionary_encode()
    changed = [word.translate(table) for word in encoded.dictionary.to_pylist()]
    return pa.array(changed, TEXT).take(encoded.indices)


def _trim(kernel: Callable[..., Any]) -> Kernel:
    return per_value(lambda values, characters=SPACES: kernel(values, characters=characters))


def _position(values: pa.Array, part: str) -> pa.Array:
    if not part:
        return pc.if_else(values.is_valid(), 1, pa.scalar(None, INT64))
    pieces = pc.split_pattern(values, part, max_splits=1)
    before = pc.utf8_length(pc.list_element(pieces, 0))
    return pc.if_else(pc.match_substring(values, part), pc.add(before, 1), pa.scalar(0, before.type))


def _split_part(values: pa.Array, separator: str, index: int) -> pa.Array:
    if index == 0:
        return _slice(values, 0, 0)
    if not separator:  # its characters
        stop = index + 1 if index < -1 else None
        return _slice(values, index - 1, index) if index > 0 else _last_slice(values, index, stop)
    pieces = pc.split_pattern(values, separator)
    counts = pc.list_value_length(pieces).fill_null(0).to_numpy().astype(np.int64)
    place = index - 1 if index > 0 else counts + index
    known = (place >= 0) & (place < counts)
    places = pa.array(pieces.offsets.to_numpy()[:-1] + place, mask=~known)
    parts = pieces.values.take(places).fill_null("")
    return pc.if_else(values.is_valid(), parts, pa.scalar(None, TEXT))


def _last_slice(values: pa.Array, start: int, stop: int | None) -> pa.Array:
    """values[start:stop] counted from the end, empty for texts that are too short."""
    short = pc.less(pc.utf8_length(values), min(-start, _FAR - 1))
    return pc.if_else(short, "", _slice(values, start, stop))


def _length(dtype: pa.DataType, args: Args) -> Any:
    kind = args[0].type
    if pa.types.is_string(kind):
        return pc.cast(pc.utf8_length(args[0]), dtype)
    return pc.cast(pc.binary_length(args[0]) if pa.types.is_binary(kind) else pc.list_value_length(args[0]), dtype)


def _sized(name: str, args: Sequence[Node]) -> Types:
    dtype = args[0].type
    is_list = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    if not is_list and family(dtype) not in ("text", "binary", "null"):
        raise ExpressionError(
            f"{name} takes text, binary or a list, not {describe(args[0])}; CAST it first if that is meant."
        )
    return (TEXT if family(dtype) == "null" else dtype,), INT64


def _concat_ws(dtype: pa.DataType, args: Args) -> Any:
    """Argument by argument, as Arrow 26 loses rows of nulls only when it skips nulls."""
    separator, result, *values = args
    for value in values:
        longer = pc.binary_join_element_wise(result, value, separator)
        result = pc.coalesce(longer, result, value)
    return pc.if_else(pc.is_valid(separator), pc.coalesce(result, ""), pa.scalar(None, dtype))


def joined(name: str, args: Sequence[Node]) -> Types:
    """All arguments are cast to text."""
    for arg in args:
        if family(arg.type) in ("nested", "interval", "other", "binary"):
            raise ExpressionError(f"{name} takes text, not {describe(arg)}; CAST it first if that is meant.")
    return (TEXT,) * len(args), TEXT


def _from_start(args: Sequence[Node]) -> bool:
    count = constant(args, 1)
    return isinstance(count, int) and count >= 0


def _prefix_of(args: Sequence[Node]) -> bool:
    return constant(args, 1) == 1 and (len(args) == 2 or (constant(args, 2) or -1) >= 0)


TEXTS: dict[str, Function] = {
    "lower": Function("s text", TEXT, plain(pc.utf8_lower), "in lower case", "lower('ÄB')"),
    "upper": Function("s text", TEXT, plain(pc.utf8_upper), "in upper case", "upper('äb')"),
    "trim": Function(
        "s text, [characters text]",
        TEXT,
        _trim(pc.utf8_trim),
        "without the `characters` at both ends; by default every Unicode space (category Zs), but no tabs or newlines",
        "trim('  a b ')",
    ),
    "ltrim": Function(
        "s text, [characters text]", TEXT, _trim(pc.utf8_ltrim), "trim at the start only", "ltrim('xxab', 'x')"
    ),
    "rtrim": Function(
        "s text, [characters text]", TEXT, _trim(pc.utf8_rtrim), "trim at the end only", "rtrim('abxx', 'x')"
    ),
    "substring": Function(
        "s text, start integer, [length integer]",
        TEXT,
        per_value(_substring),
        "`length` characters (the rest) from `start`, which counts from 1, or from the end if it is negative",
        "substring('Chicago', 2, 3)",
        rising=_prefix_of,
    ),
    "left": Function(
        "s text, count integer",
        TEXT,
        per_value(_left),
        "the first `count` characters; all but the last -count if it is negative",
        "left('60601', 3)",
        rising=_from_start,
    ),
    "right": Function(
        "s text, count integer",
        TEXT,
        per_value(_right),
        "the last `count` characters; all but the first -count if it is negative",
        "right('60601', 2)",
    ),
    "lpad": Function(
        "s text, width integer, fill text",
        TEXT,
        per_value(lambda values, width, fill: _pad(values, width, fill, True)),
        "filled on the left with `fill` to `width` characters; cut if it is longer",
        "lpad('7', 3, '0')",
    ),
    "rpad": Function(
        "s text, width integer, fill text",
        TEXT,
        per_value(lambda values, width, fill: _pad(values, width, fill, False)),
        "filled on the right with `fill` to `width` characters; cut if it is longer",
        "rpad('ab', 5, 'xy')",
    ),
    "repeat": Function("s text, times integer", TEXT, per_value(_repeat), "written `times` times", "repeat('ab', 3)"),
    "replace": Function(
        "s text, old text, new text",
        TEXT,
        per_value(_replace),
        "each `old` replaced by `new`",
        "replace('a-b-c', '-', '')",
    ),
    "translate": Function(
        "s text, old text, new text",
        TEXT,
        per_value(_translate),
        "each character of `old` replaced by the one in its place in `new`, or removed if there is none",
        "translate('1,234.5', ',.', '.')",
    ),
    "split_part": Function(
        "s text, separator text, index integer",
        TEXT,
        per_value(_split_part),
        "part number `index` of s split at `separator`, from the end if it is negative; empty if there is none",
        "split_part('a-b-c', '-', 2)",
    ),
    "concat": Function(
        "value any...",
        joined,
        lambda dtype, args: pc.binary_join_element_wise(*args, "", null_handling="replace"),
        "all values as text, one after the other; NULL counts as empty",
        "concat('a', NULL, 1)",
        "VARCHAR",
        strict=False,
    ),
    "concat_ws": Function(
        "separator text, value any...",
        joined,
        _concat_ws,
        "all values that are not NULL as text, with `separator` between them",
        "concat_ws('-', 'a', NULL, 'b')",
        "VARCHAR",
        strict=False,
    ),
    "starts_with": Function(
        "s text, part text",
        BOOL,
        per_value(pc.starts_with),
        "whether s starts with `part`; also s ^@ part",
        "starts_with('abc', 'ab')",
    ),
    "ends_with": Function(
        "s text, part text", BOOL, per_value(pc.ends_with), "whether s ends with `part`", "ends_with('abc', 'bc')"
    ),
    "contains": Function(
        "s text, part text", BOOL, per_value(pc.match_substring), "whether `part` is in s", "contains('abc', 'b')"
    ),
    "strpos": Function(
        "s text, part text",
        INT64,
        per_value(_position),
        "where `part` first begins in s, from 1; 0 if it is not there; also position(part IN s)",
        "strpos('abc', 'c')",
    ),
    "length": Function(
        "value any",
        _sized,
        _length,
        "the number of characters of a text, bytes of binary data, or items of a list",
        "length('añb')",
        "BIGINT",
    ),
    "strlen": Function(
        "s text", INT64, plain(pc.binary_length), "the number of bytes of a text in UTF-8", "strlen('añb')"
    ),
}
