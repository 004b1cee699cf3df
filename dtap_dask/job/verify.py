"""A finished dataset read again, and the result in words or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from dtap_dask.job import taps
from dtap_dask.records import verify as records
from dtap_dask.records.manifest import read_manifest
from dtap_dask.storage import open_store
from dtap_dask.words import count, human, visible


def verify(path: str, *, as_json: bool = False) -> str:
    """Read every shard of the dataset at `path` again. VerificationError names everything that is wrong."""
    store = open_store(path, taps.settings())
    found = records.verify(store, read_manifest(store))
    if as_json:
        return json.dumps({"path": path, **asdict(found)})
    amount = f"{count(found.rows, 'row')} in {count(found.records, 'record')} of {count(found.shards, 'shard')}"
    lines = [
        f"{path} is what its manifest says: {amount}, {human(found.bytes)}.",
        *(f"Note: {note}" for note in found.notes),
    ]
    return visible("\n".join(lines))
