"""Local copies of remote storage: the cache, and folders where the same storage is mounted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dtap_dask.errors import JobError, Problem, StorageError
from dtap_dask.storage.cache import Cache
from dtap_dask.storage.settings import checked
from dtap_dask.storage.store import Store, open_store
from dtap_dask.validation import parse_size

SECTIONS = ("cache", "mounts")
SIZE = 20 << 30


def cache(settings: Mapping[str, Any]) -> Cache:
    """The cache of a `storage` section, or of DTAP_CACHE and DTAP_CACHE_SIZE; by default 20 GiB below ~/.cache.

    Raises JobError for wrong settings, StorageError if its folder cannot be used.
    """
    chosen = _near(settings).get("cache", {})
    home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "dtap_dask")
    path = chosen.get("path") or os.environ.get("DTAP_CACHE") or home
    size = chosen.get("size") or _size_by_environment()
    return Cache(os.path.abspath(os.path.expanduser(path)), size)


def mounted(store: Store, name: str, settings: Mapping[str, Any]) -> Store | None:
    """The store of the folder where `store` is mounted according to `storage.mounts`; None if it has no entry.

    If several mounts match, the one with the longest URL is used. Raises StorageError if the file `name` does not hold
    the same bytes in both stores.
    """
    mounts = {url.rstrip("/"): folder for url, folder in _near(settings).get("mounts", {}).items()}
    url = max((url for url in mounts if f"{store.url}/".startswith(f"{url}/")), key=len, default=None)
    if url is None:
        return None
    folder = mounts[url]
    local = open_store(f"{folder.rstrip('/')}{store.url[len(url) :]}")
    try:
        same = local.read_bytes(name) == store.read_bytes(name)
    except FileNotFoundError:
        same = None
    if same:
        return local
    found = f"there is no {name}" if same is None else f"{name} is another one"
    raise StorageError(
        f"{local.url} is not {store.url}: {found}. Mount it there, wait until the mount shows what was written, or "
        f"correct storage.mounts, which says that {url} is mounted at {folder}."
    )


def others(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sections about access to stores. Raises JobError if `settings` is not a mapping of sections."""
    if not isinstance(settings, Mapping):
        raise JobError(Problem("storage", f"found {settings!r}: a mapping such as {{'dtap': {{...}}}} is needed."))
    return {name: section for name, section in settings.items() if name not in SECTIONS}


def _size_by_environment() -> int:
    given = os.environ.get("DTAP_CACHE_SIZE")
    try:
        return parse_size(given) if given else SIZE
    except ValueError as error:
        raise JobError(f"The environment variable DTAP_CACHE_SIZE: {error}") from error


def _near(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sections `cache` and `mounts`. Raises JobError, which lists every mistake in them."""
    values, wrong = checked({name: section for name, section in settings.items() if name in SECTIONS})
    if wrong:
        raise JobError(wrong)
    return values
