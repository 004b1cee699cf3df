"""Twins of the functions of regular expressions and of LIKE: RE2 computes them here as it does in Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dtap_dask.lake.sql.evaluate import like_regex
from dtap_dask.lake.sql.functions.regexp import around, with_options
from dtap_dask.lake.sql.tree import Like
from dtap_dask.train.serving.sql.tensor import SqlTensor, Twin, strict
from dtap_dask.train.serving.sql.texts import ANYTHING, in_case
from dtap_dask.train.serving.tensors import Tensor


def _options(given: SqlTensor | None) -> str:
    return given.constant if given is not None else ""


def _anywhere(pattern: str) -> str:
    return f"{ANYTHING}(?:{pattern}){ANYTHING}"


def _matches(dtype: pa.DataType, given: SqlTensor, pattern: SqlTensor, options: SqlTensor | None = None) -> Tensor:
    return tf.strings.regex_full_match(given.values, _anywhere(with_options(pattern.constant, _options(options))))


def _full_match(dtype: pa.DataType, given: SqlTensor, pattern: SqlTensor, options: SqlTensor | None = None) -> Tensor:
    return tf.strings.regex_full_match(given.values, f"(?:{with_options(pattern.constant, _options(options))})")


def _extract(dtype: pa.DataType, given: SqlTensor, pattern: SqlTensor, *more: SqlTensor) -> Tensor:
    group = more[0].constant if more else 0
    regex = with_options(pattern.constant, _options(more[1] if len(more) > 1 else None))
    wrapped, place = (around(f"({regex})"), 1) if group == 0 else (around(regex), group)
    try:
        pc.replace_substring_regex(pa.nulls(1, pa.string()), wrapped, rf"\{place}")
    except pa.ArrowInvalid:  # the pattern has no such group
        return tf.zeros_like(given.values)
    found = tf.strings.regex_replace(given.values, wrapped, rf"\{place}", replace_global=False)
    return tf.where(tf.strings.regex_full_match(given.values, _anywhere(regex)), found, tf.constant(""))


def _replace(dtype: pa.DataType, given: SqlTensor, pattern: SqlTensor, new: SqlTensor, *more: SqlTensor) -> Tensor:
    options = _options(more[0] if more else None)
    regex = with_options(pattern.constant, options)
    return tf.strings.regex_replace(given.values, regex, new.constant, replace_global="g" in options)


def like(node: Like, values: Any) -> Any:
    """Whether each text matches the pattern of LIKE."""
    pattern = node.pattern
    if node.ignore_case:  # as DuckDB; RE2 would ignore case as regular expressions do
        values, pattern = in_case(values, upper=False), pc.utf8_lower(pattern).as_py()
    return tf.strings.regex_full_match(values, like_regex(pattern))


REGEXP_TWINS: dict[str, Twin] = {
    "regexp_matches": strict(_matches),
    "regexp_full_match": strict(_full_match),
    "regexp_extract": strict(_extract),
    "regexp_replace": strict(_replace),
}
