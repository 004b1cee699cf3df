"""The columns of a source: every name that its files have, in the common type of all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dtap_dask.errors import SourceError
from dtap_dask.lake.common_type import common_type

_LEAVE_OUT = "Leave the column out of the job, rewrite the file, or give each kind of file a job of its own."


@dataclass(frozen=True)
class FileColumns:
    """The schema (canonical types) of a number of files that share it; `example` is the first of them.

    A name may occur twice. `filled`: whether the files have rows.
    """

    schema: pa.Schema
    filled: bool
    example: str
    files: int = 1


def merge_file_columns(parts: Iterable[FileColumns]) -> tuple[FileColumns, ...]:
    """Parts with the same schema merged into one, in order of first occurrence."""
    known: dict[tuple[int, bool], int] = {}  # identical objects need no comparison
    found: list[FileColumns] = []
    counts: list[int] = []
    for part in (parts := list(parts)):
        key = id(part.schema), part.filled
        if key not in known:
            alike = (at for at, one in enumerate(found) if one.filled == part.filled and one.schema == part.schema)
            known[key] = next(alike, len(found))
            if known[key] == len(found):
                found.append(part)
                counts.append(0)
        counts[known[key]] += part.files
    return tuple(replace(one, files=count) for one, count in zip(found, counts, strict=True))


@dataclass(frozen=True)
class SourceColumns:
    """Each column of a source in its common type, in order of first occurrence.

    `refused`: why a column cannot be read; its type is then that of the first file. `missing`: for a column that some
    files lack, their number and an example; `files` is the number of all files. `retyped`: for a column that some file
    has in another kind of type, that type, the common type and the file.
    """

    schema: pa.Schema
    refused: Mapping[str, str]
    missing: Mapping[str, tuple[int, str]]
    retyped: Mapping[str, tuple[pa.DataType, pa.DataType, str]]
    files: int

    def refuse(self, names: Iterable[str]) -> None:
        """SourceError if one of these columns cannot be read."""
        texts = [self.refused[name] for name in names if name in self.refused]
        if texts:
            more = f" So it is with {len(texts) - 1:,} more columns." if len(texts) > 1 else ""
            raise SourceError(texts[0] + more)

    def warnings(self, names: Iterable[str]) -> Iterator[str]:
        """Warnings about these columns that do not keep them from being read."""
        names = list(names)
        lacking = [name for name in names if name in self.missing]
        if lacking:
            examples = [f"{name!r} ({self._lacking(name)})" for name in lacking[:3]]
            more = f" and {len(lacking) - 3:,} more" if len(lacking) > 3 else ""
            yield (
                f"Some files lack columns, which are null there: {', '.join(examples)}{more}. If that is not meant, "
                "move those files into a folder whose name begins with `_`."
            )
        for name in names:
            if name in self.retyped:
                kind, common, file = self.retyped[name]
                yield f"Column {name!r} is {kind} in {file}, and read as {common}, as it is {common} in other files."

    def _lacking(self, name: str) -> str:
        count, example = self.missing[name]
        return f"{count:,} of {self.files:,} files, such as {example}"


def source_columns(parts: Sequence[FileColumns]) -> SourceColumns:
    """The columns of all files; files without rows count only if no file has any."""
    counted = [part for part in parts if part.filled] or list(parts)
    table = _Merger()
    for part in counted:
        table.add(part)
    table.find_missing(counted)
    schema = pa.schema([pa.field(name, kind) for name, kind in table.types.items()])
    retyped = {name: one for name, one in table.retyped(counted) if name not in table.refused}
    return SourceColumns(schema, table.refused, table.missing, retyped, sum(part.files for part in counted))


class _Merger:
    """Merges schemas one by one: common types, the file that each type comes from, and problems."""

    def __init__(self) -> None:
        self.types: dict[str, pa.DataType] = {}
        self.refused: dict[str, str] = {}
        self.missing: dict[str, tuple[int, str]] = {}
        self._first: dict[str, tuple[pa.DataType, str]] = {}

    def add(self, part: FileColumns) -> None:
        """Merge the schema of some files."""
        twice = {name for name, count in Counter(part.schema.names).items() if count > 1}
        for name in twice:
            self.refused.setdefault(
                name,
                f"{part.example} has several columns of the name {name!r}, so it is not clear which one is meant. "
                "Leave it out of the job, or rewrite the file with distinct names.",
            )
        for field in part.schema:
            if field.name not in twice:
                self._add(field.name, field.type, part.example)
            else:
                self.types.setdefault(field.name, field.type)

    def _add(self, name: str, kind: pa.DataType, example: str) -> None:
        before = self.types.get(name, pa.null())
        common = common_type(before, kind)
        if common is None:
            first, file = self._first[name]
            self.refused.setdefault(
                name,
                f"Column {name!r} is {first} in {file}, but {kind} in {example}, and no type holds the values of both "
                f"as they are. {_LEAVE_OUT}",
            )
            return
        if name not in self._first or pa.types.is_null(before):
            self._first[name] = kind, example
        self.types[name] = common

    def find_missing(self, parts: Sequence[FileColumns]) -> None:
        """Record which files lack which columns; refuse a column whose name differs between files in case only."""
        for part in parts:
            there = set(part.schema.names)
            if len(there) == len(self.types):
                continue
            by_case = {name.lower(): name for name in there}
            for name in self.types:
                if name in there:
                    continue
                count, example = self.missing.get(name, (0, part.example))
                self.missing[name] = count + part.files, example
                other = by_case.get(name.lower())
                if other is not None:
                    self.refused.setdefault(
                        name,
                        f"Column {name!r} is called {other!r} in {part.example}: names that differ by case only are "
                        f"not taken for one. {_LEAVE_OUT}",
                    )

    def retyped(self, parts: Sequence[FileColumns]) -> Iterator[tuple[str, tuple[pa.DataType, pa.DataType, str]]]:
        """Columns that some file has in another kind of type than the common one."""
        seen = set[str]()
        for part in parts:
            for field in part.schema:
                common = self.types[field.name]
                if field.name not in seen and _is_other_kind(field.type, common):
                    seen.add(field.name)
                    yield field.name, (field.type, common, part.example)


def _is_other_kind(kind: pa.DataType, common: pa.DataType) -> bool:
    """Whether `kind` and `common` differ in more than their width."""
    if kind == common or pa.types.is_null(kind) or pa.types.is_nested(kind):
        return False
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(common):
        return bool(kind.tz != common.tz)
    widths = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return not any(is_kind(kind) and is_kind(common) for is_kind in widths)
