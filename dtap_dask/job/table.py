"""Rows and datasets as a person reads them, or as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from dtap_dask.features import Rows
from dtap_dask.job import taps
from dtap_dask.records.manifest import Manifest, read_manifest
from dtap_dask.records.verify import first_rows
from dtap_dask.storage import open_store
from dtap_dask.words import human


def plain(value: Any) -> Any:
    """A NumPy, Arrow or bytes value as JSON can hold it; bytes that are not UTF-8 with backslashes."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, np.ndarray | list):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def as_records(rows: Rows) -> list[dict[str, Any]]:
    """One dict a row."""
    count = len(next(iter(rows.values()))) if rows else 0
    return [{name: plain(column[i]) for name, column in rows.items()} for i in range(count)]


def print_rows(rows: Rows, *, as_json: bool = False) -> None:
    """Print rows: JSON lines, or a table with a line for each column (wide tables do not fit a terminal)."""
    records = as_records(rows)
    if as_json:
        for record in records:
            print(json.dumps(record))
        return
    table = Table(
        "column", *(f"row {i + 1}" for i in range(len(records))), box=None, header_style="bold", pad_edge=False
    )
    for name in rows:
        table.add_row(name, *(_short(record[name]) for record in records))
    console = Console(width=10_000, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(table)  # a long line wraps, a cut one is lost


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        shown = ", ".join(_short(one) for one in value[:8])
        return f"[{shown}, ... {len(value)} in all]" if len(value) > 8 else f"[{shown}]"
    return "null" if value is None else str(value)


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
    for line in told(path, manifest):
        print(line)
    for name in names:
        print(f"\n{name}:")
        print_rows(found[name])


def summary(manifest: Manifest) -> Mapping[str, Any]:
    """The manifest's main numbers, for programs."""
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
    }


def told(path: str, manifest: Manifest) -> Sequence[str]:
    """The manifest's main numbers, for a person."""
    lines = [
        f"{path}: {len(manifest.features)} columns, layout {manifest.layout.kind}, compression {manifest.compression}"
    ]
    for name, part in manifest.splits.items():
        size = sum(shard.bytes for shard in part.shards)
        lines.append(f"  {name}: {part.rows:,} rows in {len(part.shards):,} shards, {human(size)}")
    return lines
