"""Finds the files of a source by one explicit listing; no file is opened."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from dtap_dask.errors import SourceError
from dtap_dask.lake.listing.globs import Item, parse_item
from dtap_dask.lake.listing.hive import partition_folders, partition_values
from dtap_dask.lake.listing.table_formats import refuse_table_at, refuse_tables, streaming_warning
from dtap_dask.storage import FileInfo, Store, open_store

Found = Sequence[tuple[str, FileInfo]]  # files with their paths relative to an item
_PARQUET = (".parquet", ".parq", ".pq")
_NOT_PARQUET = (
    *(".md", ".markdown", ".rst", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml"),
    *(".html", ".htm", ".pdf", ".png", ".crc", ".md5", ".sha256", ".log", ".sql", ".py", ".ipynb", ".sh"),
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A Parquet file of the source; its content is not known yet.

    `path` is relative to the store's root, `key` to the item of `source.path` that lists it (for a glob: to the folders
    before its first wildcard). Rows without key columns are split by `key`. `size` is in bytes. `partition` holds the
    hive partition columns and their values as text (url-decoded, None for hive's null), in the same order for all
    files. `version` identifies the content, if the store knows one (see FileInfo).
    """

    path: str
    key: str
    size: int
    partition: tuple[tuple[str, str | None], ...] = ()
    version: str | None = field(default=None, compare=False)


