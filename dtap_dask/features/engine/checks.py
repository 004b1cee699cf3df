"""Nulls, infinities and negative weights that would reach an output: counted, then reported with a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Decimals, Numbers, numbers
from dtap_dask.features.engine.remedy import Cures, Path, cures, remedy, steps_of
from dtap_dask.features.graph.graph import Graph, Output, Value, paths
from dtap_dask.features.quoting import condition, sql_name


@dataclass(frozen=True)
class Watch:
    """What a source column must not hold, because of one feature."""

    column: str
    feature: str
    role: str
    step: str
    nulls: bool
    infinities: bool
    negatives: bool
    cures: Cures
    clips: bool | None


def null_is_wrong(output: Output, value: Value) -> bool:
    """Whether a null of one of an output's values is an error."""
    if not output.allow_null:
        return True
    # beside a float in a vector everything is float
    return not output.vector and value.type.base != "float"


def watches(graph: Graph) -> tuple[Watch, ...]:
    """What to look for in the columns of the lake."""
    found = []
    for output in graph.outputs:
        for value in output.values:
            found += [_watch(output, path) for path in paths(value) if path[0].columns[0] in output.columns]
    return tuple(watch for watch in found if watch.nulls or watch.infinities or watch.negatives)


def _watch(output: Output, path: Path) -> Watch:
    [column] = path[0].columns
    value, steps = path[-1], steps_of(path)
    return Watch(
        column,
        output.name,
        output.role,
        steps[0].name if steps else "passthrough",
        nulls=null_is_wrong(output, value) and column in value.type.nulls,
        infinities=column in value.type.infinities,
        negatives=output.role == "weight" and not steps,
        cures=cures(output, path),
        clips=can_clip(output, path),
    )


def by_column(wanted: Sequence[Watch]) -> tuple[Watch, ...]:
    """One watch a column, for all that any feature looks for in it: nothing is counted twice."""
    merged: dict[str, Watch] = {}
    for watch in wanted:
        known = merged.setdefault(watch.column, watch)
        merged[watch.column] = replace(
            known,
            nulls=known.nulls or watch.nulls,
            infinities=known.infinities or watch.infinities,
            negatives=known.negatives or watch.negatives,
        )
    return tuple(merged.values())


@dataclass
class Findings:
    """How many values of each column are wrong, over all rows seen."""

    rows: int = 0
    nulls: Counter[str] = field(default_factory=Counter)
    infinities: Counter[str] = field(default_factory=Counter)
    negatives: Counter[str] = field(default_factory=Counter)

    def look(self, watch: Watch, column: Column) -> None:
        """Count what is wrong in one batch of one column; `watch` must be the column's only one, see `by_column`."""
        if watch.nulls:
            nulls = column.nulls()
            if nulls is not None:
                self.nulls[watch.column] += int(np.count_nonzero(nulls))
        if watch.infinities:
            self.infinities[watch.column] += column.infinities()
        if watch.negatives and isinstance(column, Numbers | Decimals):
            self.negatives[watch.column] += int(np.count_nonzero(numbers(column).values < 0))

    @staticmethod
    def together(parts: Iterable[Findings]) -> Findings:
        """The sum of all parts."""
        total = Findings()
        for part in parts:
            total.rows += part.rows
            total.nulls.update(part.nulls)
            total.infinities.update(part.infinities)
            total.negatives.update(part.negatives)
        return total

    def refuse(self, wanted: Sequence[Watch]) -> None:
        """Raise DataError if anything was found."""
        self._refuse_nulls([watch for watch in wanted if watch.nulls and self.nulls[watch.column]])
        for watch in wanted:
            if watch.infinities and self.infinities[watch.column]:
                raise infinite(self.infinities[watch.column], watch.column, watch.feature, watch.step, watch.clips)
            if watch.negatives and self.negatives[watch.column]:
                raise negative(self.negatives[watch.column], watch.column)

    def _refuse_nulls(self, wrong: Sequence[Watch]) -> None:
        if not wrong:
            return
        columns: dict[str, Cures] = {}
        for watch in wrong:
            columns.setdefault(watch.column, watch.cures)
        listed = [f"{name!r} ({self.nulls[name]:,})" for name in columns]
        what = ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
        raise DataError(
            f"Nulls (or NaN) of {'column' if len(columns) == 1 else 'columns'} {what} would reach the output "
            f"in {self.rows:,} rows. {remedy(list(columns.items()))}"
        )


def can_clip(output: Output, path: Path) -> bool | None:
    """Whether `clip` can be used on the column; None for lists and vectors, which no condition looks into either."""
    if path[0].type.base == "list" or path[0].type.width is not None:
        return None
    return output.role in ("feature", "label")


def infinite(
    count: int, column: str, feature: str, step: str, clips: bool | None = True, *, several: bool = False
) -> DataError:
    """The error for infinities that a step was given or made; `clips` says whether `clip` can be used on the column.

    `several`: the step takes several columns, which no one condition names.
    """
    made = "" if feature == column else f" (feature {feature!r})"
    name = sql_name(column)
    finite = f"({name} > -1 and isfinite({name}))" if step == "log1p" else f"isfinite({name})"
    rows = condition(f"{name} is null or {finite}")
    if clips is None:
        way = "Leave the column out"
    elif several:
        way = "Put `clip` before the step"
    elif step.startswith("output"):
        way = "Put `clip` last among its steps" if clips else "`derive` a column without them"
    else:
        other = "put `clip` before the step" if clips else "`derive` a column without them"
        way = f"Leave such rows out with {rows}, or {other}"
    return DataError(f"{count:,} values of column {column!r}{made} are infinite at step {step}. {way}.")


def negative(count: int, column: str) -> DataError:
    """The error for negative weights."""
    return DataError(
        f"{count:,} values of the weight {column!r} are negative. Leave such rows out with "
        f"{condition(f'{sql_name(column)} >= 0')}, or derive a weight that is never negative."
    )
