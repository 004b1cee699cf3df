"""Text as numbers: values, where the text is none, and where this cannot be decided here.

What lake.sql.literals reads beyond the usual spelling of a number (1_000, 0xff, 12.0 as an integer) is not computed
here, and never taken for something else.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dtap_dask.train.serving.tensors import Tensor

_SPACE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]*"  # of Python
_INTEGER = r"[+-]?0*[0-9]{1,18}"
_LARGE_INTEGER = r"[+-]?0*[1-9][0-9]{18}"
_ODD_INTEGER = r"(?i)[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+e[+-]?[0-9]+)(e[+-]?[0-9]+)?|0x[0-9a-f_]+|0b[01_]+"
_FLOAT = r"(?i)\+?-?([0-9]{1,300}\.?[0-9]{0,300}|\.[0-9]{1,300})(e[+-]?[0-9]{1,2})?"
_ODD_FLOAT = r"(?i)\+?-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|\+?-?nan\(.*\)"
_INFINITE = r"(?i)\+?-?inf(inity)?"
_NAN = r"(?i)\+?-?nan"


def _number_text(values: Tensor) -> Tensor:
    """Without surrounding blanks and without underscores between digits."""
    text = tf.strings.regex_replace(values, rf"\A{_SPACE}|{_SPACE}\z", "")
    for _ in range(2):  # 1_2_3: matches do not overlap
        text = tf.strings.regex_replace(text, "([0-9])_([0-9])", r"\1\2")
    return text


def _matches(values: Tensor, pattern: str) -> Tensor:
    return tf.strings.regex_full_match(values, pattern)


def boolean(values: Tensor) -> Any:
    """True or false."""
    true = _matches(values, "(?i)(true|t|yes|y|1)")
    return true, ~true & ~_matches(values, "(?i)(false|f|no|n|0)")


def whole_number(values: Tensor, low: int, high: int) -> Any:
    """int64 from `low` to `high`, of at most 18 digits."""
    text = _number_text(values)
    plain = _matches(text, _INTEGER)
    number = tf.strings.to_number(tf.where(plain, text, tf.constant("0")), tf.int64)
    unknown = ~plain & _matches(text, f"{_LARGE_INTEGER}|{_ODD_INTEGER}")
    return number, ~(plain | unknown) | (number < low) | (number > high), unknown


def floating(values: Tensor, dtype: Any) -> Any:
    """The nearest float; NaN is null."""
    text = _number_text(values)
    plain, endless, none = (_matches(text, pattern) for pattern in (_FLOAT, _INFINITE, _NAN))
    unknown = ~plain & _matches(text, _ODD_FLOAT)
    spelt = tf.strings.regex_replace(tf.where(plain, text, tf.constant("0")), r"\A\+", "")
    number = tf.strings.to_number(spelt, dtype)
    infinity = tf.constant(float("inf"), dtype)
    number = tf.where(endless, tf.where(_matches(text, r"\+?-.*"), -infinity, infinity), number)
    number = tf.where(none, tf.constant(float("nan"), dtype), number)
    return number, ~(plain | endless | none | unknown), unknown
