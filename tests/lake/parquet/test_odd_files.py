"""Files that are odd, damaged or crafted: right rows, or one clear error; never a traceback, never a dead process."""

from __future__ import annotations

import base64
import contextlib
import decimal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import SourceError
from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.parquet.footers import read_footer, read_schema
from dtap_dask.lake.sql.domain import ColumnStats
from parquet_files import BINARY, I32, I64, LIST, STRUCT, parquet, scanned
from property_tests import examples

D = decimal.Decimal

# Encryption


class Kms:
    """Keys that are wrapped by being left as they are."""

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped)


def write_encrypted(path: Path, algorithm: str = "AES_GCM_V1", **keys: Any) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")
    client = type("Client", (Kms, encryption.KmsClient), {})
    config = encryption.EncryptionConfiguration(footer_key="f", encryption_algorithm=algorithm, **keys)
    factory = encryption.CryptoFactory(lambda _: client())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    table = pa.table({"plain": [1, 2], "secret": [3, 4], "nested": [{"open": 5, "secret": 6}] * 2})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        for start in (0, 1):
            writer.write_table(table.slice(start, 1))


@pytest.mark.parametrize("algorithm", ["AES_GCM_V1", "AES_GCM_CTR_V1"])
def test_encrypted_columns_do_no_harm_to_others(tmp_path, algorithm):
    keys = {"column_keys": {"c": ["secret", "nested.secret"]}, "plaintext_footer": True}
    write_encrypted(tmp_path / "a.parquet", algorithm, **keys)
    path = tmp_path / "a.parquet"
    assert scanned(path, columns=["plain"])["plain"].to_pylist() == [1, 2]
    assert scanned(path, "plain > 1", ["plain"])["plain"].to_pylist() == [2]
    with pytest.raises(SourceError, match=r"a.parquet: the column 'secret' is encrypted .*Leave it out"):
        scanned(path, columns=["secret", "plain"])
    with pytest.raises(SourceError, match=r"the column 'secret' is encrypted"):
        scanned(path, "secret > 1", ["plain"])
    with pytest.raises(SourceError, match=r"the column 'nested.secret' is encrypted"):
        scanned(path, columns=["nested"])
    with pytest.raises(SourceError, match=r"the column 'secret' is encrypted"):
        scanned(path)


def test_an_encrypted_footer(tmp_path):
    write_encrypted(tmp_path / "a.parquet", uniform_encryption=True)
    with pytest.raises(SourceError, match=r"a.parquet .* is an encrypted Parquet file"):
        scanned(tmp_path / "a.parquet")


# Statistics


def stats_of(path: Path, column: str) -> tuple[ColumnStats, ...]:
    store, files = list_source([str(path)], {})
    return tuple(stats[column] for stats in read_footer(store, files[0], stat_columns=[column]).stats)


def test_a_decimal_of_more_digits_than_its_column_declares(tmp_path):
    values = [D("508706309.32"), D("1.00"), D("-508706309.32")]
    wide = pa.array(values, pa.decimal128(38, 2))
    narrow = pa.Array.from_buffers(pa.decimal128(10, 2), len(values), wide.buffers())
    pq.write_table(pa.table({"d": narrow}), tmp_path / "a")
    (stats,) = stats_of(tmp_path / "a", "d")
    assert (stats.min, stats.max, stats.null_count) == (None, None, 0)
    assert scanned(tmp_path / "a", "d > 0")["d"].to_pylist() == values[:2]
    assert scanned(tmp_path / "a", "d < 0 or d = 1")["d"].to_pylist() == values[1:]


@pytest.mark.parametrize("as_integer", [True, False])
@pytest.mark.parametrize("precision", [1, 4, 9, 10, 18, 19, 38])
def test_bounds_of_decimals_however_they_are_stored(tmp_path, precision, as_integer):
    scale = min(2, precision - 1)
    most, least = (D((sign, (9,) * precision, -scale)) for sign in (0, 1))
    for low, high in ((least, most), (most, most), (least, least), (D((0, (1,), -scale)), most)):
        column = pa.array([low, None, high], pa.decimal128(precision, scale))
        pq.write_table(pa.table({"d": column}), tmp_path / "a", store_decimal_as_integer=as_integer)
        (stats,) = stats_of(tmp_path / "a", "d")
        assert (stats.min.as_py(), stats.max.as_py()) == (low, high)
        assert scanned(tmp_path / "a", "d = d")["d"].to_pylist() == [low, high]
    physical = pq.read_metadata(tmp_path / "a").schema.column(0).physical_type
    assert physical == ("FIXED_LEN_BYTE_ARRAY" if not as_integer or precision > 18 else f"INT{32 * -(-precision // 9)}")


