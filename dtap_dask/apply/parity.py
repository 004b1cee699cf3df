"""Rows of the lake through the fitted features, as `dtap_dask.transform` applies them, compared with their records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.apply.rows import as_batch
from dtap_dask.errors import DataError
from dtap_dask.features import FittedState, Rows, Transform
from dtap_dask.features.columns.column import Array
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.serving import of_new_rows
from dtap_dask.features.graph.value import in_order
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.steps.operation import Operation, Source
from dtap_dask.lake.derived import RawColumns

_TINY = float(np.finfo(np.float32).tiny)  # TensorFlow may take smaller numbers for 0
SUM_ULPS = 4  # of float32, by which sums over a block may differ; others by one


@dataclass(frozen=True)
class Difference:
    """A row whose feature differs: the values of its raw columns, and of the feature in the record and as made now.

    `feature` is None where the features refuse the row, and `made` then says why.
    """

    row: int
    given: dict[str, Any]
    feature: str | None
    recorded: Any
    made: Any

    def __str__(self) -> str:
        given = ", ".join(f"{name} {value!r}" for name, value in self.given.items())
        if self.feature is None:
            return f"the row {given} is in the records, and dtap_dask.transform refuses it: {self.made}"
        return (
            f"feature {self.feature!r} is {self.recorded!r} in the records and {self.made!r} by dtap_dask.transform, "
            f"for {given}"
        )


class RecordComparison:
    """Compares rows with their records; `raw` is what the rows must have."""

    def __init__(self, state: FittedState, columns: RawColumns, written: Transform | None = None):
        """`written` is the transform of the records, whose lookup tables are shared: those of many words are large."""
        features = of_new_rows(state)
        self.raw = columns.needed_for(features.graph.columns)
        self._transform = Transform(features, written)
        self._outputs = features.graph.outputs
        self._out_of_fold = {one.name for one in state.graph.outputs if _has_folds(one.values)}

    def differences(self, rows: pa.Table, recorded: Rows, fitted: npt.NDArray[np.bool_]) -> list[Difference]:
        """What differs, feature by feature. Rows of the fitted part have features of their own where these are made out
        of fold: they are not compared."""
        try:
            made = self._transform.apply(self.raw.with_derived(as_batch(rows, self.raw.schema)))
        except DataError as error:
            if rows.num_rows > 1:
                return [one for row in range(rows.num_rows) for one in self._alone(row, rows, recorded, fitted)]
            return [Difference(0, _values(rows, 0), None, None, str(error))]
        found = []
        for info, output in zip(self._transform.infos, self._outputs, strict=True):
            wrong = ~same(made[info.name], recorded[info.name], info, output)
            if info.name in self._out_of_fold:
                wrong &= ~fitted
            named = rows.select(self.raw.needed_for(info.columns).schema.names)
            for row in np.flatnonzero(wrong).tolist():
                values = _plain(recorded[info.name], row), _plain(made[info.name], row)
                found.append(Difference(row, _values(named, row), info.name, *values))
        return found

    def _alone(self, row: int, rows: pa.Table, recorded: Rows, fitted: npt.NDArray[np.bool_]) -> Iterator[Difference]:
        one = {name: values[row : row + 1] for name, values in recorded.items()}
        for found in self.differences(rows.slice(row, 1), one, fitted[row : row + 1]):
            yield Difference(row, found.given, found.feature, found.recorded, found.made)


def _has_folds(values: Any) -> bool:
    return any(isinstance(one.operation, Source) and one.operation.folds for one in in_order(values))


def same(
    made: Array | pa.Array, recorded: Array | pa.Array, info: FeatureInfo, output: Output
) -> npt.NDArray[np.bool_]:
    """Whether each row of a feature is the same, as [n]: see `same_numbers`; text is equal."""
    if not isinstance(made, pa.Array):
        width = int(np.prod(made.shape[1:], dtype=np.int64))
        return same_numbers(
            made.reshape(len(made), width), np.asarray(recorded).reshape(len(made), width), info, output
        )
    pairs = zip(made, recorded, strict=True)
    return np.array([_same_element(a, b, info, output) for a, b in pairs], np.bool_)


def _same_element(made: pa.Scalar, recorded: pa.Scalar, info: FeatureInfo, output: Output) -> bool:
    """Whether a text or a list is the same."""
    if info.dtype == "bytes" or not (made.is_valid and recorded.is_valid):
        return bool(made.as_py() == recorded.as_py())
    ours, theirs = (one.values.to_numpy(zero_copy_only=False)[None] for one in (made, recorded))
    return ours.shape == theirs.shape and bool(same_numbers(ours, theirs, info, output)[0])


def precision_floor(output: Output) -> float:
    """The largest of its operations: its numbers below that are as exact as that."""
    return max((step.precision_floor for step in _steps(output)), default=0.0)


def _steps(output: Output) -> list[Operation]:
    return [one.operation for one in in_order(output.values) if isinstance(one.operation, Operation)]


def same_numbers(made: Array, recorded: Array, info: FeatureInfo, output: Output) -> npt.NDArray[np.bool_]:
    """Whether the rows of [n, k] are the same, as [n]: equal, or floats within a unit in the last place of float32.

    That is of float16 where this is stored. Sums over a block may differ by four units of the row's largest. Numbers
    below the `precision_floor` are as exact as that; 1.2e-38 is no difference.
    """
    equal = made == recorded
    if np.dtype(info.stored).kind == "f":
        kind = np.float16 if info.stored == "float16" else np.float32
        ours, theirs = made.astype(np.float64), recorded.astype(np.float64)
        sums = any(step.on_block for step in _steps(output))
        with np.errstate(over="ignore", invalid="ignore"):
            size = np.where(np.isfinite(theirs), np.abs(theirs), 0)
            if sums:
                size = size.max(1, initial=0, keepdims=True)
            unit = np.spacing(np.maximum(size, precision_floor(output)).astype(kind)).astype(np.float64)
            bound = np.maximum((SUM_ULPS if sums else 1) * unit, _TINY)
            equal |= (np.isnan(ours) & np.isnan(theirs)) | (np.abs(ours - theirs) <= bound)
    return np.asarray(equal.all(1))


def _plain(values: Array | pa.Array, row: int) -> Any:
    one = values[row]
    return one.as_py() if isinstance(one, pa.Scalar) else one.tolist()


def _values(rows: pa.Table, row: int) -> dict[str, Any]:
    return {name: rows[name][row].as_py() for name in rows.column_names}
