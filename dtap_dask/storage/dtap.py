"""All DataTaps as one fsspec filesystem, wherever each tap is: URLs are `dtap://Tap/path`, paths `Tap/path`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import make_instance
from fsspec.utils import tokenize

from dtap_dask.errors import StorageError
from dtap_dask.storage import taps
from dtap_dask.storage.files import Files
from dtap_dask.storage.local import LocalFiles
from dtap_dask.storage.locations import Location, locate
from dtap_dask.storage.remote import FSSPEC_OPTIONS, RemoteFiles, Renaming, reads_patterns, remove
from dtap_dask.storage.settings import WAYS, resolved, sections

_PIECE = 8 << 20


class TapFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """DataTaps for fsspec, and so for pandas, pyarrow (`filesystem=`) and Dask: `fsspec.open("dtap://Tap/path")`.

    Options are those of `dtap` (`map={"Tap": "/folder/or/url"}`, `mount_root`, `jar`, ...; see `settings`), and the
    options of other filesystems by protocol (`hdfs={...}`), or a whole `storage` section of a job. They take precedence
    over the environment. All are resolved here and pickled with the filesystem, so workers need no settings.

    Each call goes to the location of its tap; taps may be on different filesystems. Writing a file creates its parent
    folders. `exists`, `isfile` and `isdir` are False for missing paths, and raise if that cannot be determined. Raises
    StorageError for what the settings do not allow, and the OSErrors of the tap's filesystem.
    """

    protocol = "dtap"
    root_marker = ""
    cachable = False  # the environment and the folders of a map may change between two instances

    def __init__(self, **options: Any):
        super().__init__(**{key: options.pop(key) for key in FSSPEC_OPTIONS & options.keys()})
        self.settings = resolved(sections(options), self._below())
        self._locations: dict[str, Location] = {}
        default = self.settings["dtap"].get("default_tap")
        if default is not None:  # so that fsspec's own methods see the names that are returned
            self.__dict__["_strip_protocol"] = lambda path: taps.stripped(path, default)

    def _below(self) -> Mapping[str, Any]:
        """Settings that the environment overrides."""
        return {}

    # What fsspec, pickle and Dask need from an instance, all derived from the resolved settings.

    @property
    def storage_options(self) -> dict[str, Any]:
        """The options that create an equal instance in any process."""
        dtap, others = self.settings["dtap"], {key: value for key, value in self.settings.items() if key != "dtap"}
        ways = dict(dtap.get(WAYS, {}))
        for location in self._locations.values():
            ways |= location.settings["dtap"][WAYS]
        return {**dtap, WAYS: ways, **others}

    @storage_options.setter
    def storage_options(self, given: Mapping[str, Any]) -> None:
        """Ignore the options that fsspec assigns: only the resolved settings count."""

    @property
    def _fs_token(self) -> str:
        dtap = {key: value for key, value in self.settings["dtap"].items() if key != WAYS}  # they are added during use
        return str(tokenize("dtap", json.dumps({**self.settings, "dtap": dtap}, sort_keys=True, default=str)))

    @property
    def fsid(self) -> str:
        """An identifier shared by instances with the same resolved settings."""
        return f"dtap_{self._fs_token}"

    def __reduce__(self) -> tuple[Any, ...]:
        return make_instance, (type(self), (), self.storage_options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TapFileSystem) and self._fs_token == other._fs_token

    def __hash__(self) -> int:
        return int(self._fs_token, 16)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return taps.stripped(path)

    def unstrip_protocol(self, name: str) -> str:
        """`dtap://Tap/path` of a path."""
        return f"{taps.SCHEME}{self._strip_protocol(name)}"

    # Between paths of this filesystem and paths of the filesystem of a tap.

    def _there(self, path: Any) -> tuple[AbstractFileSystem, str]:
        at = taps.parse(self._strip_protocol(path))
        location = self._location(at.tap)
        return location.fs, f"{location.root.rstrip('/')}/{at.path}".rstrip("/") or "/"

    def _location(self, tap: str) -> Location:
        if tap not in self._locations:
            self._locations[tap] = locate(f"{taps.SCHEME}{tap}", self.settings)
        return self._locations[tap]

    def _entry(self, path: Any, info: Mapping[str, Any]) -> dict[str, Any]:
        """An entry of the tap's filesystem, with the name that it has in this one."""
        return {**info, "name": self._name(path, info["name"])}

    def _name(self, path: Any, name: str) -> str:
        tap = taps.parse(self._strip_protocol(path)).tap
        location = self._location(tap)
        root, inner = location.root.strip("/"), str(location.fs._strip_protocol(name)).strip("/")
        if inner == root or not root:
            return f"{tap}/{inner}" if inner != root else tap
        if not inner.startswith(f"{root}/"):
            raise StorageError(
                f"A listing of {self.unstrip_protocol(path)} names {name}, which is outside the DataTap "
                f"({location.way}). Nothing outside is touched: check what that location serves."
            )
        return f"{tap}{inner[len(root) :]}"

    def _is_top(self, path: Any) -> bool:
        """Whether a path is the top, which contains all taps."""
        return not self._strip_protocol(path)

    # Inspecting.

    def info(self, path: Any, **kwargs: Any) -> dict[str, Any]:
        if self._is_top(path):
            return _folder("")
        fs, there = self._there(path)
        return self._entry(path, fs.info(there, **kwargs))

    def exists(self, path: Any, **kwargs: Any) -> bool:
        return self._kind(path, **kwargs) is not None

    def isfile(self, path: Any) -> bool:
        return self._kind(path) == "file"

    def isdir(self, path: Any) -> bool:
        return self._kind(path) == "directory"

    def _kind(self, path: Any, **kwargs: Any) -> str | None:
        """The type that `info` reports for a path; None if, and only if, nothing is there."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return str(self.info(path, **kwargs)["type"])
        return None

    def ls(self, path: Any = "", detail: bool = True, **kwargs: Any) -> list[Any]:
        """The files and folders at a path, sorted by name; at the top, the mapped taps."""
        if self._is_top(path):
            entries = [_folder(tap) for tap in sorted(self.settings["dtap"]["map"])]
        else:
            fs, there = self._there(path)
            listed = [self._entry(path, info) for info in fs.ls(there, detail=True, **kwargs)]
            entries = sorted(listed, key=lambda info: str(info["name"]))
        return entries if detail else [info["name"] for info in entries]

    def walk(
        self, path: Any, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **kw: Any
    ) -> Any:
        """As in fsspec, but only missing folders are left out: one without read permission raises an error."""
        on_error = _unless_missing if on_error == "omit" else on_error
        return super().walk(path, maxdepth, topdown, on_error, **kw)

    def find(
        self, path: Any, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        if self._is_top(path) or type(self._there(path)[0]).find is AbstractFileSystem.find:
            return super().find(path, maxdepth, withdirs, detail, **kwargs)
        fs, there = self._there(path)
        found = fs.find(there, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        entries = sorted((self._entry(path, {"name": name, **info}) for name, info in found.items()), key=_by_name)
        return {info["name"]: info for info in entries} if detail else [info["name"] for info in entries]

    def created(self, path: Any) -> Any:
        return self._on("created", path)

    def modified(self, path: Any) -> Any:
        return self._on("modified", path)

    def invalidate_cache(self, path: Any = None) -> None:
        super().invalidate_cache(path)
        for location in self._locations.values():
            location.fs.invalidate_cache()

    # Reading and writing.

    def open(self, path: Any, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """Open a file of the tap's filesystem, which handles text, compression, caches and errors."""
        if self._intrans or "autocommit" in kwargs:
            return super().open(path, mode, *args, **kwargs)  # the file belongs to this filesystem's transaction
        fs, there = self._there(path) if "r" in mode else self._to_write(path)
        return fs.open(there, mode, *args, **kwargs)

    def _open(self, path: Any, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """Open a file within a transaction."""
        fs, there = self._there(path) if "r" in mode else self._to_write(path)
        known = isinstance(fs, LocalFileSystem | Renaming)
        if not known:
            raise NotImplementedError(
                f"{self.unstrip_protocol(path)} is on a filesystem ({type(fs).__name__}) whose transactions "
                "may not be atomic. Write under another name, then use mv or replace."
            )
        return fs._open(there, mode, *args, **kwargs)

    def cat_file(self, path: Any, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return bytes(self._on("cat_file", path, start=start, end=end, **kwargs))

    def pipe_file(self, path: Any, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        fs, there = self._to_write(path)
        fs.pipe_file(there, value, mode=mode, **kwargs)

    def touch(self, path: Any, truncate: bool = True, **kwargs: Any) -> None:
        fs, there = self._to_write(path)
        fs.touch(there, truncate=truncate, **kwargs)

    def mkdir(self, path: Any, create_parents: bool = True, **kwargs: Any) -> None:
        self._on("mkdir", path, create_parents=create_parents, **kwargs)

    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        self._on("makedirs", path, exist_ok=exist_ok)

    def cp_file(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        """Copy a file; for a folder only create the folder. Between filesystems, bytes pass through this process."""
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        (source, one), (target, two) = self._there(path1), self._to_write(path2)
        if source == target:
            source.cp_file(one, two, **kwargs)
            return
        with source.open(one, "rb") as reading:
            try:
                with target.open(two, "wb") as writing:
                    shutil.copyfileobj(reading, writing, _PIECE)
            except BaseException:
                with contextlib.suppress(OSError):
                    target.rm_file(two)
                raise

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Rename a file or folder, into `path2` if that is a folder. Between filesystems: copy, then delete."""
        one, two = self._strip_protocol(path1), self._strip_protocol(path2)
        self._refuse_roots(one)
        if self.isdir(two):
            two = f"{two}/{one.rpartition('/')[2]}"
        (source, inner), (target, outer) = self._there(one), self._to_write(two)
        if source == target and not reads_patterns(source, inner):
            source.mv(inner, outer, **kwargs)
        elif has_magic(one) and self.exists(one):
            for each in self.find(one, withdirs=True) if self.isdir(one) else [one]:
                self.cp_file(each, f"{two}{each[len(one) :]}")
            self.rm(one, recursive=True)
        else:
            super().mv(one, two, recursive=self.isdir(one), maxdepth=maxdepth)

    def publish(self, source: Any, target: Any) -> None:
        """Rename a file within a filesystem, never overwriting. Raises FileExistsError if `target` exists."""
        self._renaming(source, target, lambda files: files.publish)

    def replace(self, source: Any, target: Any) -> None:
        """Rename a file within a filesystem, replacing an existing file."""
        self._renaming(source, target, lambda files: files.replace)

    # Deleting.

    def rm_file(self, path: Any) -> None:
        self._refuse_roots(path)
        self._on("rm_file", path)

    def rmdir(self, path: Any) -> None:
        self._refuse_roots(path)
        self._on("rmdir", path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove a path or each path of a list. `*`, `?` and `[` make it a pattern unless a file has that name."""
        if maxdepth is not None:
            super().rm(path, recursive=recursive, maxdepth=maxdepth)
            return
        for given in path if isinstance(path, list) else [path]:
            name = self._strip_protocol(given)
            literal = has_magic(name) and self.exists(name)
            for one in [name] if literal else reversed(self.expand_path(name)):
                self._refuse_roots(one)
                remove(*self._there(one), recursive=recursive)

    def _on(self, method: str, path: Any, **kwargs: Any) -> Any:
        fs, there = self._there(path)
        return getattr(fs, method)(there, **kwargs)

    def _to_write(self, path: Any) -> tuple[AbstractFileSystem, str]:
        """As `_there`, and creates the parent folder if the filesystem does not do so by itself."""
        fs, there = self._there(path)
        if isinstance(fs, LocalFileSystem):
            fs.makedirs(fs._parent(there), exist_ok=True)
        return fs, there

    def _renaming(self, source: Any, target: Any, how: Callable[[Files], Callable[[str, str], None]]) -> None:
        (fs, one), (other, two) = self._there(source), self._to_write(target)
        if fs != other:
            raise OSError(
                errno.EXDEV, "Files cannot be renamed between two filesystems: copy, then delete", str(source)
            )
        if isinstance(fs, LocalFileSystem):  # here too, links in the path are followed
            how(LocalFiles("/"))(_resolved(one), _resolved(two))
        else:
            how(RemoteFiles(fs, None))(one, two)

    def _refuse_roots(self, path: Any) -> None:
        if "/" not in self._strip_protocol(path):
            url = self.unstrip_protocol(path)
            raise PermissionError(errno.EPERM, "The root of a DataTap cannot be deleted: delete its content", url)


def _resolved(path: str) -> str:
    """The path, with no symbolic links among the folders that it goes through."""
    folder, _, name = path.rpartition("/")
    return os.path.join(os.path.realpath(folder or "/"), name)


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _by_name(info: Mapping[str, Any]) -> str:
    return str(info["name"])


def _unless_missing(error: OSError) -> None:
    """Raise an error of fsspec's walk, unless a path is missing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
