"""Checks a job that encodes with the state of an earlier dataset: everything in which it differs from that one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from dtap_dask.errors import JobError, Problem, did_you_mean
from dtap_dask.features import FeatureSpec, FittedState, Graph, build
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.reuse import differences, reusable, with_state
from dtap_dask.job.jobfile.check import CheckedJob, JobCheck
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.jobfile.word_files import WordFiles
from dtap_dask.job.planning.origin import Origin
from dtap_dask.lake.common_type import holds_every
from dtap_dask.lake.sql.expression import parse_sql

_PLACE = ("fit", "from")


def check_reuse(
    job: Job, source: pa.Schema, partitions: pa.Schema, files: WordFiles, more: Iterable[Problem], *, origin: Origin
) -> CheckedJob:
    """Check a job, and that the state of `origin` fits the columns of files (`source`) and folders.

    `files` reads the files of words that the job names. JobError holds all problems and `more`.
    """
    taken = reusable(origin.state, {label.column for label in job.label})
    return _ReuseCheck(job, source, partitions, list(more), files, origin=origin, taken=taken).run()


@dataclass
class _ReuseCheck(JobCheck):
    """`taken` is the state of the features, and of the labels that the job has."""

    origin: Origin = field(kw_only=True)
    taken: FittedState = field(kw_only=True)
    fits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.raw = self.origin.raw.needed_for(self.taken.graph.columns)
        self.source, self.partitions = self.widened(self.source), self.widened(self.partitions)
        super().__post_init__()
        self.derive = _merged(self.job.derive, dict(self.raw.derive), self.schema.names)

    def expressions(self) -> None:
        """Check the columns of the lake that the state needs, then the expressions over them."""
        for column in self.raw.schema:
            if column.name not in self.job.derive:
                self.raw_column(column)
        for name, sql in self.raw.derive:
            self.same_expression(name, sql)
        super().expressions()
        for column in self.raw.schema:
            if column.name in self.job.derive and column.name not in self.unusable:
                self.raw_column(column)

    def widened(self, columns: pa.Schema) -> pa.Schema:
        """The columns in the types that they were fitted in, where these hold every value: they are read as these."""
        fitted = {column.name: column.type for column in self.raw.schema}
        return pa.schema(
            [
                column.with_type(fitted[column.name])
                if column.name in fitted and holds_every(fitted[column.name], column.type)
                else column
                for column in columns
            ]
        )

    def raw_column(self, column: pa.Field) -> None:
        """Report a column that is missing, or has another type."""
        name, place = column.name, self.schema.get_field_index(column.name)
        if place < 0:
            self.unusable.add(name)
            guess = did_you_mean(name, self.schema.names)
            self.report(
                f"there is no column {name!r} ({column.type}), which the dataset was fitted on.{guess} `derive` it if "
                "the source has it under another name.",
                *_PLACE,
            )
        elif self.schema.field(place).type != column.type:
            self.unusable.add(name)
            found = self.schema.field(place).type
            self.report(f"column {name!r} is {found}, and the dataset was fitted on {column.type}. "
                        f"{self.way_to_type(column)}", *_PLACE)  # fmt: skip

    def way_to_type(self, column: pa.Field) -> str:
        """How a column gets the type that it had."""
        if column.name in self.partitions.names:
            return f"Declare it: `source.partitions: {{{column.name}: {column.type}}}`."
        if column.name in self.job.derive:
            return "Put a cast into its expression."
        return "Read files in which it has that type, or fit again without `fit: {from: ...}`."

    def same_expression(self, name: str, sql: str) -> None:
        """Report a derived column that the job has by another expression, or the lake as a column."""
        own = self.job.derive.get(name)
        if own is not None and parse_sql(own).tree != parse_sql(sql).tree:
            self.unusable.add(name)
            self.report(f"found {own!r}, and the dataset was fitted with {sql!r}.", "derive", name)
        elif own is None and self.schema.get_field_index(name) >= 0:
            self.unusable.add(name)
            self.report(f"the lake has a column {name!r}, which the dataset derives: {sql!r}.", *_PLACE)

    def derived(self, name: str, sql: str) -> None:
        """Add a derived column, unless something is wrong with it."""
        if name not in self.unusable:
            super().derived(name, sql)

    def state(self) -> FittedState | None:
        """The fitted outputs, and the job's own weight and kept columns."""
        self.compare()
        others = self.built(self.others(), self.schema)
        if others is None:
            return None
        fitted = self.taken.graph.outputs
        names = {output.name for output in fitted}
        for output in others.outputs:
            if output.name in names:
                use = "keep" if output.role == "kept" else "use"
                text = f"the dataset has {output.name!r} already. `derive` it under another name, and {use} that."
                self.report_at(output.place, text)
        return with_state(Graph(self.schema, (*fitted, *others.outputs)), self.taken)

    def compare(self) -> None:
        """Report how the features and labels that the job asks for differ from the fitted ones."""
        asking = _AskedOfState.of(self, self.origin.state.graph)
        labels = list(self.asked(asking.labels()))
        asked = [*asking.features(), *labels]
        wanted = asking.built(asked, asking.schema)
        if self.job.is_broken("features") or self.job.is_broken("label"):
            return
        compared = {one.name for one in labels}
        if self.job.features is not None:
            compared |= {one.name for one in self.taken.graph.outputs if one.role == "feature"}
        known = [one for one in self.taken.graph.outputs if one.name in compared]
        outputs = wanted.outputs if wanted else tuple(_possible(asked, asking.schema))
        refused = {one.name for one in asked} - {one.name for one in outputs}
        for place, text in differences([one for one in known if one.name not in refused], outputs):
            self.report_at(place, text)

    def asked(self, labels: Iterable[FeatureSpec]) -> Iterator[FeatureSpec]:
        """The labels whose steps the job states; one without steps takes those of the state."""
        known = [one.name for one in self.origin.state.graph.outputs if one.role == "label"]
        for label in labels:
            if label.name not in known:
                its = f"its labels are {', '.join(known)}" if known else "it has none"
                text = f"{label.name!r} is no label of the dataset: {its}.{did_you_mean(label.name, known)}"
                self.report_at(label.place, text)
            elif label.steps:
                yield label


