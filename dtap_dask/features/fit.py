"""Fitting: one pass over the rows for each level, all statistics of the level at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import DtapError
from dtap_dask.features.checks import Findings, by_column, infinite, watches
from dtap_dask.features.column import Column, Decimals, Numbers, from_arrow
from dtap_dask.features.decimals import constant
from dtap_dask.features.feature import Block, Chain, Feature, Lane
from dtap_dask.features.leaks import BATCHES, FIRST, ROWS, Suspects
from dtap_dask.features.pipeline import Pipeline
from dtap_dask.features.program import Program
from dtap_dask.features.reduce import stack
from dtap_dask.features.sample import Sample
from dtap_dask.features.scale import Scaler
from dtap_dask.features.state import FittedState
from dtap_dask.features.statistic import Covariance, Statistic
from dtap_dask.features.step import DropNulls, ErrorContext, Fitted, naming, unforeseen


@dataclass(frozen=True)
class Measure:
    """One statistic of one chain, or the covariance of several; equal ones are taken once."""

    chains: tuple[Chain, ...]
    statistic: type[Statistic] | type[Covariance]


@dataclass(frozen=True)
class Partial:
    """What one task, or several together, learnt in one level: statistics in the order of `measures`."""

    level: int
    fit_rows: int
    statistics: tuple[Statistic | Covariance, ...]
    findings: Findings
    suspects: Suspects | None


def measures(pipeline: Pipeline, level: int) -> tuple[Measure, ...]:
    """The statistics that a level takes."""
    found: dict[Measure, None] = {}
    for feature in pipeline.features:
        for lane, index in _fitted_in(feature, level):
            statistic = lane.steps[index].statistic
            assert statistic is not None
            found[Measure((lane.measured(index),), statistic)] = None
        if feature.reduce is not None and feature.reduce_level == level:
            found[Measure(feature.measured, Covariance)] = None
    return tuple(found)


def _fitted_in(feature: Feature, level: int) -> Iterator[tuple[Lane, int]]:
    for lane in feature.lanes:
        for index, at in enumerate(lane.levels):
            if at == level:
                yield lane, index


class Accumulator:
    """Takes in the batches of one task for one level; `partial` is what it then knows.

    `state` holds what earlier levels learnt; None for the first. `suspecting`: look for features that give the label
    away, in the first level.
    """

    def __init__(self, pipeline: Pipeline, level: int, state: FittedState | None = None, *, suspecting: bool = True):
        self._level = level
        self._watches = by_column(watches(pipeline)) if level == 0 else ()
        self._statistics = [(measure, _empty(measure)) for measure in measures(pipeline, level)]
        chains = [chain for measure, _ in self._statistics for chain in measure.chains]
        sources = [Chain(watch.column) for watch in self._watches]
        whole = [chain for chain in chains if not _leaves_rows_out(chain)]
        known, names = _chains(state), feature_names(pipeline)
        self._program = Program([*whole, *sources], known, names)
        # what leaves rows out no longer lies beside `fit`, so it is given the fitted rows only
        self._names = names
        self._fitted_only = Program(filter(_leaves_rows_out, chains), known, names)
        self._findings = Findings()
        self._fit_rows = 0
        self._suspects = Suspects.of(pipeline) if level == 0 and suspecting else None
        self._looks = 0

    def add(self, rows: pa.RecordBatch, fit: npt.NDArray[np.bool_] | None = None) -> None:
        """Take in a batch: every row is checked for nulls, those where `fit` is True (None: all) are fitted."""
        if fit is not None and fit.all():
            fit = None
        columns = self._program.run(rows)
        self._look(rows.num_rows, columns)
        fitted = rows.num_rows if fit is None else int(np.count_nonzero(fit))
        self._fit_rows += fitted
        if fitted:
            self._suspect(rows, fit)
            samples = {chain: Sample(columns[place], fit) for chain, place in self._program.places.items()}
            samples |= self._samples_left(rows, fit)
            self._learn(samples)

    def _learn(self, samples: dict[Chain, Sample]) -> None:
        measure = None
        try:
            for measure, statistic in self._statistics:
                if isinstance(statistic, Covariance):
                    statistic.add(stack([samples[chain].rows_as_floats for chain in measure.chains]))
                else:
                    statistic.add(samples[measure.chains[0]])
        except (DtapError, MemoryError):
            raise
        except Exception as error:
            assert measure is not None
            raise unforeseen(self._place(measure), error) from error

    def _place(self, measure: Measure) -> ErrorContext:
        column = measure.chains[0].column
        return ErrorContext(self._names.get(column, column), column, f"fitting ({measure.statistic.__name__.lower()})")

    def _suspect(self, rows: pa.RecordBatch, fit: npt.NDArray[np.bool_] | None) -> None:
        columns = self._suspects.columns if self._suspects and self._looks < BATCHES else ()
        if self._suspects and columns:
            most = ROWS if self._looks else FIRST
            some = rows.select(columns).slice(0, most)
            self._suspects.add(some if fit is None else some.filter(pa.array(fit[:most])))
            self._looks += 1

    def _samples_left(self, rows: pa.RecordBatch, fit: npt.NDArray[np.bool_] | None) -> dict[Chain, Sample]:
        places = self._fitted_only.places
        if not places:
            return {}
        rows = rows.select(sorted({chain.column for chain in places}))
        columns = self._fitted_only.run(rows if fit is None else rows.filter(pa.array(fit)))
        return {chain: Sample(columns[place]) for chain, place in places.items() if _leaves_rows_out(chain)}

    def _look(self, rows: int, columns: Sequence[Column]) -> None:
        self._findings.rows += rows
        for watch in self._watches:
            self._findings.look(watch, columns[self._program.places[Chain(watch.column)]])

    def partial(self) -> Partial:
        """What is known so far, to be sent and merged."""
        for _, statistic in self._statistics:
            statistic.settle()
        statistics = tuple(statistic for _, statistic in self._statistics)
        return Partial(self._level, self._fit_rows, statistics, self._findings, self._suspects)


def merge(partials: Sequence[Partial]) -> Partial:
    """All of at least one partial as one, in the order given; the parts stay as they are."""
    rows = sum(partial.fit_rows for partial in partials)
    findings = Findings.together(partial.findings for partial in partials)
    columns = zip(*(partial.statistics for partial in partials), strict=True)
    merged = tuple(type(parts[0]).merged(parts) for parts in columns)
    suspects = Suspects.merged([partial.suspects for partial in partials if partial.suspects is not None])
    return Partial(partials[0].level, rows, merged, findings, suspects)


def finish(pipeline: Pipeline, level: int, partial: Partial, state: FittedState | None = None) -> FittedState:
    """The state with what `level` learnt added. DataError for rows that cannot be fitted or would not come out."""
    if level == 0:
        partial.findings.refuse(watches(pipeline))
    taken = dict(zip(measures(pipeline, level), partial.statistics, strict=True))
    learnt: dict[Chain | Block, Fitted] = dict(state.fitted) if state else {}
    for feature in pipeline.features:
        for lane, index in _fitted_in(feature, level):
            chain = lane.chain(index + 1)
            if chain not in learnt:
                with naming(ErrorContext(feature.spec.name, lane.column, lane.steps[index].name)):
                    learnt[chain] = _fit_step(feature, lane, index, taken, learnt)
        if feature.reduce is not None and feature.reduce_level == level:
            learnt[feature.block] = _fit_block(feature, taken, learnt)
    return FittedState(pipeline.specs, pipeline.schema, level + 1, partial.fit_rows, _in_order(pipeline, learnt))


def fit_batches(
    pipeline: Pipeline, batches: Sequence[pa.RecordBatch], fit: Sequence[npt.NDArray[np.bool_]] | None = None
) -> FittedState:
    """All levels over batches at hand, each as a task of its own; without levels the state is empty."""
    state = FittedState(pipeline.specs, pipeline.schema, 0, 0, {})
    for level in range(pipeline.levels):
        partials = []
        for number, rows in enumerate(batches):
            accumulator = Accumulator(pipeline, level, state)
            accumulator.add(rows, None if fit is None else fit[number])
            partials.append(accumulator.partial())
        state = finish(pipeline, level, merge(partials), state)
    return state


def _fit_step(
    feature: Feature,
    lane: Lane,
    index: int,
    taken: dict[Measure, Statistic | Covariance],
    learnt: dict[Chain | Block, Fitted],
) -> Fitted:
    step, fold = lane.steps[index], lane.folds[index]
    statistic = _statistic(lane, index, taken)
    if fold is not None:
        nulls = _statistic(lane, fold, taken).nulls
        if nulls:
            value = learnt[lane.chain(fold + 1)]["statistics_"]
            statistic = statistic.folded(Sample(_through(value, lane, fold + 1, index, feature)), nulls)
    place = ErrorContext(feature.spec.name, lane.column, step.name)
    if statistic.infinities:
        raise infinite(statistic.infinities, lane.column, feature.spec.name, step.name)
    if feature.spec.role == "label":
        place = ErrorContext(feature.spec.name, lane.column, f"{step.name} of the label")
    return step.fit(statistic, place)


def _statistic(lane: Lane, index: int, taken: dict[Measure, Statistic | Covariance]) -> Statistic:
    kind = lane.steps[index].statistic
    assert kind is not None
    statistic = taken[Measure((lane.measured(index),), kind)]
    assert isinstance(statistic, Statistic)
    return statistic


def _through(value: object, lane: Lane, first: int, last: int, feature: Feature) -> Column:
    """One imputed value through the steps between the imputer and the step that is fitted."""
    kind = lane.kinds[first]
    if kind.base != "text" and isinstance(value, str):  # the digits of a decimal
        source = kind.source.value_type if pa.types.is_dictionary(kind.source) else kind.source
        column: Column = Decimals(pa.array([constant(value, source)]))
    elif isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        column = from_arrow(pa.array([raw], pa.large_binary()))
    else:
        column = Numbers(np.array([value]))
    for step in lane.steps[first:last]:
        column = step.bind({}, ErrorContext(feature.spec.name, lane.column, step.name))(column)
    return column


def _fit_block(
    feature: Feature, taken: dict[Measure, Statistic | Covariance], learnt: dict[Chain | Block, Fitted]
) -> Fitted:
    covariance = taken[Measure(feature.measured, Covariance)]
    assert isinstance(covariance, Covariance)
    assert feature.reduce is not None
    names = ", ".join(lane.column for lane in feature.lanes[:4])
    if covariance.infinities:
        raise infinite(covariance.infinities, names, feature.spec.name, feature.reduce.name)
    factors, shifts = np.ones(len(feature.lanes)), np.zeros(len(feature.lanes))
    for number, (lane, scaled) in enumerate(zip(feature.lanes, feature.scalers, strict=True)):
        scaler = lane.steps[-1] if scaled else None
        if isinstance(scaler, Scaler):
            factors[number], shifts[number] = scaler.linear(learnt[lane.result])
    place = ErrorContext(feature.spec.name, names, feature.reduce.name)
    with naming(place):
        return feature.reduce.fit_block(covariance.scaled(factors, shifts), place)


def _in_order(pipeline: Pipeline, learnt: dict[Chain | Block, Fitted]) -> dict[Chain | Block, Fitted]:
    """In the order of the features, whatever level each step was fitted in."""
    ordered: dict[Chain | Block, Fitted] = {}
    for feature in pipeline.features:
        chains: list[Chain | Block] = [lane.chain(i + 1) for lane in feature.lanes for i in range(len(lane.steps))]
        if feature.reduce is not None:
            chains.append(feature.block)
        ordered.update({chain: learnt[chain] for chain in chains if chain in learnt})
    return ordered


def _empty(measure: Measure) -> Statistic | Covariance:
    if issubclass(measure.statistic, Covariance):
        return Covariance(len(measure.chains))
    return measure.statistic()


def _leaves_rows_out(chain: Chain) -> bool:
    return any(isinstance(step, DropNulls) for step in chain.steps)


def _chains(state: FittedState | None) -> dict[Chain, Fitted]:
    """What a program needs to know of a state."""
    return {chain: fitted for chain, fitted in state.fitted.items() if isinstance(chain, Chain)} if state else {}


def feature_names(pipeline: Pipeline) -> dict[str, str]:
    """A feature of each column, for messages."""
    names: dict[str, str] = {}
    for feature in pipeline.features:
        for lane in feature.lanes:
            names.setdefault(lane.column, feature.spec.name)
    return names
