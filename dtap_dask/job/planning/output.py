"""Checks of the output's path: it must not overlap the source, and should be writable from here."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from dtap_dask.errors import Problem, StorageError
from dtap_dask.job import taps
from dtap_dask.job.jobfile.spec import FitFrom, Job
from dtap_dask.lake.listing.discover import contains, lies_within, nested
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.taps import SCHEME

_FOLDERS = ("file", "dtap", "hdfs", "viewfs", "har", "maprfs")  # filesystems in which a folder exists or does not


def output_problems(job: Job, source: Store) -> list[Problem]:
    """Problems of an output inside the source, or around it: the one would be read as source, the other mixes both."""
    place = job.place("output", "path")
    output = job.output.path
    try:
        settings = taps.settings(job.storage)
        store = open_store(output, settings)
        if isinstance(job.fit, FitFrom) and nested(store, open_store(job.fit.from_, settings)):
            what = f"{output!r} is the dataset {job.fit.from_!r}, whose state is used, or one lies inside the other."
            return [Problem(place, f"{what} Choose a folder of its own.")]
        if not store.same_filesystem(source):
            return []
        for path in job.source.path:
            if contains(path, output, settings):
                what = f"{output!r} lies inside the source {path!r}, and would be read as source next time."
                return [Problem(place, f"{what} Choose a folder outside of it.")]
            if lies_within(path, output, settings):
                what = f"the source {path!r} lies inside {output!r}, among what will be written."
                return [Problem(place, f"{what} Choose a folder of its own.")]
    except StorageError as error:
        return [Problem(place, str(error))]
    return []


def cannot_write(job: Job, settings: Mapping[str, Any]) -> str | None:
    """Why this process cannot write the output; None if it can, or if only creating folders could tell.

    A file is created and deleted in the nearest existing folder: creating a folder there needs the same permission.
    """
    output = job.output.path
    try:
        store = _nearest(output, settings)
        if store is None:
            return None
        name = f".probe-{uuid.uuid4().hex}"
        with store.create(name) as file:
            file.write(b"dtap_dask tested whether it can write here; this file can be deleted.\n")
        store.delete(name)
    except (StorageError, OSError) as error:
        tap = (
            " A DataTap may be read-only from within a tenant's nodes, as TenantStorage can be: ask the platform's "
            "administrator, or choose another output.path."
        )
        return f"The output {output} cannot be written from this machine: {error}{tap * output.startswith(SCHEME)}"
    return None


def _nearest(url: str, settings: Mapping[str, Any]) -> Store | None:
    """The output's folder, or the nearest existing one above it."""
    protocol, mark, path = url.rpartition("://")
    if not mark:
        path = open_store(url, settings).root  # absolute
    prefix, parts = protocol + mark, path.rstrip("/").split("/")
    for depth in range(len(parts), 0, -1):
        store = open_store(prefix + ("/".join(parts[:depth]) or "/"), settings)
        if store.exists():
            return store
        if mark and protocol not in _FOLDERS:
            return None  # on an object store a folder is only part of a name
    return None
