"""Which files a source is made of: one explicit listing, without a single file being opened."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import unquote

from dtap_dask.errors import SourceError
from dtap_dask.storage import FileInfo, Store, open_store

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Parquet file of the source, before anything is known of its content.

    `path` is relative to the store's root, `key` to the item of `source.path` that it was found by (for a glob: to
    the folders before its first wildcard); `key` is part of the split key of rows without key columns. `size` is in
    bytes. `partition` holds the hive partition values as text (url-decoded, None for hive's null), all files in
    the same order.
    """

    path: str
    key: str
    size: int
    partition: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True)
class _Item:
    """One item of `source.path`: `origin` is scheme and authority (empty for a local path), `base` the folders before
    any wildcard (the last may be a file), `pattern` the rest."""

    written: str
    origin: str
    base: tuple[str, ...]
    pattern: tuple[str, ...]


def list_source(
    paths: str | Sequence[str], settings: Mapping[str, Any] | None = None
) -> tuple[Store, list[SourceFile]]:
    """The store that holds all of `paths` (files, folders, globs; any URLs of one filesystem) and its source files.

    Files come sorted by path, each once. Hidden files are left out: those with a folder or name, below the item,
    that begins with `_` or `.` (a partition folder such as `_x=1` is not hidden) or a name that ends in
    `._COPYING_`. Every other file counts as Parquet, whatever its name. SourceError when an item has no files, or
    when two files do not have the same partition columns.
    """
    items = [_item(path, settings) for path in ([paths] if isinstance(paths, str) else paths)]
    if not items:
        raise SourceError("`source.path` is empty. Name a file, a folder, a glob, or a list of them.")
    root = _common_root(items)
    store = open_store("/".join((items[0].origin, *root)) or "/", settings)
    found: dict[str, SourceFile] = {}
    for item in items:
        for file in _files_of(store, len(root), item):
            found.setdefault(file.path, file)
    return store, _same_partitions([found[path] for path in sorted(found)])