def list_source(
    paths: str | Sequence[str],
    settings: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> tuple[Store, list[SourceFile]]:
    """The store that holds all of `paths` (files, folders, globs; any URLs of one filesystem) and its source files.

    Files are sorted by path, each listed once. Hidden files are skipped: those with a folder or name below the item
    that begins with `_` or `.` (but not partition folders such as `_x=1`), or whose name ends in `._COPYING_`. Files
    beside the data (`is_beside`) are skipped with one call of `warn`, unless an item names them. Every other file is
    taken for Parquet, whatever its name. SourceError if an item has no files, if two files have different partition
    columns, and for the folder of a table format or a folder within one.
    """
    items = [parse_item(path, settings) for path in ([paths] if isinstance(paths, str) else paths)]
    if not items:
        raise SourceError("`source.path` is empty. Name a file, a folder, a glob, or a list of them.")
    root = _common_root(items)
    store = open_store("/".join((items[0].origin, *root)) or "/", settings)
    lister = _Lister(store, len(root), settings)
    found: dict[str, SourceFile] = {}
    for item in items:
        for file in lister.files(item):
            found.setdefault(file.path, file)
    for warning in lister.warnings():
        warn(warning)
    return store, _same_partitions([found[path] for path in sorted(found)])


class _Lister:
    """Lists items of a source in `store`, whose root is the first `depth` folders of each item.

    Collects what `warnings` reports: files beside the data, and folders written by Spark's structured streaming.
    """

    def __init__(self, store: Store, depth: int, settings: Mapping[str, Any] | None):
        self._store, self._depth, self._settings = store, depth, settings
        self._beside: set[str] = set()
        self._streams: set[str] = set()
        self._above: set[str] = set()

    def files(self, item: Item) -> Iterable[SourceFile]:
        """The data files of one item."""
        store, start = self._store, "/".join(item.base[self._depth :])
        if not item.patterns and start and store.is_file(start):
            info = store.info(start)
            return [
                SourceFile(
                    start,
                    item.base[-1],
                    info.size,
                    partition_values(start, partition_folders(item.base[:-1])),
                    info.version,
                )
            ]
        listed = [(info.path[len(start) :].lstrip("/"), info) for info in store.list_files(start)]
        matching = [(key, info) for key, info in listed if item.matches(key)]
        visible = [(key, info) for key, info in matching if not is_hidden(key)]
        data = [(key, info) for key, info in visible if info.broken or not is_beside(key, info.size)]
        if not data:
            raise SourceError(_nothing_found(item, listed, matching, visible))
        self._refuse_tables(item, [key for key, _ in listed], [key for key, _ in data])
        for _, info in data:
            _refuse_broken(store, info)
        if len(data) < len(visible):
            self._beside.update({info.path for _, info in visible} - {info.path for _, info in data})
        above = partition_folders(item.base)
        values = cache(lambda folder: partition_values(folder, [*above, *folder.split("/")]))
        return [
            SourceFile(info.path, key, info.size, values(key.rpartition("/")[0]), info.version) for key, info in data
        ]

    def _refuse_tables(self, item: Item, listed: Sequence[str], chosen: Sequence[str]) -> None:
        """SourceError if chosen files belong to a table, by the listing or by the folders above the item."""
        refuse_tables("/".join((item.origin, *item.base)) or "/", listed, chosen)
        for folder in _folders_above(item, self._settings):
            if folder not in self._above:
                self._above.add(folder)
                refuse_table_at(open_store(folder, self._settings))
        stream = streaming_warning(listed)
        if stream:
            self._streams.add(stream)

    def warnings(self) -> Iterable[str]:
        """Warnings about the source."""
        if self._beside:
            many = len(self._beside)
            yield (
                f"{many:,} file{'s' * (many > 1)} beside the data {'are' if many > 1 else 'is'} skipped, as "
                f"{'they are' if many > 1 else 'it is'} empty, or not Parquet by name: "
                f"{', '.join(sorted(self._beside)[:3])}{f' and {many - 3:,} more' if many > 3 else ''}."
            )
        yield from sorted(self._streams)


def contains(item: str, path: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether an item of `source.path` may list files in the folder `path`.

    `path` may be the item's own folder, and need not exist. For a glob: whether a folder on the way to `path`, or
    anything that may be created in it, matches. Symbolic links are also followed.
    """
    parsed = parse_item(item, settings)
    below = _ways_down(_base_store(parsed, settings), open_store(path, settings))
    return any(way is not None and parsed.may_match(way) for way in below)


def lies_within(item: str, path: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether an item of `source.path` (a glob without its wildcards) is the folder `path` or below it."""
    ways = _ways_down(open_store(path, settings), _base_store(parse_item(item, settings), settings))
    return any(way is not None for way in ways)


def nested(one: Store, other: Store) -> bool:
    """Whether two folders are the same, or one is below the other."""
    return any(way is not None for way in (*_ways_down(one, other), *_ways_down(other, one)))


def _base_store(item: Item, settings: Mapping[str, Any] | None) -> Store:
    return open_store("/".join((item.origin, *item.base)) or "/", settings)


def _ways_down(upper: Store, lower: Store) -> list[list[str] | None]:
    """Folder names on the way down from one folder to another, as written and with links resolved; None: not below."""
    if not upper.same_filesystem(lower):
        return []
    pairs = [(upper.root, lower.root)]
    if upper.local_path() is not None:
        pairs.append((os.path.realpath(upper.root), os.path.realpath(lower.root)))
    return [_way_down(*pair) for pair in pairs]


def _way_down(upper: str, lower: str) -> list[str] | None:
    above, below = ([part for part in root.split("/") if part] for root in (upper, lower))
    return below[len(above) :] if below[: len(above)] == above else None


def _common_root(items: Sequence[Item]) -> tuple[str, ...]:
    """The deepest folder above all items; of an item without wildcards, which may be a file, the parent."""
    origins = {item.origin or "the local filesystem" for item in items}
    if len(origins) > 1:
        raise SourceError(
            f"`source.path` names places on several filesystems: {', '.join(sorted(origins))}. "
            "All items of one source must be on one; copy the others there, or make a job for each."
        )
    folders = [item.base if item.patterns else item.base[:-1] for item in items]
    levels = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return tuple(names[0] for names in levels)


def _folders_above(item: Item, settings: Mapping[str, Any] | None) -> list[str]:
    """The folders above an item, nearest first; of a local item also those above its real path."""
    local = _base_store(item, settings).local_path()
    if local is None:
        return ["/".join((item.origin, *item.base[:count])) for count in range(len(item.base) - 1, -1, -1)]
    ways = dict.fromkeys((local, os.path.realpath(local)))
    return list(dict.fromkeys(str(parent) for way in ways for parent in PurePosixPath(way).parents))


def is_hidden(key: str) -> bool:
    """Whether a path below an item is scratch space, a marker, or a file that is still being copied."""
    *folders, name = key.split("/")
    if name.startswith(("_", ".")) or name.endswith("._COPYING_"):
        return True
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in folders)


def is_beside(key: str, size: int) -> bool:
    """Whether a file is no data, by name or size: a marker, a note, or an empty file not named as Parquet."""
    name = key.rpartition("/")[2].lower()
    if name.endswith("_$folder$"):  # folder markers of older S3 clients
        return True
    return not name.endswith(_PARQUET) and (size == 0 or name.endswith(_NOT_PARQUET))


def _refuse_broken(store: Store, info: FileInfo) -> None:
    if info.broken:
        raise SourceError(
            f"{store.url}/{info.path} is a symbolic link that leads nowhere, or back to a folder around it. Repair or "
            "remove it, or give it a name that begins with `_` to leave it out."
        )


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


def _nothing_found(item: Item, listed: Found, matching: Found, visible: Found) -> str:
    if not listed:
        return (
            f"No files at {item.written}: the place is missing or empty. Check the path, and that the job that "
            "writes it has finished."
        )
    if not matching:
        return (
            f"No files match {item.written}: {len(listed)} files lie below its first wildcard ({_shown(listed)}), none "
            "of which the glob names. Correct the glob."
        )
    if visible:
        return (
            f"No Parquet files at {item.written}: all {len(visible)} files there are empty, or not Parquet by name "
            f"({_shown(visible)}). Check the path, and that the job that writes it has finished."
        )
    return (
        f"No Parquet files at {item.written}: all {len(matching)} files there are hidden ({_shown(matching)}), as a "
        "folder or a name in their path begins with `_` or `.`; these are scratch space or markers. Check that the job "
        "that writes it has finished."
    )


def _shown(found: Found) -> str:
    return ", ".join(key for key, _ in found[:3]) + ", ..." * (len(found) > 3)
