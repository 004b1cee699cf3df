"""Fitting in passes over the rows; each pass takes all statistics whose inputs can be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import DtapError
from dtap_dask.features.columns.column import Column
from dtap_dask.features.engine.checks import Findings, column_checks, infinite, is_testable, merged_by_column
from dtap_dask.features.engine.leaks import BATCHES, FIRST, ROWS, Suspects
from dtap_dask.features.engine.program import Program
from dtap_dask.features.graph.graph import Graph
from dtap_dask.features.graph.known import completed
from dtap_dask.features.graph.state import FittedState
from dtap_dask.features.graph.value import Value
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import ColumnStatistic, Covariance, Statistic
from dtap_dask.features.steps.elements import bound
from dtap_dask.features.steps.operation import ErrorContext, Fitted, Source, StatisticSpec, naming, unforeseen
from dtap_dask.features.steps.places import learnt

FitMask = npt.NDArray[np.bool_]  # which rows are fitted, shape [n]


@dataclass(frozen=True)
class Measure:
    """One statistic of some values; equal ones are taken once."""

    values: tuple[Value, ...]
    statistic: StatisticSpec

    @classmethod
    def of(cls, value: Value) -> Measure:
        """What a value that learns is fitted from."""
        assert value.learns is not None
        return cls(value.request.of, value.learns)


@dataclass(frozen=True)
class Partial:
    """The result of one pass over the rows of one or several tasks: statistics in the order of `measures`."""

    at: int
    fit_rows: int
    statistics: tuple[Statistic, ...]
    findings: Findings
    suspects: Suspects | None


def measures(graph: Graph, at: int) -> tuple[Measure, ...]:
    """The statistics that pass `at` takes."""
    return tuple(dict.fromkeys(Measure.of(value) for value in graph.learning(at)))


class Accumulator:
    """Takes in the batches of one task, in the pass after those of `state`; `partial` gives the result.

    `suspecting`: look for features that give the label away, in the first pass.
    """

    def __init__(self, state: FittedState, *, suspecting: bool = True):
        graph, self._at = state.graph, state.passes
        self._context = graph.context
        self._checks = merged_by_column(column_checks(graph)) if self._at == 0 else ()
        self._statistics = [(measure, measure.statistic.empty()) for measure in measures(graph, self._at)]
        sources = {value.operation.column: value for value in graph.values if isinstance(value.operation, Source)}
        self._checked = [sources[check.column] for check in self._checks]
        values = [value for measure, _ in self._statistics for value in measure.values]
        whole = [value for value in values if not value.leaves_rows_out]
        self._program = Program([*whole, *self._checked], state.fitted, graph.context)
        # values without null rows do not align with the fit mask, so they are computed from the fitted rows only
        self._without_nulls = [value for value in values if value.leaves_rows_out]
        self._fitted_only = Program(self._without_nulls, state.fitted, graph.context)
        self._findings = Findings()
        self._fit_rows = 0
        self._suspects = Suspects.of(graph) if self._at == 0 and suspecting else None
        self._suspected = 0  # batches in which labels were looked for

    def add(self, rows: pa.RecordBatch, fit: FitMask | None = None) -> None:
        """Take in a batch: every row is checked for nulls, those where `fit` is True (None: all) are fitted."""
        if fit is not None and fit.all():
            fit = None
        columns = self._program.run(rows)
        self._check(rows.num_rows, columns)
        fitted = rows.num_rows if fit is None else int(np.count_nonzero(fit))
        self._fit_rows += fitted
        if fitted:
            self._suspect(rows, fit)
            samples = {value: Sample(columns[place], fit) for value, place in self._program.places.items()}
            self._learn(samples | self._samples_without_nulls(rows, fit))

    def _learn(self, samples: dict[Value, Sample]) -> None:
        measure = None
        try:
            for measure, statistic in self._statistics:
                statistic.add(*[samples[value] for value in measure.values])
        except (DtapError, MemoryError):
            raise
        except Exception as error:
            assert measure is not None
            step = f"fitting ({measure.statistic.kind.__name__.lower()})"
            raise unforeseen(replace(self._context(measure.values[0]), step=step), error) from error

    def _suspect(self, rows: pa.RecordBatch, fit: FitMask | None) -> None:
        columns = self._suspects.columns if self._suspects and self._suspected < BATCHES else ()
        if self._suspects and columns:
            most = ROWS if self._suspected else FIRST
            some = rows.select(columns).slice(0, most)
            self._suspects.add(some if fit is None else some.filter(pa.array(fit[:most])))
            self._suspected += 1

    def _samples_without_nulls(self, rows: pa.RecordBatch, fit: FitMask | None) -> dict[Value, Sample]:
        if not self._without_nulls:
            return {}
        used = {one.operation.column for one in self._fitted_only.values if isinstance(one.operation, Source)}
        rows = rows.select(sorted(used))
        columns = self._fitted_only.run(rows if fit is None else rows.filter(pa.array(fit)))
        return {value: Sample(columns[self._fitted_only.places[value]]) for value in self._without_nulls}

    def _check(self, rows: int, columns: Sequence[Column]) -> None:
        self._findings.rows += rows
        for check, source in zip(self._checks, self._checked, strict=True):
            self._findings.count(check, columns[self._program.places[source]])

    def partial(self) -> Partial:
        """The result so far, to be sent and merged."""
        for _, statistic in self._statistics:
            statistic.settle()
        statistics = tuple(statistic for _, statistic in self._statistics)
        return Partial(self._at, self._fit_rows, statistics, self._findings, self._suspects)


def merge(partials: Sequence[Partial]) -> Partial:
    """All of at least one partial as one, in the order given; the parts stay as they are."""
    rows = sum(partial.fit_rows for partial in partials)
    findings = Findings.together(partial.findings for partial in partials)
    columns = zip(*(partial.statistics for partial in partials), strict=True)
    merged = tuple(type(parts[0]).merged(parts) for parts in columns)
    suspects = Suspects.merged([partial.suspects for partial in partials if partial.suspects is not None])
    return Partial(partials[0].at, rows, merged, findings, suspects)


def finish(partial: Partial, state: FittedState) -> FittedState:
    """The state with what its next pass learnt added. DataError for rows that cannot be fitted or written."""
    graph, at = state.graph, state.passes
    if at == 0:
        partial.findings.refuse(column_checks(graph))
    taken = dict(zip(measures(graph, at), partial.statistics, strict=True))
    fitted: dict[Value, Fitted] = dict(state.fitted)
    alike: dict[object, Fitted] = {}
    for value in graph.learning(at):
        context = graph.fitting_context(value)
        if value.learner not in alike:
            with naming(context):
                alike[value.learner] = _fit(value, context, taken, fitted)
        fitted[value] = alike[value.learner]
    later = {value for value in graph.values if value.learns and value.request.at > at}
    return FittedState(graph, at + 1, partial.fit_rows, completed(graph, fitted, later))


def _fit(
    value: Value, context: ErrorContext, taken: Mapping[Measure, Statistic], fitted: Mapping[Value, Fitted]
) -> Fitted:
    statistic = taken[Measure.of(value)]
    if isinstance(statistic, ColumnStatistic):
        statistic = _with_imputed(statistic, value, taken, fitted)
    if statistic.infinities:
        title, testable = value.applied.title, is_testable(value)
        raise infinite(statistic.infinities, context.column, context.feature, title, testable=testable)
    if isinstance(statistic, Covariance):
        statistic = _scaled(statistic, value, fitted)
    return learnt(value.applied, value.inputs[0].type, fitted.get(value, {}), statistic, context)


def _with_imputed(
    statistic: ColumnStatistic, value: Value, taken: Mapping[Measure, Statistic], fitted: Mapping[Value, Fitted]
) -> ColumnStatistic:
    """The statistic with what imputers of the same pass fill in, once for every null."""
    for filling in value.request.fillings:
        imputed = filling.imputed
        nulls = taken[Measure.of(imputed)].nulls
        if nulls:
            elements = imputed.type.element
            column = imputed.applied.filling(fitted[imputed], elements or imputed.type)
            for one in filling.between:
                kind = one.inputs[0].type if elements is None else one.inputs[0].type.element or elements
                column = bound(one.applied, {}, ErrorContext("", "", one.applied.name), kind)(column)
            statistic = statistic.folded(Sample(column), nulls)
            if all(one.applied.keeps_nulls for one in filling.between):
                statistic.nulls -= nulls  # they are values now
    return statistic


def _scaled(covariance: Covariance, value: Value, fitted: Mapping[Value, Fitted]) -> Covariance:
    """The covariance of what scalers of the same pass make of the columns that it was taken of."""
    scalers = value.request.scaled
    if not covariance.count or not any(scalers):
        return covariance
    factors, shifts = zip(*(one.applied.linear(fitted[one]) if one else (1.0, 0.0) for one in scalers), strict=True)
    return covariance.scaled(np.array(factors), np.array(shifts))
