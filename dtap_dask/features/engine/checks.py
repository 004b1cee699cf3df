"""Nulls, infinities and negative weights that would reach an output: counted, then reported with a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Decimals, Lists, Mask, Numbers, numbers
from dtap_dask.features.engine.remedy import Cures, ValuePath, cures, remedy, steps_of
from dtap_dask.features.graph.graph import Graph, Output
from dtap_dask.features.graph.value import Value, paths
from dtap_dask.features.quoting import condition, sql_name
from dtap_dask.features.steps.valuetype import elements_in


@dataclass(frozen=True)
class ColumnCheck:
    """What a column of the lake must not hold because of one output; `holes` are nulls inside lists."""

    column: str
    feature: str
    role: str
    step: str
    nulls: bool
    holes: bool
    infinities: bool
    negatives: bool
    cures: Cures
    clips: bool
    testable: bool


def null_is_wrong(output: Output, value: Value) -> bool:
    """Whether a null of one of an output's values is an error."""
    if not output.allow_null:
        return True
    # beside a float in a vector everything is float
    return not output.vector and value.type.base != "float"


def column_checks(graph: Graph) -> tuple[ColumnCheck, ...]:
    """The checks of the columns of the lake that the outputs need."""
    found = []
    for output in graph.outputs:
        for value in output.values:
            found += [_check(output, path) for path in paths(value) if path[0].columns[0] in output.columns]
    return tuple(one for one in found if one.nulls or one.holes or one.infinities or one.negatives)


def _check(output: Output, path: ValuePath) -> ColumnCheck:
    [column] = path[0].columns
    value, steps = path[-1], steps_of(path)
    wrong = value.type.nulls if null_is_wrong(output, value) else frozenset()
    whole = not any(step.cuts for step in steps)  # or the elements that are left are checked when they are written
    return ColumnCheck(
        column,
        output.name,
        output.role,
        steps[0].title if steps else "passthrough",
        nulls=column in wrong,
        holes=whole and elements_in(column) in wrong,
        infinities=whole and column in value.type.infinities,
        negatives=output.role == "weight" and not steps,
        cures=cures(output, path),
        clips=can_clip(output),
        testable=is_testable(path[0]),
    )


def merged_by_column(wanted: Sequence[ColumnCheck]) -> tuple[ColumnCheck, ...]:
    """One check for each column, with all that any output needs, so that nothing is counted twice."""
    merged: dict[str, ColumnCheck] = {}
    for check in wanted:
        known = merged.setdefault(check.column, check)
        merged[check.column] = replace(
            known,
            nulls=known.nulls or check.nulls,
            holes=known.holes or check.holes,
            infinities=known.infinities or check.infinities,
            negatives=known.negatives or check.negatives,
        )
    return tuple(merged.values())


@dataclass
class Findings:
    """The number of wrong values of each column, over all rows seen."""

    rows: int = 0
    nulls: Counter[str] = field(default_factory=Counter)
    infinities: Counter[str] = field(default_factory=Counter)
    negatives: Counter[str] = field(default_factory=Counter)

    def count(self, check: ColumnCheck, column: Column) -> None:
        """Count what is wrong in one batch of a column; `check` must be its only one (`merged_by_column`)."""
        nulls = _nulls(check, column)
        if nulls is not None:
            self.nulls[check.column] += int(np.count_nonzero(nulls))
        if check.infinities:
            self.infinities[check.column] += column.infinities()
        if check.negatives and isinstance(column, Numbers | Decimals):
            self.negatives[check.column] += int(np.count_nonzero(numbers(column).values < 0))

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

    def refuse(self, wanted: Sequence[ColumnCheck]) -> None:
        """Raise DataError if anything was found."""
        self._refuse_nulls([check for check in wanted if (check.nulls or check.holes) and self.nulls[check.column]])
        for check in wanted:
            if check.infinities and self.infinities[check.column]:
                count = self.infinities[check.column]
                raise infinite(
                    count, check.column, check.feature, check.step, clips=check.clips, testable=check.testable
                )
            if check.negatives and self.negatives[check.column]:
                raise negative(self.negatives[check.column], check.column)

    def _refuse_nulls(self, wrong: Sequence[ColumnCheck]) -> None:
        if not wrong:
            return
        columns: dict[str, Cures] = {}
        for check in wrong:
            columns.setdefault(check.column, check.cures)
        listed = [f"{name!r} ({self.nulls[name]:,})" for name in columns]
        what = ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
        raise DataError(
            f"Nulls (or NaN) of {'column' if len(columns) == 1 else 'columns'} {what} among {self.rows:,} "
            f"rows would reach the output. {remedy(list(columns.items()))}"
        )


def _nulls(check: ColumnCheck, column: Column) -> Mask | None:
    """The rows with nulls that must not be there."""
    if not isinstance(column, Lists):
        return column.nulls() if check.nulls else None
    if check.nulls:
        return column.nulls() if check.holes else column.missing()
    return column.holes() if check.holes else None


def can_clip(output: Output) -> bool:
    """Whether an output may have steps, such as `clip`."""
    return output.role in ("feature", "label")


def is_testable(value: Value) -> bool:
    """Whether one condition finds the rows in which a value is wrong: it is made of one column, which holds neither
    lists nor vectors."""
    sources = [path[0].type for path in paths(value)]
    return len(value.columns) == 1 and all(one.base != "list" and one.width is None for one in sources)


def infinite(
    count: int, column: str, feature: str, step: str, *, clips: bool = True, testable: bool = True
) -> DataError:
    """The error for infinities that a step was given or made: see `can_clip` and `is_testable`."""
    made = "" if feature == column else f" (feature {feature!r})"
    name = sql_name(column)
    finite = f"({name} > -1 and isfinite({name}))" if step == "log1p" else f"isfinite({name})"
    rows = condition(f"{name} is null or {finite}")
    if step.startswith("output"):
        way = (
            "Put `cast: float64` last among its steps, or `clip` before it"
            if clips
            else "`derive` a column without them"
        )
    elif not testable:
        way = "Put `clip` before the step" if clips else "Leave the column out"
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
