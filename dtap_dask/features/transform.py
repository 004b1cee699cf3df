"""The fitted steps applied to batches: rows of the lake in, columns as records hold them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from dtap_dask.errors import DataError, DtapError
from dtap_dask.features.checks import can_clip, infinite, negative, null_is_wrong
from dtap_dask.features.column import Array, Column, Decimals, Lists, Numbers, Text, numbers
from dtap_dask.features.decimals import spelled, whole
from dtap_dask.features.elementwise import Log1p
from dtap_dask.features.feature import Chain, Feature, Lane
from dtap_dask.features.fit import feature_names
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.output import LaneOutput, feature_info, lane_outputs, list_output
from dtap_dask.features.pipeline import Pipeline
from dtap_dask.features.program import Program
from dtap_dask.features.quoting import condition, sql_name
from dtap_dask.features.reduce import stack
from dtap_dask.features.remedy import cures, remedy
from dtap_dask.features.state import FittedState
from dtap_dask.features.step import ErrorContext, unforeseen

Rows = dict[str, Array | pa.Array]
Make = Callable[[list[Column]], Any]


class Transform:
    """A fitted pipeline as a function of record batches.

    `infos` describes the output columns; `apply` gives them by name: fixed-width ones as C-contiguous NumPy arrays
    [n] or [n, k] of `FeatureInfo.stored`, text as large_binary, lists as large_list.
    """

    def __init__(self, pipeline: Pipeline, state: FittedState | None = None):
        if pipeline.levels and (state is None or state.levels < pipeline.levels):
            raise ValueError(f"the state has {state.levels if state else 0} of {pipeline.levels} levels")
        self._state = state or FittedState(pipeline.specs, pipeline.schema, 0, 0, {})
        fitted = {chain: value for chain, value in self._state.fitted.items() if isinstance(chain, Chain)}
        chains = [lane.result for feature in pipeline.features for lane in feature.lanes]
        self._program = Program(chains, fitted, feature_names(pipeline))
        self._pipeline = pipeline
        self._outputs = [lane_outputs(feature, self._state) for feature in pipeline.features]
        self.infos: tuple[FeatureInfo, ...] = tuple(
            feature_info(feature, outputs, self._state)
            for feature, outputs in zip(pipeline.features, self._outputs, strict=True)
        )

    def apply(self, rows: pa.RecordBatch) -> Rows:
        """The output columns of a batch. DataError for a null, an infinity or an unseen value that is not allowed."""
        columns = self._program.run(rows)
        made: Rows = {}
        try:
            for feature, outputs, info in zip(self._pipeline.features, self._outputs, self.infos, strict=True):
                made[info.name] = self._feature(feature, outputs, info, columns)
        except (DtapError, MemoryError):
            raise
        except Exception as error:
            failed = self.infos[len(made)]
            raise unforeseen(ErrorContext(failed.name, ", ".join(failed.columns[:4]), "output"), error) from error
        return made

    def _feature(
        self, feature: Feature, outputs: tuple[LaneOutput, ...], info: FeatureInfo, columns: list[Column]
    ) -> Array | pa.Array:
        results = [columns[self._program.places[lane.result]] for lane in feature.lanes]
        if feature.indicator is not None:
            return _missing(results, info)
        for lane, result in zip(feature.lanes, results, strict=True):
            self._refuse_nulls(feature, lane, result, columns)
        if isinstance(results[0], Text) or (isinstance(results[0], Decimals) and feature.spec.role == "kept"):
            return results[0].plain() if isinstance(results[0], Text) else _kept(results[0], info)
        if isinstance(results[0], Lists):
            self._refuse_infinite(feature, feature.lanes[0], results[0].infinities(), columns)
            made = list_output(results[0], info)
            self._refuse_infinite(feature, feature.lanes[0], Lists(made).infinities(), columns)
            return made
        if feature.reduce is not None:
            fitted = self._state.fitted[feature.block]
            block = feature.reduce.project(fitted, stack([numbers(result).floats() for result in results]))
            return self._finite(feature, Numbers(block), info, columns)
        if len(results) == 1 and not feature.spec.vector:
            values = self._finite(feature, numbers(results[0]), info, columns)
            return values.reshape(len(values), *info.shape)
        return self._vector(feature, outputs, [numbers(result) for result in results], info, columns)

    def _vector(
        self, feature: Feature, outputs: tuple[LaneOutput, ...], results: list[Numbers], info: FeatureInfo,
        columns: list[Column],
    ) -> Array:  # fmt: skip
        rows = len(results[0]) if results else 0
        block = np.empty((rows, sum(output.width for output in outputs)), np.dtype(info.stored))
        at = 0
        for lane, result, output in zip(feature.lanes, results, outputs, strict=True):
            values = result.floats() if block.dtype.kind == "f" else result.values
            self._refuse_narrow(feature, lane, values, block.dtype)
            with np.errstate(over="ignore"):
                block[:, at : at + output.width] = values if values.ndim == 2 else values[:, None]
            at += output.width
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            for lane, result in zip(feature.lanes, results, strict=True):
                with np.errstate(over="ignore"):
                    count = Numbers(result.floats().astype(block.dtype)).infinities()
                self._refuse_infinite(feature, lane, count, columns)
        return block

    def _finite(self, feature: Feature, result: Numbers, info: FeatureInfo, columns: list[Column]) -> Array:
        """The values in their stored dtype, checked for infinities."""
        values = result.values
        dtype = np.dtype(info.stored)
        self._refuse_narrow(feature, feature.lanes[0], values, dtype)
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                values = values.astype(dtype, copy=False)
            if not np.isfinite(values).all():
                self._refuse_infinite(feature, feature.lanes[0], Numbers(values).infinities(), columns)
        elif dtype.kind == "f":
            values = result.floats().astype(dtype)
        if feature.spec.role == "weight" and (values < 0).any():
            raise negative(int((values < 0).sum()), feature.lanes[0].column)
        return np.ascontiguousarray(values.astype(dtype, copy=False))

    @staticmethod
    def _refuse_narrow(feature: Feature, lane: Lane, values: Array, dtype: np.dtype[Any]) -> None:
        """DataError for integers that the stored dtype would wrap."""
        if values.dtype.kind not in "iu" or dtype.kind not in "iu" or np.can_cast(values.dtype, dtype):
            return
        limits = np.iinfo(dtype)
        if len(values) == 0 or (limits.min <= int(values.min()) and int(values.max()) <= limits.max):
            return
        raise _beyond(lane.column, feature.spec.name, dtype.name, feature.spec.role)

    def _refuse_nulls(self, feature: Feature, lane: Lane, result: Column, columns: list[Column]) -> None:
        if not null_is_wrong(feature, lane):
            return
        nulls = result.nulls()
        if nulls is None:
            return
        made, do = "", remedy([(lane.column, cures(feature, lane))])
        for count, step in enumerate(lane.steps, 1):
            before = columns[self._program.places[lane.chain(count - 1)]].nulls()
            after = columns[self._program.places[lane.chain(count)]].nulls()
            if before is None and after is not None:
                made = f" by step {step.name}, which has no result for them"
                if isinstance(step, Log1p):
                    rows = condition(f"{sql_name(lane.column)} is null or {sql_name(lane.column)} > -1")
                    do = f"Put `clip: {{min: 0}}` before it, or leave such rows out with {rows}."
        name = "" if feature.spec.name == lane.column else f" (feature {feature.spec.name!r})"
        raise DataError(
            f"{int(nulls.sum()):,} of {len(nulls):,} rows of a batch of column {lane.column!r}{name} are null (or NaN)"
            f"{made or ' and would reach the output'}. {do}"
        )

    def _refuse_infinite(self, feature: Feature, lane: Lane, count: int, columns: list[Column]) -> None:
        if not count:
            return
        at = f"output as {'float32' if feature.reduce is None else feature.reduce.name}"
        for taken in range(len(lane.steps) + 1):
            if columns[self._program.places[lane.chain(taken)]].infinities():
                at = lane.steps[max(taken - 1, 0)].name if lane.steps else "passthrough"
                break
        raise infinite(count, lane.column, feature.spec.name, at, can_clip(feature, lane))


def _kept(column: Decimals, info: FeatureInfo) -> Array | pa.Array:
    """Decimals as they are: integers, or their digits as text."""
    if info.stored == "bytes":
        return spelled(column.array).cast(pa.large_binary())
    values, bad = whole(column.array, np.dtype(info.stored))
    if bad is not None:
        raise _beyond(info.columns[0], info.name, info.stored, "kept")
    return values


def _beyond(column: str, name: str, dtype: str, role: str) -> DataError:
    """The error for whole numbers that are larger than what they are written as."""
    way = "Put `cast: float32` with it, or encode it."
    if role == "kept":
        way = f"`derive` a column such as `cast({sql_name(column)} as varchar)` and keep that."
    return DataError(f"Column {column!r} holds integers beyond {dtype}, which is what {name!r} is written as. {way}")


def _missing(results: list[Column], info: FeatureInfo) -> Array:
    """1 where a column is null: [n], or [n, k] for a vector."""
    masks = []
    for result in results:
        nulls = result.nulls()
        masks.append(np.zeros(len(result), np.uint8) if nulls is None else nulls.astype(np.uint8))
    return np.column_stack(masks) if info.shape else masks[0]
