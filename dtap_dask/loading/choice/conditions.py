"""Conditions on the rows of a dataset: SQL over its columns, computed on decoded rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dtap_dask.errors import DataError, ExpressionError, Problem
from dtap_dask.features.columns.column import Mask
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.lake.sql.expression import Expression, parse_sql
from dtap_dask.lake.sql.types import BOOL
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.shards.decode import Decoder, parts_of
from dtap_dask.records import columns


@dataclass(frozen=True)
class Condition:
    """A SQL condition, and the columns that it reads."""

    expression: Expression
    infos: tuple[FeatureInfo, ...]

    def true_of(self, decoder: Decoder, packed: Rows, among: Mask) -> Mask:
        """Which of the packed rows `among` it is true of, bool [rows]. DataError where it cannot be computed."""
        arrays = [_of_type(decoder, packed, info) for info in self.infos]
        batch = pa.RecordBatch.from_arrays(arrays, [info.name for info in self.infos])
        found = among.copy()
        kept = self.expression.keep(batch if among.all() else batch.filter(pa.array(among)))
        found[among] = kept.to_numpy(zero_copy_only=False)
        return found


def condition_of(split: DatasetSplit, where: Any, problems: list[Problem]) -> Condition | None:
    """The condition over scalar columns of any role, in the dtypes that `load` delivers; adds what is wrong with it."""
    scalars = {info.name: info for info in split.infos if info.shape == ()}
    schema = pa.schema([(name, _type_of(info)) for name, info in scalars.items()])
    wide = {info.name.lower(): info for info in split.infos if info.shape != ()}
    try:
        parsed = parse_sql(where)
        named = [wide[name.lower()] for name in parsed.columns if name.lower() in wide]
        if named:
            raise ExpressionError(f"{named[0].name!r} has several values in each row; a condition takes scalar columns")
        expression = parsed.bind(schema)
        if expression.type not in (BOOL, pa.null()):
            raise ExpressionError(f"{where!r} gives {expression.type}, not true or false; compare it with something")
        if not expression.columns:
            raise ExpressionError(f"{where!r} names no column of the dataset, so that it is the same for all rows")
    except ExpressionError as error:
        problems.append(Problem("where", str(error)))
        return None
    return Condition(expression, tuple(info for name, info in scalars.items() if name in expression.columns))


def scalar_column(decoder: Decoder, packed: Rows, info: FeatureInfo) -> pa.Array:
    """A scalar column of packed rows, [rows], in the dtype that `load` delivers; text is large_binary."""
    if columns.is_text(info):
        return packed[f"{info.name}/values"]
    ((stored, part),) = parts_of(decoder.spans, {info.name})
    return pa.array(packed[stored][:, part.start].astype(info.dtype))


def _of_type(decoder: Decoder, packed: Rows, info: FeatureInfo) -> pa.Array:
    try:
        return scalar_column(decoder, packed, info).cast(_type_of(info))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Column {info.name!r} has bytes that are not UTF-8 text, so that `where` cannot read it. Use other "
            "columns in the condition."
        ) from error


def _type_of(info: FeatureInfo) -> pa.DataType:
    return pa.large_string() if columns.is_text(info) else pa.from_numpy_dtype(np.dtype(info.dtype))