def test_decimals_as_duckdb_stores_them(tmp_path):
    duckdb.sql(
        "copy (select (i - 50)::decimal(9, 2) as d, (i - 50)::decimal(18, 5) as e, (i - 50)::decimal(38, 5) as f "
        f"from range(100) r(i)) to '{tmp_path}/a.parquet'"
    )
    for name in "def":
        (stats,) = stats_of(tmp_path / "a.parquet", name)
        assert (stats.min.as_py(), stats.max.as_py()) == (-50, 49)
        assert scanned(tmp_path / "a.parquet", f"{name} > 40")[name].to_pylist() == list(range(41, 50))


# Layouts of lists and structs

INNER = st.lists(st.none() | st.integers(-5, 5), max_size=3)
VIEWS = {
    "list view": pa.list_view(pa.int64()),
    "large list view": pa.large_list_view(pa.int64()),
    "large list": pa.large_list(pa.int64()),
    "list view in a struct": pa.struct({"x": pa.list_view(pa.int64())}),
    "list view in a list": pa.list_(pa.list_view(pa.int64())),
    "list view of list views": pa.list_view(pa.list_view(pa.int64())),
    "dictionary in a struct": pa.struct({"x": pa.dictionary(pa.int8(), pa.string())}),
    "view in a list": pa.list_(pa.string_view()),
    "map": pa.map_(pa.string(), pa.large_list(pa.int64())),
    "fixed": pa.list_(pa.large_string(), 2),
}


def sample_of(kind: pa.DataType, draw: Any) -> Any:
    """A value of the type, perhaps None."""
    types = pa.types
    if draw(st.integers(0, 3)) == 0:
        return None
    if types.is_struct(kind):
        return {field.name: sample_of(field.type, draw) for field in kind}
    if types.is_map(kind):
        return [(key, sample_of(kind.item_type, draw)) for key in draw(st.lists(st.text("ab", max_size=2), max_size=3))]
    if types.is_fixed_size_list(kind):
        return [sample_of(kind.value_type, draw) for _ in range(kind.list_size)]
    if types.is_nested(kind):
        return [sample_of(kind.value_type, draw) for _ in range(draw(st.integers(0, 3)))]
    return draw(st.integers(-5, 5)) if types.is_integer(kind) else draw(st.text("abü", max_size=3))


@pytest.mark.parametrize("kind", VIEWS.values(), ids=VIEWS)
@given(data=st.data())
@examples(0.125)
def test_lists_of_every_layout(tmp_path_factory, kind, data):
    values = [sample_of(kind, data.draw) for _ in range(data.draw(st.integers(1, 8)))]
    path = tmp_path_factory.mktemp("lists") / "a.parquet"
    table = pa.table({"x": pa.array(values, kind), "i": range(len(values))})
    try:
        pq.write_table(table, path, row_group_size=5)
    except pa.ArrowNotImplementedError:
        pytest.skip(f"pyarrow {pa.__version__} writes no {kind}")
    assert scanned(path)["x"].to_pylist() == pq.read_table(path)["x"].to_pylist()
    assert scanned(path, "i > 0", ["x"])["x"].to_pylist() == pq.read_table(path)["x"].to_pylist()[1:]


# Crafted footers

INT_COLUMN = {1: (I32, 2), 3: (I32, 1), 4: (BINARY, b"i")}


def one_group(body: bytes) -> dict[int, Any]:
    """A RowGroup of three rows whose only column chunk, of `i`, is `body`."""
    size = (I64, len(body))
    chunk = {1: (I32, 2), 2: (LIST, (I32, [0, 3])), 3: (LIST, (BINARY, [b"i"])), 4: (I32, 0), 5: (I64, 3)}
    chunk.update({6: size, 7: size, 9: (I64, 4)})
    return {1: (LIST, (STRUCT, [{2: (I64, 4), 3: (STRUCT, chunk)}])), 2: size, 3: (I64, 3)}


@pytest.fixture
def pages(tmp_path: Path) -> bytes:
    """The pages of an optional INT64 column of 1, 2, 3."""
    pq.write_table(pa.table({"i": [1, 2, 3]}), tmp_path / "a", compression="none", use_dictionary=False)
    chunk = pq.read_metadata(tmp_path / "a").row_group(0).column(0)
    found = (tmp_path / "a").read_bytes()[chunk.data_page_offset :][: chunk.total_compressed_size]
    (tmp_path / "a").unlink()
    return found


@pytest.mark.parametrize("rows", [0, 5])
def test_a_row_group_without_column_chunks(tmp_path, rows):
    group = {1: (LIST, (STRUCT, [])), 2: (I64, 0), 3: (I64, rows)}
    (tmp_path / "a.parquet").write_bytes(parquet(b"", [INT_COLUMN], [group], rows))
    with pytest.raises(SourceError, match=r"a.parquet .*footer that cannot be read"):
        scanned(tmp_path / "a.parquet")


