"""What tests of reading share: the rows of Parquet files as a scan gives them; files of made-up footers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.parquet.footers import read_footer, read_schema
from dtap_dask.lake.pruning import prune_groups
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task
from dtap_dask.lake.sql.expression import compile_sql

NO_PARTITIONS = pa.schema([])


def scanned(path: Path, where: str | None = None, columns: list[str] | None = None, mixed: bool = False) -> pa.Table:
    """The rows of a file or folder without partition folders, pruned and filtered, as one task reads them.

    Text is as it is delivered: dictionary-encoded.
    """
    store, files = list_source([str(path)], {})
    schema = read_schema(store, files)
    condition = compile_sql(where, schema) if where else None
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    wanted = [*schema.names, *sorted((condition.columns if condition else frozenset()) - set(schema.names))]
    known = pa.schema([read_schema(store, files).field(name) for name in wanted])
    looked_at = sorted(condition.columns) if condition else []
    footers = [read_footer(store, file, wanted, looked_at) for file in files]
    groups = [group for footer in footers for group in prune_groups(footer, NO_PARTITIONS, condition)]
    spec = ScanSpec(known, NO_PARTITIONS, where, (), None, None, tuple(schema.names))
    batches = [batch.rows for batch in read_task(store, spec, ScanTask(0, tuple(groups)), mixed=mixed)]
    return pa.Table.from_batches(batches) if batches else schema.empty_table()


# Thrift's compact protocol, for footers that no writer at hand makes. A struct is {field: (type, value)}.

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12


def parquet(body: bytes, columns: Sequence[dict[int, Any]], groups: Sequence[dict[int, Any]], rows: int) -> bytes:
    """A file of these pages and SchemaElements (children of the root come first, deeper ones behind) and RowGroups."""
    top = len(columns) - sum(column.get(5, (I32, 0))[1] for column in columns)
    root = {4: (BINARY, b"schema"), 5: (I32, top)}
    schema = (LIST, (STRUCT, [root, *columns]))
    footer = struct({1: (I32, 2), 2: schema, 3: (I64, rows), 4: (LIST, (STRUCT, list(groups)))})
    return b"PAR1" + body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def struct(fields: dict[int, Any]) -> bytes:
    """A struct, each field's number in full."""
    return b"".join(bytes([kind]) + _zigzag(at) + _value(kind, value) for at, (kind, value) in fields.items()) + b"\0"


def _value(kind: int, value: Any) -> bytes:
    if kind == STRUCT:
        return struct(value)
    if kind == LIST:
        inner, values = value
        return bytes([0xF0 | inner]) + _varint(len(values)) + b"".join(_value(inner, one) for one in values)
    if kind == BINARY:
        return _varint(len(value)) + bytes(value)
    return _zigzag(value)


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else ~(value << 1))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