@dataclass
class _AskedOfState(JobCheck):
    """The features that a job asks for, of the columns that a state was fitted on."""

    fitted: Graph = field(kw_only=True)
    fits: ClassVar[bool] = False

    @classmethod
    def of(cls, check: JobCheck, fitted: Graph) -> _AskedOfState:
        """Those of the job of `check`, to which problems are added. Globs leave out the columns of its folders."""
        folders = [column for column in fitted.schema if column.name in check.partitions.names]
        files = [column for column in fitted.schema if column.name not in check.partitions.names]
        return cls(check.job, pa.schema(files), pa.schema(folders), check.problems, check.files, fitted=fitted)

    def known(self, name: str, *loc: str | int) -> bool:
        """Whether there was such a column; reports a problem at `loc` if not."""
        known = name in self.schema.names
        if not known:
            guess = did_you_mean(name, self.schema.names)
            self.report(f"the dataset was fitted without a column {name!r}.{guess}", *loc)
        return known

    def candidates(self) -> list[str]:
        """The columns that a glob can match: not those of the dataset's labels and weight, which this job may lack."""
        taken = {column for one in self.fitted.outputs if one.role in ("label", "weight") for column in one.columns}
        return [name for name in super().candidates() if name not in taken]


def _possible(specs: Iterable[FeatureSpec], schema: pa.Schema) -> Iterator[Output]:
    """The outputs of those features that can be made."""
    for spec in specs:
        with contextlib.suppress(JobError):
            yield from build([spec], schema, fits=False).outputs


def _merged(own: Mapping[str, str], fitted: Mapping[str, str], columns: Iterable[str]) -> dict[str, str]:
    """The derived columns of a job and of a state, each behind those that it may use."""
    made: dict[str, str] = {}
    known = set(columns)
    waiting = {name: sql for name, sql in fitted.items() if name not in own}
    for name, sql in own.items():
        for early in list(waiting):
            if known.issuperset(parse_sql(waiting[early]).columns):
                made[early] = waiting.pop(early)
                known.add(early)
        made[name] = sql
        known.add(name)
    return {**made, **waiting}
