"""The values of fitted rows as Dask DataFrames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa

from dtap_dask.features.columns.column import Column, Decimals, Floats, Numbers, Text, elements_of, numbers, present
from dtap_dask.features.columns.decimals import spelled
from dtap_dask.features.engine.program import Program
from dtap_dask.features.graph.value import Value, in_order
from dtap_dask.features.steps.operation import ErrorContext, Fitted, Operation
from dtap_dask.features.steps.transformers import allow_estimators
from dtap_dask.job.execution.context import TaskContext
from dtap_dask.job.execution.tasks import with_retries
from dtap_dask.lake.scan import ScanTask, read_task, scan_schema

# The column of a frame that holds one column's values without their nulls.
VALUES = "values"

Make = Callable[[Sequence[Column]], pd.DataFrame]


@dataclass(frozen=True)
class Target:
    """A value to be fitted; `learnt_before` is the longest chain of values that must be fitted before it."""

    value: Value
    context: ErrorContext
    learnt_before: int

    @property
    def step(self) -> Operation:
        """The operation that learns."""
        return self.value.applied

    @property
    def inputs(self) -> tuple[Value, ...]:
        """What it learns from."""
        return self.value.inputs


@dataclass(frozen=True)
class Frames:
    """Dask DataFrames of the fitted rows, with a partition for each task, in the plain NumPy dtypes that dask-ml needs.
    A frame of one column of lists has a row for each element.

    `learnt` holds the numbers fitted so far, with which the inputs of the next steps are computed.
    """

    context: TaskContext
    tasks: tuple[ScanTask, ...]
    learnt: Mapping[Value, Fitted]

    def floats(self, values: Sequence[Value]) -> dd.DataFrame:
        """A float64 column for each value, named '0', '1', ..., NaN where null; of vectors '0.0', '0.1', ..."""
        return self._frame(_floats, tuple(values))

    def values(self, value: Value) -> dd.DataFrame:
        """A column VALUES of the non-null values in their own dtype; text as one letter for each byte, decimals as
        their digits."""
        return self._frame(_values, (value,))

    def rows(self, values: Sequence[Value]) -> dd.DataFrame:
        """A column for each value, named '0', '1', ...: floats with NaN where null, but the first is text with its
        nulls: one letter for each byte of text, the digits of integers and booleans (0, 1)."""
        return self._frame(_spelled, tuple(values))

    def keyed(self, key: Value, value: Value) -> dd.DataFrame:
        """Columns '0', the key, as the first one of `rows`, and '1', the value: floats, or text like the key."""
        return self._frame(_keyed, (key, value))

    def _frame(self, make: Make, values: tuple[Value, ...]) -> dd.DataFrame:
        fitted = {value: self.learnt[value] for value in in_order(values) if value in self.learnt}
        rows = _Rows(self.context, values, fitted, make)
        return dd.from_map(rows, self.tasks, meta=rows.empty(), label="rows", enforce_metadata=False)


@dataclass(frozen=True)
class _Rows:
    """Reads the fitted rows of a task as a frame; `make` builds the frame of a batch."""

    context: TaskContext
    values: tuple[Value, ...]
    fitted: dict[Value, Fitted]
    make: Make

    def __call__(self, task: ScanTask) -> pd.DataFrame:
        allow_estimators(*self.context.estimators)
        with self.context.secrets.redacting():  # Dask logs what tasks raise
            return with_retries(lambda: pd.concat([self.empty(), *self._batches(task)], ignore_index=True))

    def empty(self) -> pd.DataFrame:
        """The frame without rows."""
        known = scan_schema(self.context.scan)
        fields = [known.field(name) for name in self.context.scan.outputs]
        rows = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in fields], schema=pa.schema(fields))
        return self._frame(self._program(), rows)

    def _program(self) -> Program:
        return Program(self.values, self.fitted)

    def _batches(self, task: ScanTask) -> Iterator[pd.DataFrame]:
        program = self._program()
        for batch in read_task(self.context.source(), self.context.scan, task):
            mask = self.context.scan.fit_mask(batch.split)
            rows = batch.rows if mask is None else batch.rows.filter(pa.array(mask))
            if rows.num_rows:
                yield self._frame(program, rows)

    def _frame(self, program: Program, rows: pa.RecordBatch) -> pd.DataFrame:
        columns = program.run(rows)
        return self.make([elements_of(columns[program.places[value]]) for value in self.values])


def places_by_input(names: Sequence[str]) -> tuple[int, ...]:
    """Of each input the places of a vector, 0 for a number, from the names that `Frames.floats` gives its columns."""
    found = Counter(name.partition(".")[0] for name in names)
    numbers = set(names) & set(found)
    return tuple(0 if name in numbers else count for name, count in found.items())


def _floats(columns: Sequence[Column]) -> pd.DataFrame:
    made: dict[str, Floats] = {}
    for number, column in enumerate(columns):
        block = numbers(column).floats()
        places = {str(number): block} if block.ndim == 1 else {f"{number}.{at}": one for at, one in enumerate(block.T)}
        made.update(places)
    return pd.DataFrame(made)


def _spelled(columns: Sequence[Column]) -> pd.DataFrame:
    first, *others = columns
    frame = pd.DataFrame({"0": _words(first)})
    return frame.assign(**{str(number): numbers(column).floats() for number, column in enumerate(others, 1)})


def _keyed(columns: Sequence[Column]) -> pd.DataFrame:
    key, value = columns
    floats = isinstance(value, Numbers) and value.is_float
    return pd.DataFrame({"0": _words(key), "1": numbers(value).floats() if floats else _words(value)})


def _words(column: Column) -> Any:
    """Text, a letter for each byte, or the digits of numbers; with nulls."""
    if isinstance(column, Text):
        values = [None if word is None else word.decode("latin-1") for word in column.plain().to_pylist()]
    elif isinstance(column, Decimals):
        values = spelled(column.array).to_pylist()
    else:
        given = numbers(column)
        digits = given.values.astype(np.uint8) if given.values.dtype == np.bool_ else given.values
        values = pa.array(digits, mask=given.nulls()).cast(pa.string()).to_pylist()
    return pd.array(values, dtype="str")


def _values(columns: Sequence[Column]) -> pd.DataFrame:
    column = present(columns[0])
    if isinstance(column, Text):
        # not every text is UTF-8; Latin-1 has a letter for each byte, and orders text as its bytes
        words = [word.decode("latin-1") for word in column.coded.words.binary.to_pylist()]
        return pd.DataFrame({VALUES: pd.array(words, dtype="str").take(column.coded.codes)})
    if isinstance(column, Decimals):
        return pd.DataFrame({VALUES: pd.array(spelled(column.array).to_pylist(), dtype="str")})
    values = numbers(column).values
    if values.dtype.kind == "f":
        values = values.astype(np.float64) + 0.0  # -0.0 is 0.0
    return pd.DataFrame({VALUES: values.astype(np.uint8) if values.dtype.kind == "b" else values})
