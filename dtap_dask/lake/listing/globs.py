"""Items of `source.path`: a file, a folder, or a glob with `*`, `?`, `[...]`, `**` and `{a,b}`."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtap_dask.storage import open_store

_MAGIC = re.compile(r"[*?\[{]")
_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}")  # the innermost braces first

Pattern = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One item of `source.path`.

    `origin`: scheme and authority, empty for a local path; `base`: the folders before the first wildcard (the last may
    be a file); `patterns`: alternatives for the rest, each split at slashes, none without wildcards.
    """

    written: str
    origin: str
    base: tuple[str, ...]
    patterns: tuple[Pattern, ...]

    def matches(self, key: str) -> bool:
        """Whether a pattern matches the path `key` below `base`, or a folder above it."""
        if not self.patterns:
            return True
        parts = key.split("/")
        ends = range(1, len(parts) + 1)
        return any(_matches_parts(parts[:end], pattern) for pattern in self.patterns for end in ends)

    def may_match(self, parts: Sequence[str]) -> bool:
        """Whether a pattern may match the folder `parts` below `base`, a folder above it, or anything in it."""
        return not self.patterns or any(_may_match(parts, pattern) for pattern in self.patterns)


def parse_item(written: str, settings: Mapping[str, Any] | None) -> Item:
    """Parse an item: a URL or a local path, which may be relative to the current folder."""
    url = written.removeprefix("file://")
    if "://" not in url:
        url = os.path.abspath(os.path.expanduser(url))
    scheme, slashes, rest = url.rpartition("://")
    authority, *parts = rest.rstrip("/").split("/")
    origin = f"{scheme}{slashes}{authority}"
    magic = 0
    while magic < len(parts) and _is_literal(origin, parts[: magic + 1], settings):
        magic += 1
    patterns = expand_braces("/".join(parts[magic:])) if magic < len(parts) else []
    return Item(written, origin, tuple(parts[:magic]), tuple(tuple(one.split("/")) for one in patterns))


def has_magic(name: str) -> bool:
    """Whether a name contains a wildcard character."""
    return _MAGIC.search(name) is not None


def expand_braces(pattern: str) -> list[str]:
    """The distinct patterns that braces expand to, as in bash and Hadoop; nested braces and slashes are allowed."""
    found = _ALTERNATIVES.search(pattern)
    if found is None:
        return [pattern]
    each = (f"{pattern[: found.start()]}{one}{pattern[found.end() :]}" for one in found.group(1).split(","))
    return list(dict.fromkeys(whole for one in each for whole in expand_braces(one)))


def _is_literal(origin: str, parts: Sequence[str], settings: Mapping[str, Any] | None) -> bool:
    """Whether the last part is a plain name; one with brackets or braces is if such a file or folder exists."""
    if not has_magic(parts[-1]):
        return True
    return not re.search(r"[*?]", parts[-1]) and open_store("/".join((origin, *parts)), settings).exists()


def _may_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not parts or not pattern or pattern[0] == "**":
        return True
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _may_match(parts[1:], pattern[1:])


def _matches_parts(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches_parts(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches_parts(parts[1:], pattern[1:])