@pytest.mark.parametrize("inside", [0, 1])
def test_groups_without_fields(tmp_path, pages, inside):
    """As Protocol Buffers' messages without fields are written; with `inside`, one that holds another."""
    group = [{3: (I32, 1), 4: (BINARY, b"nested"), 5: (I32, inside)}]
    group += [{3: (I32, 1), 4: (BINARY, b"deeper"), 5: (I32, 0)}] * inside
    columns = [INT_COLUMN, *group]
    (tmp_path / "a.parquet").write_bytes(parquet(pages, columns, [one_group(pages)], 3))
    assert scanned(tmp_path / "a.parquet").to_pylist() == [{"i": i, "nested": None} for i in (1, 2, 3)]
    assert scanned(tmp_path / "a.parquet", "i > 1", ["i"])["i"].to_pylist() == [2, 3]
    assert scanned(tmp_path / "a.parquet", columns=["nested"]).num_rows == 3


def test_a_crafted_file_of_three_rows_is_sound(tmp_path, pages):
    (tmp_path / "a.parquet").write_bytes(parquet(pages, [INT_COLUMN], [one_group(pages)], 3))
    assert scanned(tmp_path / "a.parquet")["i"].to_pylist() == pq.read_table(tmp_path / "a.parquet")["i"].to_pylist()


@pytest.mark.parametrize(
    ("field", "value"),
    [(7, -1), (7, 2**40), (9, 2**40), (9, -5), (5, -3), (6, -1)],
    ids=["no size", "beyond the end", "offset beyond", "offset before", "fewer than no values", "no raw size"],
)
def test_chunks_that_cannot_be(tmp_path, pages, field, value):
    group = one_group(pages)
    group[1][1][1][0][3][1][field] = (I64, value)
    (tmp_path / "a.parquet").write_bytes(parquet(pages, [INT_COLUMN], [group], 3))
    with contextlib.suppress(SourceError):
        assert scanned(tmp_path / "a.parquet")["i"].to_pylist() == [1, 2, 3]


# Damage

HELPERS = Path(__file__).parents[2] / "helpers"
FUZZ = """
import random, sys
from decimal import Decimal
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from parquet_files import scanned
from dtap_dask.errors import DtapError

path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
at = range(60)
table = pa.table({
    "i": [None if i % 7 == 0 else i for i in at], "s": [None if i % 5 == 0 else f"word{i % 9}" for i in at],
    "f": [i / 3 for i in at], "d": pa.array(map(Decimal, at), pa.decimal128(9, 2)), "l": [[i] * (i % 3) for i in at],
    "t": pa.array([i * 10**15 for i in at]).cast(pa.timestamp("us")), "st": [{"a": i, "b": str(i)} for i in at],
    "b": [i % 2 == 0 for i in at], "bin": [bytes([i]) for i in at],
})
delta = {"s": "DELTA_BYTE_ARRAY", "i": "DELTA_BINARY_PACKED", "bin": "DELTA_LENGTH_BYTE_ARRAY"}
files = []
for options in (
    {}, {"use_dictionary": False, "compression": "none"}, {"write_page_index": True, "store_schema": False},
    {"use_dictionary": False, "column_encoding": delta, "data_page_version": "2.0", "compression": "zstd"},
    {"use_deprecated_int96_timestamps": True, "store_decimal_as_integer": True, "compression": "gzip"},
):
    pq.write_table(table, path, row_group_size=25, **options)
    files.append(path.read_bytes())
conditions = [None, "i > 3", "s = 'word3' and d > 2", "t < '2000-01-01' or f < 2", "b and i is not null"]
outcomes = {"rows": 0, "errors": 0}
for seed in range(first, first + count):
    print(seed, flush=True)
    draw = random.Random(seed)
    data = bytearray(draw.choice(files))
    end = len(data) - 8
    footer = end - int.from_bytes(data[end : end + 4], "little")
    low, high = draw.choice([(0, footer), (footer, end), (footer, end), (end, end + 8)])
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        place = draw.randrange(low, high)
        data[place] = draw.choice([data[place] ^ 1 << draw.randrange(8), draw.randrange(256)])
    path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.05 else data)
    columns = draw.choice([None, None, ["i"], ["s", "t"], ["st", "l"]])
    try:
        scanned(path, draw.choice(conditions), columns, mixed=draw.random() < 0.5)
        outcomes["rows"] += 1
    except DtapError as error:
        assert path.name in str(error), error
        outcomes["errors"] += 1
assert min(outcomes.values()) > count // 10, outcomes
"""


@pytest.mark.parametrize("first", [0, 300])
def test_flipped_bytes_in_footers_and_pages(tmp_path, first):
    """In a process of its own, whose end would be seen; it prints the seed of each file before it is read."""
    command = [sys.executable, "-W", "ignore", "-c", FUZZ, str(tmp_path / "a.parquet"), str(first), "150"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HELPERS, check=False)
    assert done.returncode == 0, (done.stdout.split()[-1:], done.stderr[-3000:])


def test_schemas_of_odd_files_are_read_without_looking_at_what_cannot_be(tmp_path):
    write_encrypted(tmp_path / "a.parquet", column_keys={"c": ["secret"]}, plaintext_footer=True)
    store, files = list_source([str(tmp_path)], {})
    assert read_schema(store, files).names == ["plain", "secret", "nested"]
