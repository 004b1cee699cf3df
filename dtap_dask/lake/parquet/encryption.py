"""Encrypted columns of files with a plaintext footer: pyarrow aborts the process when it accesses one of them."""

from __future__ import annotations

import pyarrow.parquet as pq

from dtap_dask.lake.parquet.opening import TAIL
from dtap_dask.lake.parquet.thrift import Cursor

_ROW_GROUPS, _COLUMNS, _CRYPTO_METADATA = 4, 1, 8  # fields of FileMetaData, RowGroup and ColumnChunk
_NONE: frozenset[int] = frozenset()


def encrypted_columns(tail: bytes, metadata: pq.FileMetaData) -> frozenset[int]:
    """The indices of leaf columns that are encrypted in some row group; `tail` as `read_tail` returns it.

    Only a signed footer can have them: it is longer than its metadata by the signature. ValueError if it is damaged.
    """
    if len(tail) - TAIL == metadata.serialized_size:
        return _NONE
    cursor, found = Cursor(tail[:-TAIL]), set[int]()
    for field, kind in cursor.fields():
        if field != _ROW_GROUPS:
            cursor.skip(kind)
            continue
        for _ in range(cursor.elements()[1]):
            found |= _in_row_group(cursor)
    return frozenset(found)


def _in_row_group(cursor: Cursor) -> set[int]:
    found = set()
    for field, kind in cursor.fields():
        if field != _COLUMNS:
            cursor.skip(kind)
            continue
        for leaf in range(cursor.elements()[1]):
            for inner, inner_kind in cursor.fields():
                cursor.skip(inner_kind)
                if inner == _CRYPTO_METADATA:
                    found.add(leaf)
    return found
