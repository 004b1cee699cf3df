"""Exact conversion of literals and text to values of a type, and the grid that the values of a type form."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.types import MAX_PRECISION, family

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
DAY = 86_400 * 10**9
_EPOCH = dt.date(1970, 1, 1).toordinal()
_TRUE = frozenset(("true", "t", "yes", "y", "1"))
_FALSE = frozenset(("false", "f", "no", "n", "0"))
_MINUTES = r":(\d{1,2})(?::(\d{1,2})(?:\.(\d+))?)?"
_ZONE = r"\s*(Z|UTC|[+-]\d{2}(?::?\d{2})?)?"
_INSTANT = re.compile(rf"\s*(\d{{4}})-(\d{{1,2}})-(\d{{1,2}})(?:[ T](\d{{1,2}})(?:{_MINUTES})?{_ZONE})?\s*", re.ASCII)
_WIDE = Context(prec=80)
_CLOCK = re.compile(rf"\s*(\d{{1,2}}){_MINUTES}\s*", re.ASCII)
_GROUPED = re.compile(r"(?<=\d)_(?=\d)", re.ASCII)  # 1_000
_BASES = re.compile(r"0(?:x([0-9a-f_]+)|b([01_]+))", re.ASCII | re.IGNORECASE)
_BYTE = re.compile(r"\\x([0-9a-fA-F]{2})|([^\\])", re.ASCII)
_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)


def clock_ns(hour: str, minute: str | None, second: str | None, fraction: str | None) -> int:
    """Nanoseconds since midnight; ValueError if there is no such time of day."""
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        raise ValueError(f"no such time of day: {hour}:{minute or '00'}:{second or '00'}")
    part = (fraction or "")[:9].ljust(9, "0")
    return ((int(hour) * 60 + int(minute or 0)) * 60 + int(second or 0)) * 10**9 + int(part)


def instant_ns(text: str) -> tuple[int, bool]:
    """Nanoseconds since 1970 in UTC, and whether the text has a zone; ValueError if it is not a date or timestamp."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("expected YYYY-MM-DD or YYYY-MM-DD HH:MM[:SS[.fraction]][Z or +HH:MM]")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    ns = (dt.date(int(year), int(month), int(day)).toordinal() - _EPOCH) * DAY
    if hour is not None:
        ns += clock_ns(hour, minute, second, fraction)
    if zone is not None and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60 * 10**9
        ns -= offset if zone[0] == "+" else -offset
    return ns, zone is not None


def step(dtype: pa.DataType) -> Fraction:
    """The distance of a type's values: 1 for integers, 10^-scale for decimals, the unit in nanoseconds for times."""
    kind = family(dtype)
    if kind == "decimal":
        return Fraction(1, 10**dtype.scale) if dtype.scale >= 0 else Fraction(10**-dtype.scale)
    if kind == "date":
        return Fraction(DAY)
    if kind in ("timestamp", "time"):
        return Fraction(NANOSECONDS[dtype.unit])
    return Fraction(1)


def limits(dtype: pa.DataType) -> tuple[int, int]:
    """Smallest and largest number of steps a type with a grid can hold."""
    kind = family(dtype)
    if kind == "decimal":
        return -(10**dtype.precision) + 1, 10**dtype.precision - 1
    bits = 64 if kind == "timestamp" else dtype.bit_width
    if pa.types.is_unsigned_integer(dtype):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def has_grid(dtype: pa.DataType) -> bool:
    """Whether the values of a type are the multiples of `step`."""
    return family(dtype) in ("int", "decimal", "date", "timestamp", "time")


def exact(value: pa.Scalar) -> Fraction:
    """A scalar's exact value: a number, or nanoseconds for dates, timestamps and times."""
    kind = family(value.type)
    if kind in ("date", "timestamp", "time"):
        return Fraction(value.value) * step(value.type)
    return Fraction(value.as_py())


def at_step(steps: int, dtype: pa.DataType) -> pa.Scalar:
    """The scalar of `dtype` with the value `steps` * `step(dtype)`."""
    if family(dtype) == "decimal":
        return pa.scalar(Decimal(steps).scaleb(-dtype.scale, _WIDE), dtype)
    return pa.scalar(steps, dtype)


def number(text: str, *, negative: bool = False) -> pa.Scalar:
    """A numeric literal with DuckDB's type: int64, else decimal up to 38 digits; double if it has an exponent."""
    sign = -1 if negative else 1
    if text.isdigit() and -(2**63) <= sign * int(text) < 2**63:
        return pa.scalar(sign * int(text), pa.int64())
    digits = text.replace(".", "")
    if "e" in text.lower() or len(digits.lstrip("0")) > MAX_PRECISION:
        return pa.scalar(sign * float(text), pa.float64())
    scale = len(text.partition(".")[2])
    precision = min(max(len(digits), scale, 1), MAX_PRECISION)
    return pa.scalar(Decimal(("-" if negative else "") + text), pa.decimal128(precision, scale))


