"""A transformer of scikit-learn, dask-ml or a module that the user allows, as a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, JsonValue

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array, Column, Floats, Numbers, numbers
from dtap_dask.features.statistics.rows import RowSample
from dtap_dask.features.steps.fitted_objects import NotPlainError, decoded, encoded, state_of
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    Inverse,
    Need,
    Operation,
    Source,
    StatisticSpec,
    need_values,
    refuse_infinities,
)
from dtap_dask.features.steps.transformers import transformer
from dtap_dask.features.steps.valuetype import Unfit, ValueType
from dtap_dask.lake.split import ROW_FOLDS

COMPARED_ROWS = 4096
"""How many rows of the sample are transformed, to compare results."""

SINGLE_ROWS = 256
"""How many of them are transformed one by one, too, to see whether a row depends on others."""

NEAR = 1e-6
"""By how much results may differ, as a share of the largest: matrices are multiplied in another order."""


class Estimator(Operation):
    """What a transformer makes of the columns of a block side by side, as float64; a vector, also of one number.

    It is fitted on a sample of `rows` rows, or by dask-ml on all rows, and must give the same results when it is fitted
    twice, and for a row whatever other rows are beside it. Rows with a null are null; imputers get them. What it has
    learnt is kept as plain data, see fitted_objects. Fitted: `estimator_` and `arrays_`, its attributes;
    `input_widths_`, of each input the places of a vector, 0 for a number; `n_outputs_`; `version_` of its library;
    `n_samples_`, how many rows it was fitted on.
    """

    name: ClassVar[str] = "estimator"
    scalar: ClassVar[str | None] = "path"
    on_block: ClassVar[bool] = True

    path: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    rows: Annotated[int, Field(ge=2, le=1_000_000)] = 100_000
    output: Literal["float", "int"] = "float"

    def __hash__(self) -> int:
        return hash((self.path, self.rows, self.output))  # parameters need not be hashable

    def needs(self) -> Sequence[Need]:
        return (Source.fold(ROW_FOLDS),)

    @property
    def by_dask(self) -> bool:
        """Whether dask-ml fits it on all rows."""
        return self.path.startswith("dask_ml.")

    @property
    def fills_nulls(self) -> bool:
        """Whether it is an imputer."""
        return self.path.startswith("sklearn.impute.")

    @property
    def without_twin(self) -> str:
        return f"only Python has {self.path}"

    def check(self) -> None:
        transformer(self.path, self.parameters)

    def check_input(self, given: ValueType) -> None:
        if given.base == "list" or (given.base != "onehot" and given.width is None):
            self.number_only(given)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        made = given.joined(*others)
        nulls = frozenset() if self.fills_nulls else made.nulls
        return made.become(self.output, source=pa.float64(), nulls=nulls, width=0)

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(RowSample, (self.rows, self.fills_nulls))

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return int(fitted["n_outputs_"])

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        named = [self.parameters.get(name) for name in ("n_components", "n_clusters")]
        known = next((value for value in named if isinstance(value, int)), None)
        return {"n_outputs_": known or 1}, {"n_outputs_": known or 64}

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context)
        return self.learnt(self.fitted_on(statistic.rows, context), statistic, context)

    def fitted_on(self, rows: Any, context: ErrorContext) -> Any:
        """A transformer fitted on rows [n, places]. DataError where that fails."""
        if self.by_dask:
            rows = import_module("dask.array").from_array(rows, chunks=rows.shape)
        with self.refusing(context, "be fitted"):
            return transformer(self.path, self.parameters).fit(rows)

    @contextmanager
    def refusing(self, context: ErrorContext, what: str) -> Iterator[None]:
        """Turn whatever the transformer raises into a DataError: it cannot do `what`."""
        try:
            yield
        except (DataError, MemoryError):
            raise
        except Exception as error:
            why = " ".join(str(error).split()).rstrip(".")[:400]
            raise DataError(
                f"{self.path} ({context}) cannot {what}: {type(error).__name__}: {why}. Change its `parameters`, or "
                "the steps before it."
            ) from error

    def learnt(self, found: Any, statistic: RowSample, context: ErrorContext) -> Fitted:
        """A fitted transformer as plain data, after it has passed all checks on the sample."""
        sample, rows = statistic.rows, statistic.rows[:COMPARED_ROWS]
        made = self.applied(found, rows, context)
        one = self.fitted_on(sample.copy(), context) if self.by_dask else found
        other = self.fitted_on(sample.copy(), context)
        if not _near(self.applied(one, rows, context), self.applied(other, rows, context)):
            raise DataError(
                f"Fitted twice on the same rows, {self.path} ({context}) gives different results. Fix what it draws, "
                "with its parameter for random numbers if it has one, or use another transformer."
            )
        self._check_rows(found, rows, made, context)
        arrays: list[bytes] = []
        fitted = {
            "estimator_": self._plain(found, arrays, context),
            "input_widths_": statistic.widths,
            "n_outputs_": made.shape[1],
            "n_samples_": statistic.count if self.by_dask else len(sample),
            "version_": _version(found),
            "arrays_": pa.array(arrays, pa.large_binary()),
        }
        if not _near(self.applied(self.restored(fitted), rows, context), made):
            raise DataError(
                f"What {self.path} ({context}) has learnt cannot be kept: read back, it gives other results. Use "
                "another transformer."
            )
        return fitted

    def _plain(self, found: Any, arrays: list[bytes], context: ErrorContext) -> Any:
        try:
            state = state_of(found, without=list(found.get_params(deep=False)))
            return {name: encoded(value, arrays) for name, value in state.items()}
        except NotPlainError as error:
            raise DataError(
                f"What {self.path} ({context}) has learnt holds {error}, and only numbers, text and arrays are kept: "
                "pickles would run code when a dataset is opened. Use another transformer."
            ) from error

    def _check_rows(self, found: Any, rows: Floats, made: Floats, context: ErrorContext) -> None:
        """Refuse a transformer whose result for a row depends on the rows beside it."""
        alone = [self.applied(found, row[None], context) for row in rows[:SINGLE_ROWS]]
        same_width = all(one.shape[1] == made.shape[1] for one in alone)
        if not same_width or not _near(np.concatenate(alone), made[:SINGLE_ROWS]):
            raise DataError(
                f"{self.path} ({context}) gives a row other results among other rows, and rows come in batches of any "
                "size. Use another transformer."
            )

    def restored(self, fitted: Fitted) -> Any:
        """The fitted transformer. DataError where this process has none, or another release of its library."""
        try:
            made = transformer(self.path, self.parameters)
            kept, version = fitted["version_"], _version(made)
            if kept.split(".")[:2] != version.split(".")[:2]:
                raise Unfit(f"it was fitted by release {kept}, and this is {version}: install that, or fit again.")
            arrays = fitted["arrays_"].to_pylist()
            vars(made).update({name: decoded(one, arrays) for name, one in fitted["estimator_"].items()})
        except Unfit as error:
            raise DataError(f"Step estimator: {error}") from error
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise DataError(
                f"What step estimator has learnt by {self.path} was damaged. Fit and write again."
            ) from error
        return made

    def applied(self, found: Any, rows: Floats, context: ErrorContext) -> Floats:
        """What a fitted transformer makes of rows [n, places], float64 [n, k]; n is not 0."""
        with self.refusing(context, "transform rows"):
            return _dense(found.transform(rows.copy()), len(rows))

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        found, widths, outputs = self.restored(fitted), fitted["input_widths_"], fitted["n_outputs_"]

        def apply(*columns: Column) -> Column:
            block = np.column_stack([numbers(column).floats() for column in columns[: len(widths)]])
            refuse_infinities(block, context)
            null = np.asarray(np.isnan(block).any(axis=1) & (not self.fills_nulls))
            made = np.full((len(block), outputs), np.nan)
            if not null.all():
                made[~null] = self._of_width(self.applied(found, block[~null], context), outputs, context)
            return Numbers(made) if self.output == "float" else self._whole(made, null, context)

        return apply

    def _of_width(self, made: Floats, outputs: int, context: ErrorContext) -> Floats:
        if made.shape[1] != outputs or np.isnan(made).any():
            what = f"{made.shape[1]} numbers, not {outputs}," if made.shape[1] != outputs else "NaN"
            raise DataError(f"{self.path} ({context}) gives {what} for some rows. Use another transformer.")
        return made

    def _whole(self, made: Floats, null: Array, context: ErrorContext) -> Numbers:
        values = np.where(null[:, None], 0, made)
        if not (np.abs(values) < 2**63).all() or (values != np.floor(values)).any():
            raise DataError(f"{self.path} ({context}) gives numbers that are not whole. Leave out `output: int`.")
        return Numbers(values.astype(np.int64), None if not null.any() else ~null)

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """Its own inverse_transform, if it has one, of inputs that are numbers."""
        found, widths = self.restored(fitted), fitted["input_widths_"]
        if not callable(getattr(found, "inverse_transform", None)) or any(widths):
            return None

        def undo(column: Column) -> Sequence[Column]:
            block = numbers(column).floats()
            if not len(block):
                return [Numbers(np.zeros(0)) for _ in widths]
            try:
                made = _dense(found.inverse_transform(block.copy()), len(block))
            except Exception as error:
                raise ValueError(f"{self.path} fails with {type(error).__name__}: {error}") from error
            return [Numbers(np.ascontiguousarray(values)) for values in made.T]

        return undo


def _dense(made: Any, rows: int) -> Floats:
    """A result as float64 [rows, k]: a sparse matrix, a Dask array, a data frame or a vector. ValueError for others."""
    if hasattr(made, "compute"):
        made = made.compute(scheduler="synchronous")  # this may run in a task, which must not wait for other tasks
    array = np.asarray(made.toarray() if hasattr(made, "toarray") else made)
    if array.ndim == 1 and rows == 1:  # some give one row without its dimension
        array = array[None]
    if array.dtype.kind not in "biuf" or not array.size or array.ndim > 2 or len(array) != rows:
        raise ValueError(f"the result has shape {array.shape} and dtype {array.dtype}, not numbers for {rows:,} rows")
    return np.ascontiguousarray(array.reshape(rows, -1), np.float64)


def _near(one: Floats, other: Floats) -> bool:
    """Whether results are the same but for rounding."""
    largest = float(np.nanmax(np.abs(other), initial=0.0))
    return one.shape == other.shape and np.allclose(one, other, rtol=NEAR, atol=NEAR * largest, equal_nan=True)


def _version(found: Any) -> str:
    """The release of a transformer's library."""
    return str(getattr(import_module(type(found).__module__.partition(".")[0]), "__version__", ""))
