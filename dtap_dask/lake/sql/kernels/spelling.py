"""Values as text, formatted as in DuckDB: by Arrow's kernels; value by value only where Arrow differs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.types import TEXT, Family, family

_EXPONENT_FROM, _EXPONENT_BELOW = 1e16, 1e-4  # where floats are written with an exponent
_WHOLE_FLOATS = 2.0**24  # from here on, float32 values are whole numbers, and not all are representable
_YEAR = re.compile(r"(-?\d+)(-.*)", re.DOTALL)


def to_text(values: pa.Array) -> pa.Array:
    """`values` (not null, nested or interval) as strings; ArrowInvalid for a date that cannot be written."""
    rule = _RULES.get(family(values.type))
    return pc.cast(values, TEXT) if rule is None else rule(values)


def _patched(values: pa.Array, text: pa.Array, odd: Any, spell: Callable[[Any], str]) -> pa.Array:
    """`text`, replaced by `spell` of the value where `odd` is true; called once per distinct value."""
    mask = pc.fill_null(odd, False)
    if not pc.any(mask).as_py():
        return text
    encoded = values.filter(mask).dictionary_encode()
    spelled = pa.array([spell(value.as_py()) for value in encoded.dictionary], TEXT).take(encoded.indices)
    return pc.replace_with_mask(text, mask, spelled)


def _floats(values: pa.Array) -> pa.Array:
    """The shortest digits, with an exponent from 1e16 and below 1e-4 (Arrow has other limits)."""
    text = pc.cast(values, TEXT)
    with_exponent = pc.match_substring(text, "e")
    whole = pc.invert(pc.or_(pc.match_substring(text, "."), pc.or_(with_exponent, pc.is_inf(values))))
    if pc.any(whole).as_py():
        text = pc.if_else(whole, pc.binary_join_element_wise(text, ".0", ""), text)
    if pc.any(with_exponent).as_py():
        text = pc.replace_substring_regex(text, r"e-(\d)$", r"e-0\1")
    size = pc.abs(values)
    plain = pc.or_(pc.and_(pc.less(size, _EXPONENT_FROM), pc.greater_equal(size, _EXPONENT_BELOW)), pc.equal(size, 0))
    odd = pc.and_(pc.equal(plain, with_exponent), pc.is_finite(values))
    if pa.types.is_float64(values.type):
        return _patched(values, text, odd, repr)
    halfway = _halfway(values, text)
    if pc.any(halfway).as_py():
        text = pc.if_else(halfway, _floats(pc.cast(values, pa.float64())), text)
    return _patched(values, text, pc.or_(odd, pc.greater_equal(size, _WHOLE_FLOATS)), _float32)


def _halfway(values: pa.Array, text: pa.Array) -> pa.Array:
    """Whether a float32 from 1e-4 to 2^24 is halfway between two numbers with as few digits."""
    point = pc.find_substring(text, ".")
    decimals = pc.subtract(pc.subtract(pc.binary_length(text), point), 1).fill_null(0).to_numpy()
    numbers = np.abs(values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = numbers * 10.0 ** np.clip(decimals, 0, 11)  # exact: 24 bits times 5^11
        halfway = np.abs(shifted - np.trunc(shifted)) == 0.5
    return pa.array(halfway & (numbers >= _EXPONENT_BELOW) & (numbers < _WHOLE_FLOATS))


def _float32(value: float) -> str:
    """The shortest text of a float32; that of its double where it is ambiguous to DuckDB."""
    if math.isinf(value):
        return repr(value)
    mantissa, _, power = np.format_float_scientific(np.float32(abs(value)), unique=True, trim="-").partition("e")
    digits, exponent = mantissa.replace(".", ""), int(power)
    if abs(value) >= _WHOLE_FLOATS and _unclear(abs(value), int(digits), 10 ** (exponent - len(digits) + 1)):
        return repr(value)
    sign = "-" if value < 0 else ""
    if not _EXPONENT_BELOW <= abs(value) < _EXPONENT_FROM:
        return f"{sign}{mantissa}e{exponent:+03d}"
    return f"{sign}{int(digits) * 10 ** (exponent - len(digits) + 1)}.0"


def _unclear(value: float, digits: int, unit: int) -> bool:
    """Whether `digits` units, or a number of fewer digits, are halfway to the next float32, or two are equally near."""
    fraction, power = math.frexp(value)
    doubled, gap = 2 * int(value), 2 ** (power - 24)
    if doubled % unit == 0 and doubled // unit % 2:
        return True
    borders = (doubled + gap, doubled - (gap // 2 if fraction == 0.5 else gap))
    return any(border == 2 * unit * digits or border % (20 * unit) == 0 for border in borders)


def _decimals(values: pa.Array) -> pa.Array:
    text = pc.cast(values, TEXT)
    text = _patched(values, text, pc.match_substring(text, "E"), lambda value: format(value, "f"))
    if values.type.scale == values.type.precision:  # no digit before the point
        text = pc.replace_substring_regex(text, r"^(-?)0\.", r"\1.")
    return text


def _short_clock(text: pa.Array) -> pa.Array:
    """Without trailing zeros of the fraction of a second."""
    text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
    return pc.replace_substring_regex(text, r"\.$", "")


def _days(values: pa.Array) -> pa.Array:
    text = pc.cast(values, TEXT)
    if pc.any(pc.starts_with(text, "<")).as_py():
        raise pa.ArrowInvalid("a year beyond 32767 cannot be written as text")
    return text


def _dates(values: pa.Array) -> pa.Array:
    return _before_christ(_days(values))


def _stamps(values: pa.Array) -> pa.Array:
    zone = values.type.tz
    text = _before_christ(_short_clock(_days(pc.cast(values, pa.timestamp(values.type.unit)))))
    return pc.binary_join_element_wise(text, "+00", "") if zone else text


def _before_christ(text: pa.Array) -> pa.Array:
    return _patched(text, text, pc.match_substring_regex(text, "^(-|0000)"), _years_before_christ)


def _years_before_christ(text: str) -> str:
    match = _YEAR.fullmatch(text)
    if match is None:
        raise ValueError(f"not a date: {text!r}")
    return f"{1 - int(match[1]):04d}{match[2]} (BC)"


def _bytes(values: pa.Array) -> pa.Array:
    encoded = values.dictionary_encode()
    return pa.array([_escaped(value.as_py()) for value in encoded.dictionary], TEXT).take(encoded.indices)


def _escaped(data: bytes) -> str:
    """Printable ASCII as it is, all other bytes and quotes and backslashes as \\xHH."""
    return "".join(chr(b) if 32 <= b < 127 and b not in b"\"'\\" else f"\\x{b:02X}" for b in data)


_RULES: dict[Family, Callable[[pa.Array], pa.Array]] = {
    "float": _floats,
    "decimal": _decimals,
    "date": _dates,
    "timestamp": _stamps,
    "time": lambda values: _short_clock(pc.cast(values, TEXT)),
    "binary": _bytes,
}
