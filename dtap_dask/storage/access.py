"""Checks of this process's access: list a folder, write a few bytes to another and read them back."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from typing import Any

from dtap_dask.errors import StorageError
from dtap_dask.storage.locations import Location, locate
from dtap_dask.storage.os_errors import explaining
from dtap_dask.storage.store import open_store
from dtap_dask.storage.taps import SCHEME

_PROBE = b"dtap_dask wrote this file to test write access; it can be deleted.\n"
_MAY_BE_READ_ONLY = (
    " A DataTap may be read-only from within a tenant's nodes, as TenantStorage can be, and the owner that a listing "
    "shows may not be the real one: ask the platform's administrator."
)


def cannot_list(url: str, settings: Mapping[str, Any]) -> str | None:
    """The reason why this process cannot list the folder at `url` (not its subfolders); None if it can."""
    shown = url
    try:
        location = locate(url, settings)
        shown = _shown(url, location)
        with explaining("list", url):
            location.fs.ls(location.root, detail=False)
    except FileNotFoundError:
        return f"the source {shown} does not exist as seen from {_host()}. Mount it on every worker, or correct it."
    except (StorageError, OSError) as error:
        return f"the source {shown} cannot be listed from {_host()}: {_said(error)}"
    return None


def cannot_write(url: str, settings: Mapping[str, Any], folder: str) -> str | None:
    """The reason why this process cannot write to `folder` below `url`; None if it can.

    A small file is created there, read and deleted.
    """
    shown = url
    try:
        shown = _shown(url, locate(url, settings))
        store = open_store(url, settings)
        name = f"{folder}/.probe-{uuid.uuid4().hex}"
        try:
            store.write_atomic(name, _PROBE)
            found = store.read_bytes(name)
        finally:
            store.delete(name)
        if found != _PROBE:
            return f"the output {shown} does not return on {_host()} what was written to it. Check that filesystem."
    except (StorageError, OSError) as error:
        refused = url.startswith(SCHEME) and isinstance(error.__cause__, PermissionError)
        return f"the output {shown} cannot be written from {_host()}: {_said(error)}{_MAY_BE_READ_ONLY * refused}"
    return None


def _shown(url: str, location: Location) -> str:
    return f"{url} ({location.way})" if url.startswith(SCHEME) else url


def _host() -> str:
    return f"the host {socket.gethostname()}"


def _said(error: Exception) -> str:
    if isinstance(error, StorageError):
        return str(error)
    return f"{error}. Check that host's network and mounts, then run again."
