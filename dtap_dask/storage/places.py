"""Where a URL leads: the filesystem, the folder on it, and by which way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from dtap_dask.errors import StorageError
from dtap_dask.storage import dtap


@dataclass(frozen=True)
class Place:
    """A folder: the path `root` on the filesystem `fs`. `way` says for messages how it was found."""

    fs: AbstractFileSystem
    root: str
    way: str


def locate(url: str, settings: Mapping[str, Any]) -> Place:
    """The place of a path or URL, by resolved settings. Raises StorageError where the URL cannot be understood."""
    target = dtap.resolve(url, settings) if url.startswith("dtap://") else absolute(url)
    protocol = target.split("://", 1)[0] if "://" in target else "file"
    try:
        options = {} if protocol == "file" else {"use_listings_cache": False, **(settings.get(protocol) or {})}
        fs, root = fsspec.core.url_to_fs(target, **options)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"{url} cannot be opened: {error}. Check the part before '://' and install the package it needs."
        ) from error
    return Place(fs, root, "as it stands")


def absolute(url: str) -> str:
    """A local path without `~`, `.` and `..`; a URL as it is."""
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))
