"""Writes a realistic, partitioned lake of taxi trips, generated from a seed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pyarrow.parquet as pq

from dtap_dask.errors import OutputError
from dtap_dask.lake.sample.taxi_trips import trips
from dtap_dask.storage import Store

FOLDER = "trips"
YEAR, MONTHS = 2013, 12
_ROWS_OF_A_MONTH = 50  # at least; with fewer rows there are fewer months
_ROWS_OF_A_FILE = 2_000, 1_000_000  # minimum for a second to fourth file of a month; maximum
_ROWS_OF_A_GROUP = 100, 131_072  # minimum, maximum; in between four groups per file


@dataclass(frozen=True)
class SampleSummary:
    """What was written: `path` is the folder relative to the store, `bytes` the size of all Parquet files."""

    path: str
    rows: int
    files: int
    row_groups: int
    bytes: int


@dataclass(frozen=True)
class _File:
    """One file to write: its rows, and the share of its month that they cover (from, to)."""

    path: str
    month: int
    number: int
    first: int
    rows: int
    span: tuple[float, float]


def write_sample(store: Store, rows: int, seed: int = 0) -> SampleSummary:
    """Write `rows` taxi trips of 2013 to trips/year=2013/month=M/part-NNNNN.parquet below the store's folder.

    The same rows and seed give the same bytes. As in real lakes there are a `_SUCCESS` marker, a checksum file, and
    a truncated file of an aborted job below `_temporary`. OutputError if the folder has files already.
    """
    if rows < 1:
        raise OutputError(f"A sample lake needs at least one row, not {rows}.")
    if store.list_files(FOLDER):
        raise OutputError(f"{store.url}/{FOLDER} has files already. Choose another folder, or delete that one first.")
    files = list(_files(rows))
    groups = size = 0
    for file in files:
        data = _parquet(file, seed)
        with store.create(file.path) as out:
            out.write(data)
        groups += -(-file.rows // _group_rows(file.rows))
        size += len(data)
    _write_clutter(store, files[0].path)
    return SampleSummary(FOLDER, rows, len(files), groups, size)


def _files(rows: int) -> Iterator[_File]:
    months = max(1, min(MONTHS, rows // _ROWS_OF_A_MONTH))
    first = 0
    for month, of_month in enumerate(_shares(rows, months), start=1):
        least, most = _ROWS_OF_A_FILE
        count = max(1, min(4, of_month // least), -(-of_month // most))
        done = 0
        for number, of_file in enumerate(_shares(of_month, count)):
            path = f"{FOLDER}/year={YEAR}/month={month}/part-{number:05d}.parquet"
            span = done / of_month, (done + of_file) / of_month
            yield _File(path, month, number, first + done, of_file, span)
            done += of_file
        first += of_month


def _shares(total: int, parts: int) -> list[int]:
    each, left = divmod(total, parts)
    return [each + (index < left) for index in range(parts)]


def _group_rows(rows: int) -> int:
    least, most = _ROWS_OF_A_GROUP
    return max(least, min(most, -(-rows // 4)))


def _parquet(file: _File, seed: int) -> bytes:
    start = datetime(YEAR, file.month, 1)
    end = datetime(YEAR + file.month // 12, file.month % 12 + 1, 1)
    low, high = (start + share * (end - start) for share in file.span)
    table = trips(file.first, file.rows, (low, high), (seed, file.month, file.number))
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=_group_rows(file.rows), compression="snappy")
    return sink.getvalue()


def _write_clutter(store: Store, first: str) -> None:
    data = store.read_bytes(first)
    folder, _, name = first.rpartition("/")
    store.write_atomic(f"{FOLDER}/_temporary/0/{name}", data[: len(data) // 2])
    store.write_atomic(f"{folder}/.{name}.crc", b"crc\x00\x00\x00\x02\x00")
    store.write_atomic(f"{FOLDER}/_SUCCESS", b"")
