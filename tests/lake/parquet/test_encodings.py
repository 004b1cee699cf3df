"""Every encoding, codec and page version that pyarrow reads is read, against DuckDB where it reads it, too."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from parquet_files import BINARY, I32, I64, LIST, STRUCT, parquet, scanned

ROWS = 3000
CODECS = ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]
PAGES = ["1.0", "2.0"]
NUMBERS = np.random.default_rng(0).integers(-(2**31), 2**31, ROWS)
DECIMALS = [decimal.Decimal(int(number)).scaleb(-2) for number in NUMBERS]


def nullable(values: Any, kind: pa.DataType) -> pa.Array:
    return pa.array([None if at % 7 == 3 else value for at, value in enumerate(values)], kind)


TEXTS = [f"{number % 900:x}" * (at % 5) for at, number in enumerate(NUMBERS.tolist())]
COLUMNS = {
    "boolean": nullable((NUMBERS % 2 == 0).tolist(), pa.bool_()),
    "int8": nullable((NUMBERS % 100).tolist(), pa.int8()),
    "int32": nullable(NUMBERS.tolist(), pa.int32()),
    "uint32": nullable((NUMBERS + 2**31).tolist(), pa.uint32()),
    "int64": nullable((NUMBERS * 2**31).tolist(), pa.int64()),
    "uint64": nullable([int(number) + 2**63 for number in NUMBERS], pa.uint64()),
    "float16": nullable((NUMBERS / 2**31).astype(np.float16), pa.float16()),
    "float32": nullable((NUMBERS / 7).astype(np.float32), pa.float32()),
    "float64": nullable(NUMBERS / 7, pa.float64()),
    "date": nullable([dt.date(1970, 1, 1) + dt.timedelta(int(n) % 40_000) for n in NUMBERS], pa.date32()),
    "time": nullable((NUMBERS % 86_400).tolist(), pa.time32("s")),
    "timestamp": nullable((NUMBERS * 2**20).tolist(), pa.timestamp("us")),
    "zoned": nullable((NUMBERS * 2**20).tolist(), pa.timestamp("us", "UTC")),
    "nanoseconds": nullable((NUMBERS * 2**20).tolist(), pa.timestamp("ns")),
    "decimal32": nullable(DECIMALS, pa.decimal128(12, 2)),
    "decimal128": nullable(DECIMALS, pa.decimal128(30, 2)),
    "text": nullable(TEXTS, pa.string()),
    "binary": nullable([text.encode() for text in TEXTS], pa.binary()),
    "fixed": nullable([int(number + 2**31).to_bytes(5, "big") for number in NUMBERS], pa.binary(5)),
    "list": nullable([[int(n)] * (at % 4) for at, n in enumerate(NUMBERS)], pa.list_(pa.int32())),
    "texts": nullable([[text] * (at % 3) for at, text in enumerate(TEXTS)], pa.list_(pa.string())),
    "struct": nullable([{"a": int(n), "b": str(n)} for n in NUMBERS], pa.struct({"a": pa.int64(), "b": pa.string()})),
}
INTEGERS = ["int8", "int32", "uint32", "int64", "uint64", "date", "time", "timestamp", "zoned", "nanoseconds"]
FLOATS = ["float16", "float32", "float64"]
BYTES = ["fixed", "decimal128"]
ENCODINGS = {
    "PLAIN": list(COLUMNS),
    "dictionary": [name for name in COLUMNS if name != "boolean"],
    "RLE": ["boolean"],
    "DELTA_BINARY_PACKED": INTEGERS,
    "DELTA_LENGTH_BYTE_ARRAY": ["text", "binary"],
    "DELTA_BYTE_ARRAY": ["text", "binary", *BYTES],
    "BYTE_STREAM_SPLIT": [*INTEGERS, *FLOATS, *BYTES],
}
NESTED = {"list": "list.list.element", "texts": "texts.list.element"}
UNREAD_BY_DUCKDB = {"BYTE_STREAM_SPLIT": {"float16", "fixed", "decimal128"}}


def write(path: Path, names: list[str], encoding: str, **options: Any) -> pa.Table:
    table = pa.table({name: COLUMNS[name] for name in names})
    if encoding == "dictionary":
        options["use_dictionary"] = True
    else:
        leaves = [leaf for name in names for leaf in leaves_of(name)]
        options.update(use_dictionary=False, column_encoding=dict.fromkeys(leaves, encoding))
    pq.write_table(table, path, row_group_size=1700, data_page_size=2000, **options)
    return table


def leaves_of(name: str) -> list[str]:
    return ["struct.a", "struct.b"] if name == "struct" else [NESTED.get(name, name)]


def encodings_in(path: Path) -> set[str]:
    metadata = pq.read_metadata(path)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return {one for group in groups for at in range(group.num_columns) for one in group.column(at).encodings}


def values(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist()


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_every_type(tmp_path, encoding, codec, pages):
    path, names = tmp_path / "a.parquet", ENCODINGS[encoding]
    table = write(path, names, encoding, compression=codec, data_page_version=pages)
    assert ("RLE_DICTIONARY" if encoding == "dictionary" else encoding) in encodings_in(path)
    found = scanned(path)
    for name in names:
        assert values(found, name) == values(table, name), name


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_duckdb_agrees(tmp_path, encoding):
    names = [name for name in ENCODINGS[encoding] if name not in UNREAD_BY_DUCKDB.get(encoding, ())]
    write(tmp_path / "a.parquet", names, encoding)
    found = scanned(tmp_path / "a.parquet")
    for name in names:
        theirs = duckdb.sql(f"select \"{name}\" from '{tmp_path}/a.parquet'").to_arrow_table()[name]
        ours = found[name].cast(theirs.type) if not pa.types.is_nested(theirs.type) else found[name]
        assert ours.to_pylist() == theirs.to_pylist(), name


@pytest.mark.parametrize("pages", PAGES)
def test_a_dictionary_that_is_given_up_within_a_chunk(tmp_path, pages):
    """As pyarrow goes on: in plain pages."""
    words = [f"word {at % 40}" for at in range(4000)] + [f"another {at}" for at in range(4000)]
    options = {"data_page_version": pages, "data_page_size": 4000}
    pq.write_table(pa.table({"s": words}), tmp_path / "a", dictionary_pagesize_limit=2000, **options)
    assert encodings_in(tmp_path / "a") >= {"RLE_DICTIONARY", "PLAIN"}
    assert scanned(tmp_path / "a")["s"].to_pylist() == words
    assert scanned(tmp_path / "a", "s like 'another 12%'")["s"].to_pylist() == [w for w in words if "r 12" in w]


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_a_dictionary_that_is_given_up_for_another_encoding(tmp_path, encoding, pages):
    """As parquet-java goes on. The chunk is put together here from the pages of two files."""
    first, then = [f"word {at % 40}" for at in range(4000)], [f"another {at}" for at in range(4000)]
    options = {"compression": "none", "data_page_version": pages, "data_page_size": 4000}
    pq.write_table(pa.table({"s": first}), tmp_path / "first", **options)
    delta = {"use_dictionary": False, "column_encoding": encoding}
    pq.write_table(pa.table({"s": then}), tmp_path / "then", **options, **delta)
    body = b"".join(chunk_bytes(tmp_path / name) for name in ("first", "then"))
    metadata = pq.read_metadata(tmp_path / "first").row_group(0).column(0)
    data_pages = metadata.data_page_offset - metadata.dictionary_page_offset
    chunk = {
        1: (I32, 6),
        2: (LIST, (I32, [8, {"DELTA_BYTE_ARRAY": 7, "DELTA_LENGTH_BYTE_ARRAY": 6}[encoding], 0, 3])),
        3: (LIST, (BINARY, [b"s"])),
        4: (I32, 0),
        5: (I64, 8000),
        6: (I64, len(body)),
        7: (I64, len(body)),
        9: (I64, 4 + data_pages),
        11: (I64, 4),
    }
    text = {1: (I32, 6), 3: (I32, 1), 4: (BINARY, b"s"), 6: (I32, 0)}
    group = {1: (LIST, (STRUCT, [{2: (I64, 4), 3: (STRUCT, chunk)}])), 2: (I64, len(body)), 3: (I64, 8000)}
    (tmp_path / "mixed").mkdir()
    path = tmp_path / "mixed" / "a.parquet"
    path.write_bytes(parquet(body, [text], [group], 8000))
    assert pq.read_table(path)["s"].to_pylist() == first + then
    assert scanned(path)["s"].to_pylist() == first + then
    assert scanned(path, "s = 'another 7'")["s"].to_pylist() == ["another 7"]


def chunk_bytes(path: Path) -> bytes:
    """The pages of a file's only column chunk."""
    chunk = pq.read_metadata(path).row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return path.read_bytes()[start : start + chunk.total_compressed_size]
