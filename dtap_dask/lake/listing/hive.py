"""Parses hive partition folders, `name=value`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from dtap_dask.errors import SourceError

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_folders(folders: Sequence[str]) -> list[str]:
    """The partition folders at the end of an item's path, as in `lake/trips/year=2013`."""
    return list(itertools.takewhile(lambda folder: "=" in folder, reversed(folders)))[::-1]


def partition_values(place: str, folders: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    """Names and url-decoded values of partition folders; SourceError for an invalid encoding or a repeated name."""
    values: dict[str, str | None] = {}
    for folder in folders:
        key, equals, raw = folder.partition("=")
        if not equals:
            continue
        name = _decoded(key, folder)
        if name in values:
            raise SourceError(
                f"{place}: two folders of this path give the partition column {name!r}. Rename one of them, or point "
                "`source.path` below the first."
            )
        values[name] = None if raw == HIVE_NULL else _decoded(raw, folder)
    return tuple(values.items())


def _decoded(text: str, folder: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise SourceError(
            f"The partition folder {folder!r} is url-encoded, but not as UTF-8: its value is not known. Rename it."
        ) from None
