"""The features that a job asks for, checked against the lake's schema and brought into one graph of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dtap_dask.errors import JobError, Problem, did_you_mean
from dtap_dask.features.graph.graph import Graph, Output
from dtap_dask.features.graph.output import encoder_of
from dtap_dask.features.graph.pools import with_pools
from dtap_dask.features.graph.spec import FeatureSpec, output_problem, role_problems, unnameable, used_twice
from dtap_dask.features.graph.value import Value
from dtap_dask.features.quoting import sql_name
from dtap_dask.features.steps.label import label_problems, label_step
from dtap_dask.features.steps.operation import Operation, Source
from dtap_dask.features.steps.valuetype import Unfit, UnfitKey


def build(specs: Sequence[FeatureSpec], schema: pa.Schema, *, fits: bool = True) -> Graph:
    """The graph of a job's features. JobError lists all problems.

    Without `fits` the values are those of new rows, which have neither a label nor folds (see `Value.given`).
    """
    job = _Job(schema, [spec.columns for spec in specs if spec.role == "label"], fits=fits)
    # labels first: the operations of other features may need one
    order = sorted(range(len(specs)), key=lambda index: specs[index].role != "label")
    made = {index: _Building(specs[index], job) for index in order}
    features = [made[index] for index in range(len(specs))]
    outputs = [(feature.spec, output) for feature in features for output in feature.outputs]
    problems = [*unnameable(specs), *(problem for feature in features for problem in feature.problems)]
    problems += used_twice(outputs)
    if problems:
        raise JobError(dict.fromkeys(problems))  # that of a key once for all columns of a block
    return Graph(schema, with_pools([output for _, output in outputs]))


class _Job:
    """What the features of a job share: equal values, and the label."""

    def __init__(self, schema: pa.Schema, labels: Sequence[Sequence[str]], *, fits: bool):
        self.schema = schema
        self.labels = labels  # the columns of each
        self.fits = fits
        self.label: Value | None = None  # None where there is a problem with it
        self._known: dict[Value, Value] = {}

    def value(self, operation: Operation | Source, inputs: tuple[Value, ...] = ()) -> Value:
        """What an operation makes of its inputs, the same for equal ones. Raises `Unfit`."""
        value = Value.of(operation, inputs, self.schema)
        return self._known.setdefault(value, value)

    def needed(self, step: Operation, role: str) -> list[Value]:
        """The further inputs of a step. Raises `Unfit` where the job has none, `_LabelHasProblems` where it cannot be
        made."""
        found = []
        for need in step.needs():
            if not self.fits and (need == "label" or need.folds):
                continue
            if isinstance(need, Source):
                found.append(self.value(need) if need.folds else self._beside(need))
                continue
            if role == "label":
                raise Unfit(f"{step.name} learns from the label, and cannot make it.")
            if len(self.labels) != 1:
                way = "Use one of them alone" if self.labels else "Add `label`"
                raise Unfit(
                    f"{step.name} learns from the label, and the job has {len(self.labels) or 'none'}. {way}, or use "
                    "count_encode, hash_encode or ordinal_encode."
                )
            if self.label is None:
                raise _LabelHasProblemsError
            found.append(self.label)
        return found

    def _beside(self, source: Source) -> Value:
        """The column of a key. Raises `UnfitKey`."""
        column = source.column
        if self.schema.get_field_index(column) < 0:
            raise UnfitKey(f"by: there is no column {column!r}.{did_you_mean(column, self.schema.names)}")
        if any(column in columns for columns in self.labels):
            raise UnfitKey(f"by: column {column!r} is the label, which new rows do not have. Use another key.")
        try:
            return self.value(source)
        except Unfit as error:
            raise UnfitKey(f"by: column {column!r} cannot be a key: {error}") from None


class _LabelHasProblemsError(Exception):
    """A step needs the label, whose problems are reported already."""


@dataclass(frozen=True)
class _Strand:
    """A value on its way through the steps of a feature, and the names of the columns that it is of.

    `suffix` is what its steps add to the feature's name. `block` is the step that took all columns, if there was one.
    """

    columns: tuple[str, ...]
    value: Value
    suffix: str = ""
    block: str = ""


class _Building:
    """One feature: its `outputs`, or its `problems`."""

    def __init__(self, spec: FeatureSpec, job: _Job):
        self.spec = spec
        self.problems: list[Problem] = []
        self.outputs: list[Output] = []
        self._job = job
        self._extras: dict[str, tuple[int, list[Value]]] = {}  # by suffix, of the first step that makes it
        try:
            strands = self._through_steps()
        except _LabelHasProblemsError:
            return
        if not self.problems:
            self.problems += [Problem(spec.place, text) for text in role_problems(spec, [one.value for one in strands])]
        if not self.problems:
            self.outputs = self._outputs(strands)
            job.label = strands[0].value if spec.role == "label" else job.label

    def _outputs(self, strands: list[_Strand]) -> list[Output]:
        spec = self.spec
        values = tuple(strand.value for strand in strands)
        whole = Output(spec.name, spec.role, values, spec.columns, spec.vector, spec.allow_null, spec.place)
        made = [whole]
        if not spec.vector:
            made = [replace(whole, name=_joined(spec.name, one.suffix), values=(one.value,)) for one in strands]
        elif len(strands) == 1 and strands[0].block and strands[0].value.type.is_number:
            made = [replace(whole, vector=False)]
        for suffix, (_, extra) in self._extras.items():
            made.append(replace(whole, name=_joined(spec.name, suffix), values=tuple(extra), allow_null=False))
        return made

    def _through_steps(self) -> list[_Strand]:
        """The values after all steps; with problems, as far as there are none."""
        steps = self._checked_steps()
        if self.problems and self.spec.role == "label":
            return []
        cut = next((index for index, step in enumerate(steps) if step.on_block), len(steps))
        strands = [strand for column in self.spec.columns for strand in self._through_own(column, steps[:cut])]
        for index, step in enumerate(steps[cut:], cut):
            if self.problems:
                return []
            groups = [strands] if step.on_block else [[strand] for strand in strands]
            strands = [part for group in groups for part in self._apply(step, index, group)]
        for strand in strands:
            text = output_problem(self.spec, strand.value.type)
            if text:
                self._report(self.spec.place, text, strand)
        return strands

    def _checked_steps(self) -> list[Operation]:
        """The steps as they work in this role; reports those that this feature cannot have."""
        spec = self.spec
        for index, step in enumerate(spec.steps):
            place = f"{spec.place}.steps[{index}]"
            if spec.role == "label":
                self.problems += [Problem(place, text) for text in label_problems(step)]
            try:
                step.check()
            except Unfit as error:
                self.problems.append(Problem(place, str(error)))
            if step.on_block and not spec.vector:
                text = f"{step.name} works on several columns at once. Give the block a `name`."
                self.problems.append(Problem(place, text))
            if step.on_block and spec.allow_null:
                text = f"{step.name} has no result for a row with a null. Leave out allow_null, impute."
                self.problems.append(Problem(place, text))
        return [label_step(step) if spec.role == "label" else step for step in spec.steps]

    def _through_own(self, column: str, steps: Sequence[Operation]) -> list[_Strand]:
        """One column through the steps before the one that takes them all; nothing after a problem."""
        strands = self._read(column)
        for index, step in enumerate(steps):
            strands = [part for strand in strands for part in self._apply(step, index, [strand])]
        return strands

    def _read(self, column: str) -> list[_Strand]:
        schema, place = self._job.schema, f"{self.spec.place}.columns"
        if schema.get_field_index(column) < 0:
            text = f"there is no column {column!r}.{did_you_mean(column, schema.names)}"
            self.problems.append(Problem(place, text))
            return []
        try:
            kind = schema.field(column).type
            if self.spec.role == "kept" and pa.types.is_time(kind):
                raise Unfit(f"it is {kind}. `derive` its text, `cast({sql_name(column)} as varchar)`, and keep that.")
            return [_Strand((column,), self._job.value(Source(column)))]
        except Unfit as error:
            self.problems.append(Problem(place, f"column {column!r} cannot be used: {error}"))
            return []

    def _apply(self, step: Operation, index: int, group: list[_Strand]) -> list[_Strand]:
        """What a step makes of a strand, or of all of them; nothing after a problem."""
        found, place = len(self.problems), f"{self.spec.place}.steps[{index}]"
        for strand in group:
            try:
                _refuse_behind_block(step, strand)
                step.check_input(strand.value.type)
            except Unfit as error:
                self._report(place, str(error), strand)
        if len(self.problems) > found:
            return []
        try:
            return self._parts(step, index, group)
        except UnfitKey as error:
            self.problems.append(Problem(place, str(error)))
            return []
        except Unfit as error:
            self._report(place, str(error), *group)
            return []

    def _parts(self, step: Operation, index: int, group: list[_Strand]) -> list[_Strand]:
        given = [strand.value for strand in group]
        columns = tuple(dict.fromkeys(column for strand in group for column in strand.columns))
        encoder, kind, strands = encoder_of(given[0]).operation, given[0].type, []
        if (kind.element or kind).ids:
            step = step.taking(encoder.planned_ids if isinstance(encoder, Operation) else None)
        for part in step.parts():
            value = self._job.value(part.operation, (*given, *self._job.needed(part.operation, self.spec.role)))
            suffix = _joined(group[0].suffix if len(group) == 1 else "", part.suffix)
            if part.extra:
                first, values = self._extras.setdefault(suffix, (index, []))
                values += [value] if first == index else []
            else:
                strands.append(_Strand(columns, value, suffix, step.name if step.on_block else group[0].block))
        return strands

    def _report(self, place: str, text: str, *strands: _Strand) -> None:
        """A problem with one column, or with the whole block."""
        of_column = len(strands) == 1 and not strands[0].block
        self.problems.append(Problem(place, f"column {strands[0].columns[0]!r}: {text}" if of_column else text))


def _refuse_behind_block(step: Operation, strand: _Strand) -> None:
    """A vector made of several columns can only go into another block, or each of its places through a step."""
    if step.on_block or not strand.block or strand.value.type.width is None or step.name == "passthrough":
        return
    of_places = step.on_places and step.keeps_nulls
    if not of_places and (step.name != "cast" or not getattr(step, "dtype", "").startswith("float")):
        raise Unfit(f"{step.name} cannot follow {strand.block}; valid: scalers, clip, log1p, bucketize with "
                    "`boundaries`, truncated_svd, estimator, cast to a float.")  # fmt: skip


def _joined(*names: str) -> str:
    return "_".join(name for name in names if name)
