"""Row groups of a plan, one or many: where they are, and the size of the columns that a job needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from dtap_dask.lake.listing.discover import SourceFile


@dataclass(frozen=True)
class RowGroup:
    """One row group of a plan: its place and the size of the columns that the job needs.

    `first_row` is the number of rows before it in its file. `bytes` (compressed) and `raw_bytes` (uncompressed, as
    encoded) count the needed columns only. `file_size`, `version` (see FileInfo), `footer_bytes` (the length of the
    footer) and `footer_crc` (its CRC32C) describe the file, to detect that it was replaced. `partition` holds the raw
    hive values, in the order of the partition schema.
    """

    file: str
    key: str
    index: int
    rows: int
    first_row: int
    bytes: int
    raw_bytes: int
    partition: tuple[str | None, ...]
    file_size: int
    footer_bytes: int
    footer_crc: int
    version: str | None


COLUMNS = ("file", "index", "rows", "first_row", "bytes", "raw_bytes", "footer_bytes", "footer_crc")


@dataclass(frozen=True, eq=False)
class RowGroups(Sequence[RowGroup]):
    """Many row groups in little memory: a million take 64 MB besides their files; RowGroup objects are made on access.

    `numbers` has one row per row group: the position of its file in `files`, then RowGroup's fields index, rows,
    first_row, bytes, raw_bytes, footer_bytes and footer_crc; int64, shape [groups, 8].
    """

    files: Sequence[SourceFile]
    numbers: npt.NDArray[np.int64]

    @classmethod
    def concat(cls, parts: Sequence[RowGroups]) -> RowGroups:
        """The row groups of all parts, in order."""
        first = np.cumsum([0, *(len(part.files) for part in parts)])
        numbers = np.concatenate([np.empty((0, len(COLUMNS)), np.int64), *(part.numbers for part in parts)])
        numbers[:, 0] += np.repeat(first[:-1], [len(part) for part in parts])
        return cls([file for part in parts for file in part.files], numbers)

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """One field of all row groups, int64 [groups]; `file` is the position in `files`."""
        return self.numbers[:, COLUMNS.index(name)]

    @property
    def file_count(self) -> int:
        """The number of files that they are in."""
        return len(np.unique(self.column("file")))

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The rows of each row group."""
        return self.column("rows")

    @property
    def bytes(self) -> npt.NDArray[np.int64]:
        """The compressed bytes of each row group, of the needed columns."""
        return self.column("bytes")

    @property
    def raw_bytes(self) -> npt.NDArray[np.int64]:
        """The uncompressed bytes of each row group, of the needed columns."""
        return self.column("raw_bytes")

    def take(self, chosen: npt.ArrayLike) -> RowGroups:
        """A selection, by a mask or by positions."""
        return RowGroups(self.files, self.numbers[np.asarray(chosen)])

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> RowGroup: ...
    @overload
    def __getitem__(self, at: slice) -> RowGroups: ...
    def __getitem__(self, at: int | slice) -> RowGroup | RowGroups:
        if isinstance(at, slice):
            return RowGroups(self.files, self.numbers[at])
        position, index, rows, first_row, size, raw, footer, crc = self.numbers[at].tolist()
        file = self.files[position]
        partition = tuple(value for _, value in file.partition)
        return RowGroup(
            file.path, file.key, index, rows, first_row, size, raw, partition, file.size, footer, crc, file.version
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowGroups) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
