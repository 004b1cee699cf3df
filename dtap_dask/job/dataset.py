"""Shows and verifies a finished dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dtap_dask.job import taps
from dtap_dask.job.table import as_records, print_rows
from dtap_dask.records.fitted import read_fitted
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import first_rows, verify_dataset
from dtap_dask.storage import open_store
from dtap_dask.words import count, human, visible


def print_dataset(path: str, split: str | None, rows: int, *, as_json: bool = False) -> None:
    """Print a dataset's summary and the first `rows` rows of each part, or of `split`."""
    store = open_store(path, taps.settings())
    manifest = read_manifest(store)
    names = [split] if split is not None else list(manifest.splits)
    found = {name: first_rows(store, manifest, name, rows) for name in names}
    if as_json:
        shown = {name: as_records(part) for name, part in found.items()}
        print(json.dumps({"path": path, **summary(manifest), "rows": shown}))
        return
    print(visible(manifest.in_words(path)))
    for name in names:
        print(f"\n{visible(name, keep='')}:")
        print_rows(found[name])


def print_fitted(path: str, *, as_json: bool = False) -> None:
    """Print what the steps of a dataset's features have learnt; as JSON, its transform.json without vocabularies."""
    store = open_store(path, taps.settings())
    _, state = read_fitted(store)
    print(json.dumps(state.as_json()) if as_json else state)


def summary(manifest: Manifest) -> Mapping[str, Any]:
    """The main numbers of a manifest, for programs."""
    return {
        "fingerprint": manifest.fingerprint,
        "layout": manifest.layout.kind,
        "compression": manifest.compression,
        "splits": {
            name: {
                "rows": part.rows,
                "records": part.records,
                "shards": len(part.shards),
                "bytes": sum(shard.bytes for shard in part.shards),
            }
            for name, part in manifest.splits.items()
        },
        "features": len(manifest.features),
        "fitted_from": manifest.fitted_from.model_dump() if manifest.fitted_from else None,
        "parity": manifest.parity.model_dump() if manifest.parity is not None else None,
    }


def verification(path: str, *, as_json: bool = False) -> str:
    """Verify the dataset at `path` and return the result as text. VerificationError lists all faults."""
    store = open_store(path, taps.settings())
    found = verify_dataset(store, read_manifest(store))
    if as_json:
        return json.dumps({"path": path, **asdict(found)})
    amount = f"{count(found.rows, 'row')} in {count(found.records, 'record')} of {count(found.shards, 'shard')}"
    lines = [
        f"{path} matches its manifest: {amount}, {human(found.bytes)}.",
        *(f"Note: {note}" for note in found.notes),
    ]
    return visible("\n".join(lines))
