"""All features of a job, checked against the lake's schema and cut into levels of fitting.

A step that learns needs its input. While the input is the source behind steps that learn nothing, its level is the
first. Behind an imputer of the same level a step still fits in one pass: it sees the values that are there, and the one
value that takes the place of nulls is added afterwards, weighted by their number. Behind any other step that learns,
it must wait for the next level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dtap_dask.errors import JobError, Problem, did_you_mean
from dtap_dask.features.column import item_of
from dtap_dask.features.feature import Feature, FeatureSpec, Lane
from dtap_dask.features.impute import Impute
from dtap_dask.features.label import label_problems, label_step
from dtap_dask.features.quoting import sql_name
from dtap_dask.features.reduce import Pca
from dtap_dask.features.scale import Scaler
from dtap_dask.features.step import Step, Unfit, ValueType, describe, source_kind


@dataclass(frozen=True)
class Pipeline:
    """The features of a job over a schema. `levels` is the number of passes that fitting needs.

    `reasons[i]` says what forces level i; `columns` are the columns read, in the schema's order; `outputs` the
    names of all output columns.
    """

    specs: tuple[FeatureSpec, ...]
    schema: pa.Schema
    features: tuple[Feature, ...]
    levels: int
    reasons: tuple[str, ...]

    @classmethod
    def build(cls, specs: Sequence[FeatureSpec], schema: pa.Schema) -> Pipeline:
        """Check everything; JobError lists all problems."""
        problems = _names(specs)
        features: list[Feature] = []
        for spec in specs:
            checked = _feature(spec, schema, problems)
            if checked is not None:
                features.append(checked)
                features += _indicators(checked)
        problems += _twice(features)
        if problems:
            raise JobError(problems)
        reasons = _reasons(features)
        return cls(tuple(specs), schema, tuple(features), len(reasons), reasons)

    @property
    def columns(self) -> tuple[str, ...]:
        used = {column for spec in self.specs for column in spec.columns}
        return tuple(name for name in self.schema.names if name in used)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(feature.spec.name for feature in self.features)


def _feature(spec: FeatureSpec, schema: pa.Schema, problems: list[Problem]) -> Feature | None:
    found = len(problems)
    steps, reduce, tail = _cut_at_reduce(spec, problems)
    lanes = [_lane(spec, column, steps, schema, problems) for column in spec.columns]
    whole = [lane for lane in lanes if lane is not None]
    if len(problems) > found:
        return None
    feature = Feature(spec, tuple(whole), reduce, tail=tail)
    if reduce is not None:
        feature = _with_reduce(feature, reduce, len(steps), problems)
    problems += [Problem(spec.place, text) for text in _role_problems(feature)]
    return feature if len(problems) == found else None


def _cut_at_reduce(spec: FeatureSpec, problems: list[Problem]) -> tuple[tuple[Step, ...], Pca | None, tuple[Step, ...]]:
    for index, step in enumerate(spec.steps):
        if not isinstance(step, Pca):
            continue
        place = f"{spec.place}.steps[{index}]"
        if not spec.vector:
            problems.append(Problem(place, "pca works on several columns at once. Give the block a `name`."))
        if spec.allow_null:
            problems.append(Problem(place, "pca has no result for a row with a null. Leave out allow_null, impute."))
        tail = spec.steps[index + 1 :]
        for after, later in enumerate(tail, index + 1):
            dtype = getattr(later, "dtype", "")
            if later.name != "passthrough" and not (later.name == "cast" and dtype.startswith("float")):
                where = f"{spec.place}.steps[{after}]"
                problems.append(Problem(where, f"{later.name} cannot stand behind pca; valid: cast to a float."))
        return spec.steps[:index], step, tail
    return spec.steps, None, ()


def _lane(
    spec: FeatureSpec, column: str, steps: tuple[Step, ...], schema: pa.Schema, problems: list[Problem]
) -> Lane | None:
    if schema.get_field_index(column) < 0:
        text = f"there is no column {column!r}.{did_you_mean(column, schema.names)}"
        problems.append(Problem(f"{spec.place}.columns", text))
        return None
    try:
        kind = schema.field(column).type
        if spec.role == "kept" and pa.types.is_time(kind):
            raise Unfit(f"it is {kind}. `derive` its text, `cast({sql_name(column)} as varchar)`, and keep that.")
        kinds = [source_kind(kind)]
    except Unfit as error:
        problems.append(Problem(f"{spec.place}.columns", f"column {column!r} cannot be used: {error}"))
        return None
    if spec.role == "label":
        wrong = [(index, text) for index, step in enumerate(steps) for text in label_problems(step)]
        problems += [Problem(f"{spec.place}.steps[{index}]", text) for index, text in wrong]
        if wrong:
            return None
        steps = tuple(map(label_step, steps))
    for index, step in enumerate(steps):
        try:
            kinds.append(step.kind(kinds[-1], index))
        except Unfit as error:
            problems.append(Problem(f"{spec.place}.steps[{index}]", f"column {column!r}: {error}"))
            return None
    text = _output_problem(spec, kinds[-1])
    if text:
        problems.append(Problem(spec.place, f"column {column!r}: {text}"))
        return None
    levels, folds = _levels(steps)
    return Lane(column, steps, tuple(kinds), levels, folds)


def _output_problem(spec: FeatureSpec, kind: ValueType) -> str:
    if kind.base == "time":
        return _time_problem(spec, kind)
    if kind.base == "list" and (spec.vector or spec.role in ("label", "weight")):
        return f"it is a list ({kind.source}), which only passes through as a feature of its own."
    if kind.base == "text" and spec.vector:
        return "text cannot be part of a vector. Encode it, or leave out `name`."
    if kind.base == "text" and spec.role == "label":
        return "a label of text needs an encoder; put `steps: [ordinal_encode]` with it."
    if spec.role == "weight" and not kind.is_number:
        return f"a weight is one number a row, and the column is {describe(kind)}."
    inexact = spec.role == "kept" and kind.width is not None and pa.types.is_decimal(item_of(kind.source))
    no_place = f"it is {kind.source}, and no record holds a fixed number of decimals exactly. Leave it out of `keep`."
    return no_place if inexact else ""


def _time_problem(spec: FeatureSpec, kind: ValueType) -> str:
    if spec.role in ("feature", "label"):
        return f"it is {kind.source}, which needs `cast: int64` (microseconds since 1970)."
    column = sql_name(spec.columns[0])
    if spec.role == "weight":
        return f"it is {kind.source}: `derive` a number such as `epoch({column})` and make that the weight."
    fine = pa.types.is_timestamp(kind.source) and kind.source.unit == "ns"
    function, unit = ("epoch_ns", "nanoseconds") if fine else ("epoch_us", "microseconds")
    return (
        f"it is {kind.source}: `derive` a whole number, `{function}({column})` ({unit} since 1970), or text, "
        f"`cast({column} as varchar)`, and keep that."
    )


def _levels(steps: tuple[Step, ...]) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    levels: list[int | None] = []
    folds: list[int | None] = []
    level, blocked, imputer = 0, False, None
    for index, step in enumerate(steps):
        if step.statistic is None:
            levels.append(None)
            folds.append(None)
            continue
        if blocked or (imputer is not None and isinstance(step, Impute)):
            level, imputer = level + 1, None
        levels.append(level)
        folds.append(imputer)
        blocked = not isinstance(step, Impute)
        imputer = index if isinstance(step, Impute) else None
    return tuple(levels), tuple(folds)


def _with_reduce(feature: Feature, reduce: Pca, index: int, problems: list[Problem]) -> Feature:
    place = f"{feature.spec.place}.steps[{index}]"
    width = 0
    for lane in feature.lanes:
        kind = lane.kinds[-1]
        width += kind.width or 1
        if kind.base in ("onehot", "list") or kind.width is not None:
            text = f"column {lane.column!r}: pca needs one number a row, and this is {describe(kind)}."
            problems.append(Problem(place, text))
    try:
        reduce.check_width(width)
    except Unfit as error:
        problems.append(Problem(place, str(error)))
    level = max((_reduce_level(lane) for lane in feature.lanes), default=0)
    scalers = tuple(_ends_in_scaler(lane) and lane.last_level == level for lane in feature.lanes)
    return replace(feature, reduce_level=level, scalers=scalers)


def _ends_in_scaler(lane: Lane) -> bool:
    return bool(lane.steps) and isinstance(lane.steps[-1], Scaler) and lane.folds[-1] is None


def _reduce_level(lane: Lane) -> int:
    if all(level is None for level in lane.levels):
        return 0
    return lane.last_level if _ends_in_scaler(lane) else lane.last_level + 1


def _role_problems(feature: Feature) -> list[str]:
    spec = feature.spec
    texts = []
    if not spec.vector and len(spec.columns) != 1:
        texts.append(f"feature {spec.name!r} has {len(spec.columns)} columns; give the block a `name`.")
    if spec.allow_null and spec.role != "feature":
        texts.append(f"allow_null is for float features, and {spec.name!r} is a {spec.role}.")
    elif spec.allow_null and not any(lane.kinds[-1].base == "float" for lane in feature.lanes):
        kind = feature.lanes[0].kinds[-1]
        texts.append(
            f"allow_null writes NaN, which only float features have, and {spec.name!r} is {describe(kind)}. "
            f"{_without_nan(kind)}"
        )
    learns = feature.reduce is not None or any(level is not None for lane in feature.lanes for level in lane.levels)
    if spec.role == "weight" and learns:
        texts.append("a weight is not fitted; derive it instead.")
    return texts


def _without_nan(kind: ValueType) -> str:
    """What to do instead of allow_null."""
    if kind.base == "list":
        return "Leave allow_null out, and rows with nulls with `source.where`."
    if kind.base == "text":
        return "Leave it out and encode the column, or `derive` it with `coalesce`."
    if kind.base == "onehot" or kind.encoder is not None:
        return "Leave it out."
    return f"{'Impute it, or put' if kind.width is None else 'Put'} `cast: float32` with it."


def _indicators(feature: Feature) -> list[Feature]:
    """The further output of an imputer with `indicator`: where values were missing."""
    for index, step in enumerate(feature.spec.steps):
        if isinstance(step, Impute) and step.indicator:
            spec = replace(feature.spec, name=f"{feature.spec.name}_missing", allow_null=False)
            lanes = tuple(
                Lane(lane.column, lane.steps[:index], lane.kinds[: index + 1], lane.levels[:index], lane.folds[:index])
                for lane in feature.lanes
            )
            return [Feature(spec, lanes, indicator=index)]
    return []


def _names(specs: Sequence[FeatureSpec]) -> list[Problem]:
    """Names that an output cannot have, one for each place."""
    found: dict[str, Problem] = {}
    for spec in specs:
        if not spec.name or "/" in spec.name:
            text = f"{spec.name!r} cannot name an output: names are not empty and hold no '/', which Keras refuses. "
            found.setdefault(spec.place or spec.name, Problem(spec.place, text + _rename(spec)))
    return list(found.values())


def _rename(spec: FeatureSpec) -> str:
    if spec.role == "feature":
        return f"Give it another name with `{'name' if spec.vector else 'as'}`."
    use = "keep" if spec.role == "kept" else "use"
    return f"`derive` the column under another name, and {use} that."


def _twice(features: Sequence[Feature]) -> list[Problem]:
    seen: dict[str, FeatureSpec] = {}
    problems = []
    for feature in features:
        spec = feature.spec
        other = seen.setdefault(spec.name, spec)
        if other is spec:
            continue
        if {spec.role, other.role} == {"feature", "label"} and spec.columns == other.columns:
            at = spec if spec.role == "feature" else other
            text = f"the label {spec.name!r} is a feature, too, to be copied by any model. Take it out of the features."
            problems.append(Problem(at.place, text))
            continue
        named = f"Give the feature another name with `{'name' if other.vector else 'as'}`."
        way = named if spec.role != "feature" and other.role == "feature" else _rename(spec)
        text = f"the output {spec.name!r} is already made by {other.place or 'another feature'}. {way}"
        problems.append(Problem(spec.place, text))
    return problems


def _reasons(features: Sequence[Feature]) -> tuple[str, ...]:
    """Level by level: which steps of which features are fitted there."""
    found: dict[int, dict[str, dict[str, None]]] = {}

    def note(level: int, step: Step, feature: str) -> None:
        found.setdefault(level, {}).setdefault(step.name, {})[feature] = None

    for feature in features:
        for lane in feature.lanes:
            for step, level in zip(lane.steps, lane.levels, strict=True):
                if level is not None:
                    note(level, step, feature.spec.name)
        if feature.reduce is not None:
            note(feature.reduce_level, feature.reduce, feature.spec.name)
    return tuple(_reason(level, found.get(level, {})) for level in range(max(found, default=-1) + 1))


def _reason(level: int, steps: dict[str, dict[str, None]]) -> str:
    parts = [f"{name} of {_few(list(features))}" for name, features in steps.items()]
    why = "" if level == 0 else " (its input is fitted in the level before)"
    return f"level {level + 1}: {'; '.join(parts)}{why}"


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
