"""Parsing of `dtap://Tap/path`, without access to a filesystem or to settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from fsspec.utils import stringify_path

from dtap_dask.errors import StorageError
from dtap_dask.storage.settings import TAP

SCHEME = "dtap://"
_QUERY = re.compile(r"^\?|\?[A-Za-z_][\w.-]*=[^/]*$")  # elsewhere a question mark is part of a name or a glob


@dataclass(frozen=True)
class TapPath:
    """A path in a tap: `path` is relative to the tap's root, without slashes at its ends; "" is the root."""

    tap: str
    path: str

    def __str__(self) -> str:
        return f"{self.tap}/{self.path}" if self.path else self.tap


def parse(url: str, default_tap: str | None = None) -> TapPath:
    """The tap and path of `dtap://Tap/path` or `Tap/path`; the tap's case is kept.

    Raises StorageError for a path with `..`, also URL-encoded or next to a backslash, so that no path leaves a tap's
    root; for a user, port or query; and for `dtap:///path` without a default tap.
    """
    tap, _, path = url.removeprefix(SCHEME).partition("/")
    refuse_leaving(path, url)
    path = "/".join(part for part in path.split("/") if part not in ("", "."))
    if not tap and default_tap:
        return TapPath(default_tap, path)
    if not tap and path:
        raise StorageError(
            f"{url} names no DataTap, and can be read in two ways: as {path!r} in a default DataTap, which the setting "
            f"dtap.default_tap (or DTAP_DEFAULT_TAP) would name, or as {SCHEME}{path}, with {path.split('/')[0]!r} as "
            "the DataTap. Write the intended one."
        )
    if not TAP.fullmatch(tap):
        raise StorageError(
            f"{url} names no DataTap: between 'dtap://' and the next '/' there must be a name of letters, digits "
            "and hyphens, without user, port or query, such as dtap://TenantStorage/trips."
        )
    if _QUERY.search(path):
        raise StorageError(f"{url} has a query behind its '?', which a DataTap does not take. Give settings by name.")
    return TapPath(tap, path)


def stripped(path: Any, default_tap: str | None = None) -> Any:
    """`Tap/path` for a URL or path, or for each of a list. `/path` is in the default tap; "" means all taps."""
    if isinstance(path, list):
        return [stripped(one, default_tap) for one in path]
    text = str(stringify_path(path)).removeprefix(SCHEME)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if parts and text.startswith("/"):
        return "/".join([default_tap or "", *parts])
    return "/".join(parts)


def refuse_leaving(path: str, shown: str) -> None:
    """Raise StorageError if `..` could lead a path out of its tap, however a filesystem may decode it."""
    decoded = path
    while (further := unquote(decoded)) != decoded:
        decoded = further
    if ".." in re.split(r"[/\\]", decoded) or "\0" in decoded:
        raise StorageError(f"{shown} contains '..', which could leave the DataTap. Write the path without it.")
