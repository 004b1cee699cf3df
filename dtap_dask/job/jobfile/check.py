"""Checks a job against the lake's columns: all names, expressions and types. Gives the scan and the graph."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

import pyarrow as pa

from dtap_dask.errors import DtapError, ExpressionError, JobError, Problem, did_you_mean
from dtap_dask.features import FeatureSpec, FittedState, Graph, build, planned_dtype
from dtap_dask.features.quoting import sql_name
from dtap_dask.features.steps.estimator import Estimator
from dtap_dask.features.steps.keyed import Keyable
from dtap_dask.features.steps.label import label_step
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.ordinal import OrdinalEncode
from dtap_dask.job.jobfile.spec import BlockSpec, Job
from dtap_dask.job.jobfile.word_files import WordFiles
from dtap_dask.lake.hashing import is_key_type
from dtap_dask.lake.scan import ScanSpec, without_unneeded
from dtap_dask.lake.split import SplitSpec
from dtap_dask.lake.sql.expression import parse_sql
from dtap_dask.storage.settings import absolute
from dtap_dask.validation import sentence

T = TypeVar("T")


@dataclass(frozen=True)
class CheckedJob:
    """A job whose names and types are all right: what to read (`scan`), and its features before any row is read.

    `digests` are those of the files that its steps name.
    """

    scan: ScanSpec
    state: FittedState
    digests: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph:
        """The features."""
        return self.state.graph


def check(
    job: Job, source: pa.Schema, partitions: pa.Schema, files: WordFiles, more: Iterable[Problem] = ()
) -> CheckedJob:
    """Check a job against the columns of files (`source`) and folders. JobError holds all problems and `more`.

    `files` reads the files of words that the job names.
    """
    return JobCheck(job, source, partitions, list(more), files).run()


def check_expressions(
    job: Job,
    source: pa.Schema,
    partitions: pa.Schema,
    more: Iterable[Problem],
    choose: Callable[[Sequence[str]], tuple[str, ...]],
) -> ScanSpec:
    """Check only `where`, `derive` and `split`; the scan of the columns that `choose` picks out of all names."""
    checking = JobCheck(job, source, partitions, list(more), WordFiles({}))
    checking.expressions()
    job.raise_pending(checking.problems)
    return checking.scan(choose(checking.schema.names))


@dataclass
class JobCheck:
    """The check of a job against the columns of a source; `problems` are those found so far."""

    job: Job
    source: pa.Schema
    partitions: pa.Schema
    problems: list[Problem]
    files: WordFiles
    unusable: set[str] = field(default_factory=set)  # columns with problems of their own, reported once
    fits: ClassVar[bool] = True  # whether a part of the split is fitted

    def __post_init__(self) -> None:
        self.schema = pa.schema([*self.source, *self.partitions])
        self.derive: Mapping[str, str] = self.job.derive

    def run(self) -> CheckedJob:
        """The job; JobError with all problems."""
        self.expressions()
        state = self.state()
        if state is not None and self.job.output.layout == "rows":
            self.rows_layout(state.graph)
        self.job.raise_pending(self.problems)
        if state is None:
            raise AssertionError("a graph without problems was not built")
        scan = replace(self.scan(state.graph.columns), folds=state.graph.folds)
        return CheckedJob(scan, state, tuple(self.files.words))

    def state(self) -> FittedState | None:
        """All outputs and what is known of them; None after reporting why there are none."""
        specs = [*self.features(), *self.labels(), *self.others()]
        graph = self.built(specs, self.schema)
        self.fitted_by_dask_ml(specs)
        return self.reporting(lambda: FittedState.unfitted(graph, self.files.words)) if graph is not None else None

    def built(self, specs: Iterable[FeatureSpec], schema: pa.Schema) -> Graph | None:
        """The graph of those features whose part of the job has no mistakes; None after reporting problems."""
        usable = [spec for spec in specs if self.usable(spec)]
        return self.reporting(lambda: build(usable, schema, fits=self.fits))

    def reporting(self, make: Callable[[], T]) -> T | None:
        """What `make` returns; None after reporting the problems of its JobError."""
        try:
            return make()
        except JobError as error:
            for problem in error.problems:
                self.report_at(problem.place, problem.message)
            return None

    def expressions(self) -> None:
        """Check `where`, `derive` and `split`, in the order in which they may use each other's columns."""
        self.condition(self.job.source.where, "source", "where")
        for name, sql in self.derive.items():
            self.derived(name, sql)
        if self.job.split is not None and not self.job.is_broken("split"):
            self.split(self.job.split.key)

    def report_at(self, place: str, message: str) -> None:
        """Add a problem at a place such as `features[1].steps[0]`."""
        self.problems.append(Problem(self.located(place), message))

    def report(self, message: str, *loc: str | int) -> None:
        """Add a problem at a place in the job."""
        self.problems.append(Problem(self.job.place(*loc), message))

    def located(self, place: str) -> str:
        """`features[1].steps[0]` with its line in the job file."""
        found = re.findall(r"\[(\d+)\]|([^.\[\]]+)", place)
        return self.job.place(*(int(number) if number else word for number, word in found))

    def known(self, name: str, *loc: str | int) -> bool:
        """Whether there is such a column; reports a problem at `loc` if not."""
        if name in self.unusable:
            return False
        if self.schema.get_field_index(name) < 0:
            self.report(f"there is no column {name!r}.{did_you_mean(name, self.schema.names)}", *loc)
            return False
        return True

    def bind(self, sql: str, *loc: str | int) -> pa.DataType | None:
        """The type of an expression; None after reporting why it has none."""
        parsed = parse_sql(sql)
        if self.unusable.intersection(parsed.columns):
            return None
        try:
            return parsed.bind(self.schema).type
        except ExpressionError as error:
            self.report(str(error), *loc)
            return None

    def condition(self, sql: str | None, *loc: str | int) -> None:
        """Check that an expression is true or false."""
        kind = self.bind(sql, *loc) if sql is not None else None
        if kind is not None and not pa.types.is_boolean(kind):
            self.report(
                f"{sql!r} gives {kind}, but a condition must be true or false. Compare it with something.", *loc
            )

    def derived(self, name: str, sql: str) -> None:
        """Add a derived column to the schema."""
        kind = self.bind(sql, "derive", name)
        if name in self.schema.names:
            self.report(f"the lake already has a column {name!r}. Give the derived one another name.", "derive", name)
        elif kind is None or pa.types.is_null(kind):
            self.unusable.add(name)
        else:
            self.schema = self.schema.append(pa.field(name, kind))

    def split(self, key: tuple[str, ...]) -> None:
        """Check the parts, their conditions and the key."""
        split = self.job.split
        if split is None or (split.parts is None) == (split.where is None):
            self.report("give either `parts` (fractions by hash) or `where` (conditions).", "split")
            return
        names = split.names
        if split.parts is not None and abs(sum(split.parts.values()) - 1) > 1e-9:
            total = f"{sum(split.parts.values()):.6g}"
            self.report(f"the fractions add up to {total}, but must add up to 1.", "split", "parts")
        for name, sql in (split.where or {}).items():
            self.condition(sql, "split", "where", name)
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                self.report(f"{name!r} cannot be a folder's name: use letters, digits, '_' and '-'.", "split")
        if self.fits and split.fit not in names:
            self.report(f"found {split.fit!r}, but the parts are {', '.join(names)}.", "split", "fit")
        if key and split.where is not None:
            self.report("`key` is for `parts`; conditions need no key.", "split", "key")
        for name in key:
            if self.known(name, "split", "key") and not is_key_type(self.schema.field(name).type):
                message = f"{name!r} is {self.schema.field(name).type}: a key must be text, whole numbers, booleans, "
                message += f"dates or timestamps. `derive` its text, for example: `cast({sql_name(name)} as varchar)`."
                self.report(message, "split", "key")

    def features(self) -> Iterator[FeatureSpec]:
        """The features as the job asks for them."""
        for index, block in enumerate(self.job.features or ()):
            columns = list(dict.fromkeys(self.expanded(index, block)))
            yield from self.block(index, block, columns)

    def block(self, index: int, block: BlockSpec, columns: list[str]) -> Iterator[FeatureSpec]:
        place = f"features[{index}]"
        if block.name is not None and block.as_ is not None:
            message = "`name` makes one vector of all columns, `as` names each one: give one of the two."
            self.report(message, "features", index)
        elif block.name is not None:
            if columns:
                steps = self.steps(block.steps, None, "features", index)
                yield FeatureSpec(block.name, "feature", tuple(columns), steps, True, block.allow_null, place)
        elif block.as_ is not None and "{column}" not in block.as_ and len(columns) > 1:
            message = f"{block.as_!r} gives {len(columns)} outputs the same name: put {{column}} into it."
            self.report(message, "features", index, "as")
        else:
            for column in columns:
                name = (block.as_ or "{column}").replace("{column}", column)
                steps = self.steps(block.steps, name, "features", index)
                yield FeatureSpec(name, "feature", (column,), steps, False, block.allow_null, place)

    def steps(self, steps: Sequence[Operation], feature: str | None, *loc: str | int) -> tuple[Operation, ...]:
        """The steps at `loc` of a feature, with digests in place of the paths of words; None for a vector."""
        return tuple(self.with_words(step, feature, *loc, "steps", index) for index, step in enumerate(steps))

    def with_words(self, step: Operation, feature: str | None, *loc: str | int) -> Operation:
        """A step, with the digest of the words that it names in place of their path; reports why there are none."""
        if not isinstance(step, OrdinalEncode):
            return step
        option, path = "vocabulary", step.vocabulary
        try:
            if isinstance(path, str):
                return step.model_copy(update={option: self.files.digest(path)})
            option, path = "append_to", step.append_to
            if path is not None:
                made = label_step(step) if loc[0] == "label" else step
                return step.model_copy(update={option: self.earlier(path, feature, made)})
        except (ValueError, DtapError) as error:
            texts = [problem.message for problem in error.problems] if isinstance(error, JobError) else [str(error)]
            self.report(sentence(f"{step.name}.{option}: {path}: {' '.join(texts)}"), *loc)
        return step

    def earlier(self, path: str, feature: str | None, step: Operation) -> str:
        """The digest of the vocabulary of a feature in an earlier dataset."""
        if feature is None:
            raise ValueError("a vector has no vocabulary of its own. Leave the `name` of the block out")
        if absolute(path) == absolute(self.job.output.path):
            raise ValueError("it is the folder that this job writes to. Write to another one")
        return self.files.earlier(path, feature, step)

    def expanded(self, index: int, block: BlockSpec) -> Iterator[str]:
        """The columns of a block, with globs expanded."""
        for position, pattern in enumerate(block.columns):
            loc = ("features", index, "columns", position)
            if self.schema.get_field_index(pattern) >= 0 or not re.search(r"[*?\[]", pattern):
                if self.known(pattern, *loc):
                    yield pattern
                continue
            matching = [name for name in self.candidates() if fnmatch.fnmatchcase(name, pattern)]
            if not matching:
                self.report(f"no column matches {pattern!r}. Columns: {', '.join(self.candidates())}.", *loc)
            yield from matching

    def candidates(self) -> list[str]:
        """The columns that a glob can match: not labels, the weight, the split's key or columns of folders."""
        out = {*(label.column for label in self.job.label), self.job.weight, *self.partitions.names}
        out.update(self.job.split.key if self.job.split else ())
        return [name for name in self.schema.names if name not in out]

    def labels(self) -> Iterator[FeatureSpec]:
        """The labels as the job asks for them."""
        listed = isinstance(self.job.document.get("label"), list)
        for index, label in enumerate(self.job.label):
            loc = ("label", index) if listed else ("label",)
            if self.known(label.column, *loc):
                place = f"label[{index}]" if listed else "label"
                steps = self.steps(label.steps, label.column, *loc)
                yield FeatureSpec(label.column, "label", (label.column,), steps, False, False, place)

    def others(self) -> Iterator[FeatureSpec]:
        """The weight and the kept columns."""
        if self.job.weight is not None and self.known(self.job.weight, "weight"):
            yield FeatureSpec(self.job.weight, "weight", (self.job.weight,), (), False, False, "weight")
        for index, name in enumerate(self.job.keep):
            if self.known(name, "keep", index):
                yield FeatureSpec(name, "kept", (name,), (), False, False, f"keep[{index}]")

    def fitted_by_dask_ml(self, specs: Iterable[FeatureSpec]) -> None:
        """Report transformers of dask-ml in a job that does not use Dask's collections."""
        if self.job.fit == "dask_ml":
            return
        for spec in specs:
            for index, step in enumerate(spec.steps):
                if isinstance(step, Estimator) and step.by_dask:
                    message = f"{step.path} is fitted on Dask arrays: set `fit: dask_ml` in the job, or take one of "
                    message += "scikit-learn."
                    self.report_at(f"{spec.place}.steps[{index}]", message)

    def rows_layout(self, graph: Graph) -> None:
        """Report features of types that tf.train.Example does not have."""
        for output in graph.outputs:
            dtype = planned_dtype(output)
            if dtype not in ("float64", "float16"):
                continue
            remedy = "Leave out the cast, which gives float32, or choose output.layout: blocks."
            if output.role == "kept":
                column = sql_name(output.columns[0])
                remedy = (
                    f"To keep it exactly, `derive` whole numbers, `cast({column} as bigint)`, or text, "
                    f"`cast({column} as varchar)`, and keep that; or choose output.layout: blocks."
                )
            message = f"{output.name!r} is {dtype}, which the layout rows (tf.train.Example) does not have. {remedy}"
            self.problems.append(Problem(self.located(output.place), message))

    def usable(self, spec: FeatureSpec) -> bool:
        """Whether the part of the job that asks for a feature has no mistakes."""
        if any(isinstance(step, Keyable) and step.by in self.unusable for step in spec.steps):
            return False
        words = re.findall(r"\w+", spec.place)
        return not self.job.is_broken(*(int(word) if word.isdigit() else word for word in words[:2]))

    def scan(self, outputs: tuple[str, ...]) -> ScanSpec:
        """What to read for `outputs`: only columns, derived ones included, that something needs."""
        every = ScanSpec(
            schema=self.source,
            partitions=self.partitions,
            where=self.job.source.where,
            derive=tuple(self.derive.items()),
            sample=None if self.job.source.sample == 1 else self.job.source.sample,
            split=_split_spec(self.job, fits=self.fits),
            outputs=outputs,
            verify_checksums=self.job.source.verify_checksums,
        )
        return without_unneeded(every)


def _split_spec(job: Job, *, fits: bool) -> SplitSpec | None:
    split = job.split
    if split is None:
        return None
    parts = tuple(split.parts.values()) if split.parts is not None else None
    where = tuple(split.where.values()) if split.where is not None else None
    return SplitSpec(split.names, parts, split.key, where, split.fit if fits else None)
