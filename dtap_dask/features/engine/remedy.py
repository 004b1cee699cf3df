"""What to do about nulls that would reach an output: only what the column, its steps and its role allow."""

from __future__ import annotations

from collections.abc import Sequence

from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value
from dtap_dask.features.quoting import condition, sql_name
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.valuetype import elements_in, has_null_places

Cures = tuple[str, ...]
ValuePath = tuple[Value, ...]  # from a column to an output's value

_ROWS = "leave such rows out with {where}"
_HOLES = "leave the column out where it is the lists that hold nulls"
_USE = {"label": "make that the label", "weight": "make that the weight", "kept": "keep that"}
_VALUES = {"text": "''", "bool": "false"}


def steps_of(path: ValuePath) -> list[Operation]:
    """The operations of a path, the first applied first."""
    return [value.applied for value in path[1:]]


def cures(output: Output, path: ValuePath) -> Cures:
    """What can be done about nulls of a column; {where} and {column} are to be filled in."""
    role, source = output.role, path[0].type
    if source.base == "list" and role == "feature":
        return _of_lists(path)
    if role != "feature":
        if source.width is not None or source.base == "list":
            return _ROWS, _HOLES
        value = "..." if source.base == "time" else _VALUES.get(source.base, "0")
        return _ROWS, f"`derive` a column such as `coalesce({{column}}, {value})` and {_USE[role]}"
    if any(getattr(step, "null", "") == "error" for step in steps_of(path)):
        return _ROWS, "leave out `null: error`"
    allowed = ("set `allow_null: true` to write NaN",) if _takes_nan(output, path) else ()
    whole = (_HOLES,) if source.width is not None else ()
    return *_filled(path), _ROWS, *whole, *allowed


def _of_lists(path: ValuePath) -> Cures:
    [column] = path[0].columns
    place = "before the other steps" if len(path) > 1 else "with it"
    found = {
        column: (f"put `null_as_empty` {place} to have empty lists in place of nulls", _ROWS),
        elements_in(column): (f"put `impute: {{{{strategy: constant, value: ...}}}}` {place} where lists hold nulls",),
    }
    return tuple(cure for name, cures in found.items() if name in path[-1].type.nulls for cure in cures)


def _filled(path: ValuePath) -> Cures:
    source, result = path[0].type, path[-1].type
    if source.width is not None and not has_null_places(source):
        return ()
    if result.base in ("text", "bool"):
        fill = f"`derive` a column such as `coalesce({{column}}, {_VALUES[result.base]})`"
        encode = "encode it (`ordinal_encode` gives null the id 0)"
        return (encode, fill) if result.base == source.base else (encode,)
    if source.base == "text" and any(step.name in ("tokenize", "text_hash") for step in steps_of(path)):
        return ("put `impute: {{strategy: constant, value: ''}}` before the other steps",)
    if any(step.name == "datetime_parts" for step in steps_of(path)):
        return ("put `impute` behind `datetime_parts`",)
    if source.base in ("text", "time"):
        return ("put `impute` behind the cast",)
    return ("put `impute` before the other steps" if len(path) > 1 else "put `impute` with it",)


def _takes_nan(output: Output, path: ValuePath) -> bool:
    """Whether allow_null would help: in a vector every column is a float beside one that is."""
    if any(step.on_block for step in steps_of(path)):
        return False
    return any(value.type.base == "float" for value in (output.values if output.vector else path[-1:]))


def remedy(wrong: Sequence[tuple[str, Cures]]) -> str:
    """What to do about nulls of columns, each with its cures: a sentence for all columns alike."""
    groups: dict[Cures, list[str]] = {}
    for column, known in wrong:
        groups.setdefault(known, []).append(column)
    sentences = []
    for known, columns in groups.items():
        where = condition(" and ".join(f"{sql_name(name)} is not null" for name in columns[:3]))
        listed = [cure.format(where=where, column=sql_name(columns[0])) for cure in known]
        said = listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + ", or " + listed[-1]
        names = ", ".join(map(repr, columns[:3])) + (", ..." if len(columns) > 3 else "")
        sentences.append(f"For {names}: {said}." if len(groups) > 1 else f"{said[0].upper()}{said[1:]}.")
    return " ".join(sentences[:4])
