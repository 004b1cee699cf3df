"""Operations on names of a Hadoop filesystem through libhdfs's own calls, as pyarrow's hide too much.

pyarrow reports any failure to inspect a path as "not found", and its move deletes an existing target, so that several
of the writers that race for a name would win. The library is the one that pyarrow has loaded; both use the same JVM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Mapping
from ctypes import c_char_p, c_int, c_int16, c_int64, c_long, c_uint16, c_void_p
from dataclasses import dataclass
from typing import Any

REFUSED = 255  # libhdfs's errno for a Java exception that has no errno


class _Info(ctypes.Structure):
    """hdfsFileInfo in hdfs.h, the same in all versions."""

    _fields_ = (
        ("kind", c_int),
        ("name", c_char_p),
        ("modified", c_long),
        ("size", c_int64),
        ("replication", c_int16),
        ("block_size", c_int64),
        ("owner", c_char_p),
        ("group", c_char_p),
        ("mode", c_int16),
        ("accessed", c_long),
    )


_CALLS: dict[str, tuple[Any, list[Any]]] = {
    "hdfsNewBuilder": (c_void_p, []),
    "hdfsBuilderSetNameNode": (None, [c_void_p, c_char_p]),
    "hdfsBuilderSetNameNodePort": (None, [c_void_p, c_uint16]),
    "hdfsBuilderSetUserName": (None, [c_void_p, c_char_p]),
    "hdfsBuilderSetKerbTicketCachePath": (None, [c_void_p, c_char_p]),
    "hdfsBuilderSetForceNewInstance": (None, [c_void_p]),
    "hdfsBuilderConfSetStr": (c_int, [c_void_p, c_char_p, c_char_p]),
    "hdfsBuilderConnect": (c_void_p, [c_void_p]),
    "hdfsGetPathInfo": (c_void_p, [c_void_p, c_char_p]),
    "hdfsListDirectory": (c_void_p, [c_void_p, c_char_p, ctypes.POINTER(c_int)]),
    "hdfsFreeFileInfo": (None, [c_void_p, c_int]),
    "hdfsRename": (c_int, [c_void_p, c_char_p, c_char_p]),
    "hdfsDelete": (c_int, [c_void_p, c_char_p, c_int]),
    "hdfsCreateDirectory": (c_int, [c_void_p, c_char_p]),
}


@dataclass(frozen=True)
class Address:
    """The arguments of a connection, as in pyarrow's HadoopFileSystem; `conf` holds keys of Hadoop's configuration."""

    host: str
    port: int
    user: str | None
    kerb_ticket: str | None
    conf: Mapping[str, str]


class Names:
    """A connection for listing, renaming and deleting. Threads may share it; it lives as long as the process.

    Every failure is an OSError with libhdfs's errno, 255 if no errno matches the Java exception. Its message is Java's
    reason if libhdfs returns it (Hadoop 3's does; older versions only print it to standard error).
    """

    def __init__(self, address: Address):
        self._library = _loaded()
        builder = self._library.hdfsNewBuilder()
        kept = [(java(key), java(value)) for key, value in address.conf.items()]  # the builder does not copy them
        texts = [java(text) if text else None for text in (address.host, address.user, address.kerb_ticket)]
        self._library.hdfsBuilderSetNameNode(builder, texts[0])
        self._library.hdfsBuilderSetNameNodePort(builder, address.port)
        self._library.hdfsBuilderSetForceNewInstance(builder)
        if texts[1]:
            self._library.hdfsBuilderSetUserName(builder, texts[1])
        if texts[2]:
            self._library.hdfsBuilderSetKerbTicketCachePath(builder, texts[2])
        for key, value in kept:
            self._library.hdfsBuilderConfSetStr(builder, key, value)
        self._fs = self._library.hdfsBuilderConnect(builder)
        if not self._fs:
            raise self._failure("/")

    def info(self, path: str) -> dict[str, Any]:
        """A file's or folder's entry, as in fsspec. Raises FileNotFoundError, PermissionError or another OSError."""
        ctypes.set_errno(0)
        found = self._library.hdfsGetPathInfo(self._fs, java(path))
        if not found:
            raise self._failure(path, errno.ENOENT)
        try:
            return _entry(_Info.from_address(found), path)
        finally:
            self._library.hdfsFreeFileInfo(found, 1)

    def list(self, path: str) -> list[dict[str, Any]]:
        """A folder's entries in the store's order, or a file's own entry. Raises FileNotFoundError."""
        count = c_int(0)
        ctypes.set_errno(0)
        found = self._library.hdfsListDirectory(self._fs, java(path), ctypes.byref(count))
        if not found:
            if ctypes.get_errno():
                raise self._failure(path)
            return []
        try:
            entries = (_Info * count.value).from_address(found)
            names = [text(entry.name) for entry in entries]
            if [re.sub(r"^[A-Za-z][\w+.-]*://[^/]*", "", name) for name in names] == [path]:
                return [_entry(entries[0], path)]
            folder = path.rstrip("/")
            return [
                _entry(entry, f"{folder}/{name.rpartition('/')[2]}") for entry, name in zip(entries, names, strict=True)
            ]
        finally:
            self._library.hdfsFreeFileInfo(found, count.value)

    def rename(self, source: str, target: str) -> None:
        """Hadoop's own rename. Raises OSError with EIO if it is refused, for example because the target exists."""
        self._checked(self._library.hdfsRename, source, java(source), java(target))

    def delete(self, path: str, *, recursive: bool) -> None:
        """Delete a file or folder. Raises OSError with EIO if nothing exists there."""
        self._checked(self._library.hdfsDelete, path, java(path), int(recursive))

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; an existing one is fine."""
        self._checked(self._library.hdfsCreateDirectory, path, java(path))

    def cause(self) -> str | None:
        """Java's reason for the last failure in this thread; None if this version of libhdfs does not return it."""
        ask = getattr(self._library, "hdfsGetLastExceptionRootCause", None)
        if ask is None:
            return None
        ask.restype = c_char_p
        said = ask()
        return " ".join(text(said).split()) or None if said else None

    def _checked(self, call: Any, path: str, *arguments: Any) -> None:
        ctypes.set_errno(0)
        if call(self._fs, *arguments):
            raise self._failure(path)

    def _failure(self, path: str, default: int = REFUSED) -> OSError:
        code = ctypes.get_errno() or default
        said = self.cause() if code == REFUSED else None
        return OSError(code, said or os.strerror(code), path)


def java(name: str) -> bytes:
    """A name in Java's "modified UTF-8", which encodes a character beyond U+FFFF as two surrogates of 3 bytes each."""
    if "\0" in name:
        raise ValueError(f"a NUL in {name!r}")
    if all(character <= "\uffff" for character in name):
        return name.encode()
    units = memoryview(name.encode("utf-16")[2:]).cast("H")
    return "".join(map(chr, units)).encode("utf-8", "surrogatepass")


def text(name: bytes) -> str:
    """The inverse of `java`."""
    units = name.decode("utf-8", "surrogatepass")
    return units.encode("utf-16", "surrogatepass").decode("utf-16")


def _entry(found: _Info, path: str) -> dict[str, Any]:
    folder = found.kind == ord("D")
    return {
        "name": path,
        "size": 0 if folder else int(found.size),
        "type": "directory" if folder else "file",
        "mtime": float(found.modified),
        "owner": text(found.owner or b""),
        "group": text(found.group or b""),
        "mode": int(found.mode),
    }


def _loaded() -> Any:
    """The libhdfs that pyarrow has loaded into this process, found in its memory map."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        places = [line.split(maxsplit=5)[5].strip() for line in maps if "/libhdfs.so" in line]
    library = ctypes.CDLL(places[0], use_errno=True)
    for name, (result, arguments) in _CALLS.items():
        call = getattr(library, name)
        call.restype, call.argtypes = result, arguments
    return library