def contains(item: str, path: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether a folder `path` lies inside an item of `source.path`: files in it may be listed by the item.

    `path` may be the item's own folder, and need not exist. Of a glob it lies inside when a folder on the way to
    `path`, or something that may come to lie in it, matches. Symbolic links count as what they lead to, too.
    """
    parsed = _item(item, settings)
    below = _ways_down(_base_store(parsed, settings), open_store(path, settings))
    return any(way is not None and _may_match(way, parsed.pattern) for way in below)


def lies_within(item: str, path: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether an item of `source.path` (of a glob: the folders before its first wildcard) is, or lies below, `path`."""
    ways = _ways_down(open_store(path, settings), _base_store(_item(item, settings), settings))
    return any(way is not None for way in ways)


def _base_store(item: _Item, settings: Mapping[str, Any] | None) -> Store:
    return open_store("/".join((item.origin, *item.base)) or "/", settings)


def _ways_down(upper: Store, lower: Store) -> list[list[str] | None]:
    """The names that lead from one folder down to another, as written and with links resolved; None if none do."""
    if not upper.same_filesystem(lower):
        return []
    pairs = [(upper.root, lower.root)]
    if upper.local_path() is not None:
        pairs.append((os.path.realpath(upper.root), os.path.realpath(lower.root)))
    return [_way_down(*pair) for pair in pairs]


def _way_down(upper: str, lower: str) -> list[str] | None:
    above, below = ([part for part in root.split("/") if part] for root in (upper, lower))
    return below[len(above) :] if below[: len(above)] == above else None


def _may_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob may name a folder, one above it or something in it."""
    if not parts or not pattern or pattern[0] == "**":
        return True
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _may_match(parts[1:], pattern[1:])


def _item(written: str, settings: Mapping[str, Any] | None) -> _Item:
    url = written.removeprefix("file://")
    if "://" not in url:
        url = os.path.abspath(os.path.expanduser(url))
    scheme, slashes, rest = url.rpartition("://")
    authority, *parts = rest.rstrip("/").split("/")
    origin = f"{scheme}{slashes}{authority}"
    magic = 0
    while magic < len(parts) and _is_literal(origin, parts[: magic + 1], settings):
        magic += 1
    return _Item(written, origin, tuple(parts[:magic]), tuple(parts[magic:]))


def _is_literal(origin: str, parts: Sequence[str], settings: Mapping[str, Any] | None) -> bool:
    """Whether the last part is a plain name: one with brackets is, where there is such a file or folder."""
    if not re.search(r"[*?\[]", parts[-1]):
        return True
    return not re.search(r"[*?]", parts[-1]) and open_store("/".join((origin, *parts)), settings).exists()


def _common_root(items: Sequence[_Item]) -> tuple[str, ...]:
    """The deepest folder above all items; a plain item may be a file, so its parent."""
    origins = {item.origin or "the local filesystem" for item in items}
    if len(origins) > 1:
        raise SourceError(
            f"`source.path` names places on several filesystems: {', '.join(sorted(origins))}. "
            "All items of one source must be on one; copy the others there, or make a job for each."
        )
    folders = [item.base if item.pattern else item.base[:-1] for item in items]
    levels = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return tuple(names[0] for names in levels)


def _files_of(store: Store, depth: int, item: _Item) -> Iterable[SourceFile]:
    start = "/".join(item.base[depth:])
    if not item.pattern and start and store.is_file(start):
        return [SourceFile(start, item.base[-1], store.size(start), _hive(_hive_tail(item.base[:-1])))]
    listed = [(info.path[len(start) :].lstrip("/"), info) for info in store.list_files(start)]
    matching = [(key, info) for key, info in listed if not item.pattern or _matches(key, item.pattern)]
    visible = [(key, info) for key, info in matching if not is_hidden(key)]
    if not visible:
        raise SourceError(_nothing_found(item, listed, matching))
    for _, info in visible:
        _refuse_broken(store, info)
    above = _hive_tail(item.base)
    partition = cache(lambda folder: _hive([*above, *folder.split("/")]))
    return [SourceFile(info.path, key, info.size, partition(key.rpartition("/")[0])) for key, info in visible]


def is_hidden(key: str) -> bool:
    """Whether a path below a source item is scratch space, a marker or a file still being copied."""
    *folders, name = key.split("/")
    if name.startswith(("_", ".")) or name.endswith("._COPYING_"):
        return True
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in folders)


def _refuse_broken(store: Store, info: FileInfo) -> None:
    if info.broken:
        raise SourceError(
            f"{store.url}/{info.path} is a symbolic link that leads nowhere, or back to a folder around it. Repair or "
            "remove it, or give it a name that begins with `_` to leave it out."
        )


def _matches(key: str, pattern: tuple[str, ...]) -> bool:
    """Whether the glob names the file itself or a folder above it; `**` stands for any number of folders."""
    parts = key.split("/")
    return any(_matches_parts(parts[:end], pattern) for end in range(1, len(parts) + 1))


def _matches_parts(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches_parts(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches_parts(parts[1:], pattern[1:])


def _hive_tail(folders: Sequence[str]) -> list[str]:
    """The partition folders that an item itself ends in, as in `lake/trips/year=2013`."""
    return list(itertools.takewhile(lambda folder: "=" in folder, reversed(folders)))[::-1]


def _hive(folders: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    values = {unquote(key): None if raw == HIVE_NULL else unquote(raw) for key, _, raw in pairs}
    return tuple(values.items())


def _same_partitions(files: list[SourceFile]) -> list[SourceFile]:
    order = [name for name, _ in files[0].partition]
    ordered = []
    for file in files:
        names = [name for name, _ in file.partition]
        if names != order and sorted(names) != sorted(order):
            raise SourceError(
                f"The source's files do not have the same partition columns: {files[0].path} has "
                f"{_listed(order)}, {file.path} has {_listed(names)}. Point `source.path` at one table, "
                "or move the files that do not belong to it into a folder whose name begins with `_`."
            )
        same = names == order
        ordered.append(file if same else replace(file, partition=tuple((n, dict(file.partition)[n]) for n in order)))
    return ordered


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _nothing_found(
    item: _Item, listed: Sequence[tuple[str, FileInfo]], matching: Sequence[tuple[str, FileInfo]]
) -> str:
    if not listed:
        return (
            f"No files at {item.written}: the place is missing or empty. Check the path, and that the job that "
            "writes it has finished."
        )
    if not matching:
        shown = ", ".join(key for key, _ in listed[:3])
        return (
            f"No files match {item.written}: {len(listed)} files lie below its first wildcard ({shown}"
            f"{', ...' if len(listed) > 3 else ''}), none of which the glob names. Correct the glob."
        )
    shown = ", ".join(key for key, _ in matching[:3])
    return (
        f"No Parquet files at {item.written}: all {len(matching)} files there are hidden ({shown}"
        f"{', ...' if len(matching) > 3 else ''}), as a folder or a name in their path begins with `_` or `.`; these "
        "are scratch space or markers. Check that the job that writes it has finished."
    )
