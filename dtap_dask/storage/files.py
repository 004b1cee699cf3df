"""The operations that a store needs from a filesystem. Paths are absolute, in the filesystem's own notation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class FileInfo:
    """One file: its path relative to the store's root, '/'-separated, and its size in bytes.

    `broken` marks a symbolic link without a target, or to one of its own parent folders; its size is 0. `version`
    changes whenever the content does (`mtime=...`, `etag=...`); None if the filesystem reports nothing suitable.
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
    """The operations of a filesystem. They raise the same OSErrors as Python's own files.

    Those that change files stay below the store's root: behind a symbolic link they raise StorageError instead of
    writing, and find nothing to delete.
    """

    def walk(self, root: str, top: str, *, follow: bool = True) -> list[FileInfo]:
        """Every file below `top`, in any order, by its path relative to `root`; empty if there is no such folder.

        Without `follow`, symbolic links and everything behind them are left out.
        """

    def is_file(self, path: str) -> bool:
        """Whether the path is a file."""

    def exists(self, path: str) -> bool:
        """Whether the path is a file or folder."""

    def size(self, path: str) -> int:
        """The size of a file in bytes."""

    def info(self, path: str) -> FileInfo:
        """Size and version of a file; its path is the one given."""

    def version(self, file: BinaryIO, path: str) -> str | None:
        """The version of a file that `open_input` has opened."""

    def open_input(self, path: str) -> BinaryIO:
        """Open a file for reading: seekable, without read-ahead."""

    def open_output(self, path: str) -> BinaryIO:
        """Create a file, replacing an existing one. The folder must exist."""

    def sync(self, file: BinaryIO) -> None:
        """Put the bytes written to `file` on stable storage, if closing it does not do so."""

    def sync_folder(self, path: str) -> None:
        """Put the names in a folder on stable storage, if the filesystem does not do so by itself."""

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; an existing one is fine."""

    def publish(self, source: str, target: str) -> None:
        """Rename a file. Raises FileExistsError if `target` exists."""

    def replace(self, source: str, target: str) -> None:
        """Rename a file, replacing an existing one."""

    def move(self, source: str, target: str) -> None:
        """As `replace`, but the new name may not be on stable storage before `sync_folder`."""

    def delete(self, path: str) -> None:
        """Remove a file. Raises FileNotFoundError if it is missing."""

    def delete_empty(self, path: str) -> None:
        """Remove an empty folder. Raises OSError with ENOTEMPTY if it is not empty."""

    def delete_tree(self, path: str) -> None:
        """Remove a file, or a folder and all below it; a missing one is fine."""
