"""The twins of all functions and operators: every one of lake.sql.functions.registry that is not listed as having
none."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import tensorflow as tf

from dtap_dask.train.serving.sql.arithmetic import negated, operator
from dtap_dask.train.serving.sql.casts import cast
from dtap_dask.train.serving.sql.moments import MOMENT_TWINS
from dtap_dask.train.serving.sql.numbers import NUMERIC_TWINS
from dtap_dask.train.serving.sql.regexps import REGEXP_TWINS
from dtap_dask.train.serving.sql.spelling import STRFTIME_TWIN
from dtap_dask.train.serving.sql.tensor import SqlTensor, Twin, any_of, choose, is_null, strict, unless
from dtap_dask.train.serving.sql.texts import TEXT_TWINS, before
from dtap_dask.train.serving.tensors import Tensor


def _coalesced(dtype: pa.DataType, args: Sequence[SqlTensor]) -> SqlTensor:
    """The first that is not null; what cannot be computed matters only where all before are null."""
    result = args[-1]
    for arg in reversed(args[:-1]):
        chosen = choose(~is_null(arg), arg.but(bad=None), result)
        result = chosen.but(bad=any_of(arg.bad, unless(chosen.bad, arg.bad)))
    return result.but(type=dtype)


def _extreme(larger: bool) -> Twin:
    """The largest or smallest argument that is not null."""

    def twin(dtype: pa.DataType, args: Sequence[SqlTensor]) -> SqlTensor:
        result = args[0]
        for arg in args[1:]:
            better = _less(result.values, arg.values) if larger else _less(arg.values, result.values)
            take = unless(better, arg.null) | is_null(result)
            result = choose(take, arg.but(bad=None), result.but(bad=None))
        return result.but(type=dtype, bad=any_of(*(arg.bad for arg in args)))

    return twin


def _less(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == tf.bool:
        return ~a & b
    return before(a, b) if a.dtype == tf.string else a < b


def _null_if(dtype: pa.DataType, args: Sequence[SqlTensor]) -> SqlTensor:
    first, other = args
    meet = cast(first, other.type)
    same = unless(unless(meet.values == other.values, meet.null), other.null)
    return first.but(type=dtype, null=any_of(first.null, same), bad=any_of(meet.bad, other.bad))


TWINS: dict[str, Twin] = {
    **{op: operator(op) for op in ("+", "-", "*", "/", "//", "%")},
    "negate": strict(negated),
    "date_add": operator("+"),
    "coalesce": _coalesced,
    "greatest": _extreme(larger=True),
    "least": _extreme(larger=False),
    "nullif": _null_if,
    "strftime": STRFTIME_TWIN,
    **NUMERIC_TWINS,
    **TEXT_TWINS,
    **REGEXP_TWINS,
    **MOMENT_TWINS,
}