def round_half_away(value: Fraction) -> int:
    """The nearest integer, halves away from zero, as SQL rounds decimals."""
    size = math.floor(abs(value) + Fraction(1, 2))
    return size if value >= 0 else -size


def _boolean(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("expected true or false")
    return word in _TRUE


def _time_of_day(text: str) -> int:
    """Nanoseconds since midnight of a time, or of a date and time."""
    match = _CLOCK.fullmatch(text)
    if match is not None:
        return clock_ns(*match.groups())
    if _INSTANT.fullmatch(text):
        ns, zoned = instant_ns(text)
        if not zoned:
            return ns % DAY
    raise ValueError("expected HH:MM[:SS[.fraction]]")


def _text_value(text: str, dtype: pa.DataType) -> Fraction:
    """The exact value of `text` (as `exact` defines it) for a type with a grid."""
    kind = family(dtype)
    if kind == "time":
        return Fraction(_time_of_day(text))
    if kind in ("date", "timestamp"):
        ns, zoned = instant_ns(text)
        if zoned and not (kind == "timestamp" and dtype.tz):
            raise ValueError("it has a zone, the type has none; write TIMESTAMPTZ '...' or leave the zone out")
        return Fraction(ns)
    if kind not in ("int", "decimal"):
        raise ValueError("text cannot become this type")
    return _number_value(text, whole=kind == "int")


def _plain_number(text: str) -> str:
    """The text of a number without surrounding blanks and without underscores between digits."""
    plain = _GROUPED.sub("", text.strip())
    if not plain.isascii() or "_" in plain:
        raise ValueError("not a number")
    return plain


def _number_value(text: str, *, whole: bool) -> Fraction:
    plain = _plain_number(text)
    match = _BASES.fullmatch(plain) if whole else None
    if match is not None:
        return Fraction(int(match[1], 16) if match[1] else int(match[2], 2))
    try:
        value = Decimal(plain)
    except InvalidOperation:
        raise ValueError("not a number") from None
    if not value.is_finite() or (value and value.adjusted() > 100):
        raise ValueError("out of range")
    return Fraction(value) if not value or value.adjusted() > -1000 else Fraction(0)


def _floating(text: str, dtype: pa.DataType) -> pa.Scalar:
    """The nearest number of `dtype`; null for NaN."""
    plain = _plain_number(text).removeprefix("+")
    try:
        number = pc.cast(pa.array([plain]), dtype)[0]
    except pa.ArrowInvalid:
        raise ValueError("not a number") from None
    return pa.scalar(None, dtype) if math.isnan(number.as_py()) else number


def _binary(text: str) -> bytes:
    """Bytes of a BLOB literal as in DuckDB: ASCII characters, and \\xHH for any byte."""
    if not text.isascii() or _BYTE.sub("", text):
        raise ValueError("bytes are written as ASCII characters or \\xHH")
    return b"".join(bytes([int(code, 16)]) if code else char.encode() for code, char in _BYTE.findall(text))


def literal(text: str, dtype: pa.DataType) -> Fraction | pa.Scalar:
    """A text literal compared with a value of `dtype`: its exact value if the type has a grid, else a scalar."""
    if not has_grid(dtype):
        return parse_text(text, dtype)
    if family(dtype) == "int" and not _INTEGER.fullmatch(text):
        raise ValueError("not a whole number")
    return _text_value(text, dtype)


def parse_text(text: str, dtype: pa.DataType) -> pa.Scalar:
    """`text` as a scalar of `dtype`, rounded to its grid as by CAST; ValueError with the reason if it is not one."""
    kind = family(dtype)
    if kind == "text":
        return pa.scalar(text, dtype)
    if kind == "binary":
        return pa.scalar(_binary(text), dtype)
    if kind == "bool":
        return pa.scalar(_boolean(text), dtype)
    if kind == "float":
        return _floating(text, dtype)
    value = _text_value(text, dtype)
    if kind in ("date", "time"):
        rounded = math.floor(value / step(dtype))
    elif kind == "timestamp" and dtype.unit != "ns":  # microseconds first, as DuckDB
        rounded = round_half_away(Fraction(math.floor(value / 1000) * 1000) / step(dtype))
    else:
        rounded = round_half_away(value / step(dtype))
    low, high = limits(dtype)
    negative = kind == "int" and low == 0 and text.lstrip().startswith("-") and not _INTEGER.fullmatch(text)
    if not low <= rounded <= high or negative:
        raise ValueError("out of range")
    return at_step(rounded, dtype)
