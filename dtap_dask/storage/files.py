"""The operations that a store needs from a filesystem. Paths are absolute, in the filesystem's own notation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class FileInfo:
    """One file: its path relative to the store's root, '/'-separated, and its size in bytes.

    `broken` is a symbolic link that leads nowhere or back to a folder around it; its size is 0. `version` changes
    when the file's content does (`mtime=...`, `etag=...`); None where the filesystem says nothing of the kind.
    """

    path: str
    size: int
    broken: bool = False
    version: str | None = field(default=None, compare=False)


def replaced(then: str | None, now: str | None) -> bool:
    """Whether two versions of one file are of the same kind and differ."""
    if then is None or now is None or then.partition("=")[0] != now.partition("=")[0]:
        return False
    return then != now


class Files(Protocol):
    """The operations; each raises the same kinds of OSError as Python's own files.

    Those that change something stay below the store's root: through a symbolic link there they write nothing
    (StorageError) and find nothing to delete.
    """

    def walk(self, root: str, top: str, *, follow: bool = True) -> list[FileInfo]:
        """Every file below `top`, in any order, by its path relative to `root`; empty when there is no such folder.

        Without `follow`, symbolic links are left out, and so is everything behind them.
        """

    def is_file(self, path: str) -> bool:
        """Whether this is a file."""

    def exists(self, path: str) -> bool:
        """Whether this is a file or folder."""

    def size(self, path: str) -> int:
        """The size of a file in bytes."""

    def info(self, path: str) -> FileInfo:
        """Size and version of a file, under the path given."""

    def version(self, file: BinaryIO, path: str) -> str | None:
        """The version of a file that `open_input` has opened."""

    def open_input(self, path: str) -> BinaryIO:
        """A seekable file without read-ahead."""

    def open_output(self, path: str) -> BinaryIO:
        """A new file, in place of any that is there. The folder must exist."""

    def sync(self, file: BinaryIO) -> None:
        """Put what was written to `file` on stable storage, if closing it does not."""

    def sync_folder(self, path: str) -> None:
        """Put the names in a folder on stable storage, if the filesystem does not do so by itself."""

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; an existing one is fine."""

    def publish(self, source: str, target: str) -> None:
        """Rename a file; FileExistsError where something has that name."""

    def replace(self, source: str, target: str) -> None:
        """Rename a file, over one that is there."""

    def move(self, source: str, target: str) -> None:
        """The same, but the new name need not be on stable storage before `sync_folder`."""

    def delete(self, path: str) -> None:
        """Remove a file; FileNotFoundError where there is none."""

    def delete_empty(self, path: str) -> None:
        """Remove an empty folder; OSError with ENOTEMPTY for any other."""

    def delete_tree(self, path: str) -> None:
        """Remove a file, or a folder and all below it; a missing one is fine."""
