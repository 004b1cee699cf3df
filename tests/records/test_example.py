"""Rows to records and back, held against TensorFlow's own parsers and protobuf classes."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError, OutputError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import wire
from dtap_dask.records.encoder import MOST_BYTES
from dtap_dask.records.example import Layout, decode_records, encoder_of
from dtap_dask.records.manifest_build import feature_spec, record_fields
from property_tests import examples

NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32")
BLOCKS_ONLY = ("float16", "float64", "uint64")
EXTREMES = {"f": (np.nan, np.inf, -np.inf, -0.0, 1e-45), "b": (True, False)}


def info(name, stored, shape=(), ids=None):
    dtype = stored if stored in ("bytes", "float32", "float64") else "int64"
    return FeatureInfo(name, "feature", dtype, stored, shape, (name,), ids)


def numbers(random, stored, size):
    dtype = np.dtype(stored)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = random.integers(limits.min, limits.max, size, dtype, endpoint=True)
        extremes = (limits.min, limits.max, 0, 1)
    else:
        values = random.normal(size=size).astype(dtype)
        extremes = EXTREMES[dtype.kind]
    for extreme in extremes:
        values[random.random(size) < 0.1] = extreme
    return values


def column(random, one, n):
    """Random rows of a column; everything that its dtype can hold is likely."""
    if one.ids is not None:
        return random.integers(0, one.ids, (n, *one.shape)).astype(one.stored)
    if None not in one.shape and one.stored != "bytes":
        return numbers(random, one.stored, (n, *one.shape))
    lengths = np.ones(n, np.int64)
    if one.shape:
        lengths = random.integers(0, 4, n) if one.shape == (None,) else np.full(n, one.shape[0])
    total = int(lengths.sum())
    if one.stored == "bytes":
        texts = [random.bytes(int(size)) for size in random.integers(0, 200, total)]
        values = pa.array(texts, pa.large_binary())
    else:
        values = pa.array(numbers(random, one.stored, total))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(ends), values) if one.shape else values


@st.composite
def tables(draw, stored=NUMBERS):
    """(infos, rows): any dtypes, shapes and numbers of rows."""
    shapes = st.sampled_from([(), (1,), (3,), (2, 2), (0,), (None,)])
    text = st.tuples(st.just("bytes"), st.sampled_from([(), (None,), (2,)]))
    fixed = st.sampled_from([(), (), (2,)])
    number = st.tuples(st.sampled_from(stored), draw(st.sampled_from([shapes, fixed])))
    kinds = draw(st.lists(draw(st.sampled_from([number, st.one_of(number, text)])), min_size=1, max_size=6))
    ids = draw(st.sampled_from([None, 1, 2, 128, 129, 2**21, 2**31]))
    infos = [info(f"c{i} é/{i}", *kind) for i, kind in enumerate(kinds)]
    infos += [info("ids", "int32" if ids < 2**31 else "int64", ids=ids)] if ids else []
    n = draw(st.sampled_from([0, 1, 2, 17, 40]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return infos, {one.name: column(random, one, n) for one in infos}


def records(encoded):
    data, at, found = bytes(encoded.data), 0, []
    for length in encoded.lengths.tolist():
        assert struct.unpack_from("<Q", data, at)[0] == length - 16
        found.append(data[at + 12 : at + length - 4])
        at += length
    assert at == len(data)
    return found


def same(one, left, right):
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype == np.dtype(one.stored)
        assert left.shape == right.shape
        np.testing.assert_array_equal(left, right)
        assert left.tobytes() == right.tobytes() or np.isnan(left).any()
    else:
        assert left.type == right.type
        assert repr(left.to_pylist()) == repr(right.to_pylist())  # NaN is equal to NaN here


def slow_reference(infos, rows, i):
    """One row as protobuf's own classes write it."""
    example = tf.train.Example()
    for one in infos:
        value = rows[one.name][i]
        value = value.as_py() if isinstance(value, pa.Scalar) else np.asarray(value).reshape(-1).tolist()
        value = value if isinstance(value, list) else [value]
        feature = example.features.feature[one.name]
        if one.stored == "bytes":
            feature.bytes_list.value.extend(value)
        elif one.stored == "float32":
            feature.float_list.value.extend(value)
        else:
            feature.int64_list.value.extend(map(int, value))
        feature.SetInParent()
    return example


def tf_spec(infos, layout):
    def one(spec):
        dtype = tf.as_dtype(spec.dtype)
        if spec.kind == "RaggedFeature":
            return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        return tf.io.FixedLenFeature(spec.shape, dtype)

    return {name: one(spec) for name, spec in feature_spec(infos, layout).items()}


@given(tables())
def test_rows_are_what_tensorflow_parses(table):
    infos, rows = table
    layout = Layout("rows")
    found = records(encoder_of(infos, layout).encode(rows))
    assert len(found) == len(rows[infos[0].name])
    parsed = tf.io.parse_example(tf.constant(found, tf.string, shape=[len(found)]), tf_spec(infos, layout))
    for one in infos:
        want, got = rows[one.name], parsed[one.name]
        if isinstance(want, np.ndarray):
            np.testing.assert_array_equal(got.numpy(), want.astype(got.dtype.as_numpy_dtype))
        elif isinstance(got, tf.RaggedTensor):
            assert got.row_lengths().numpy().tolist() == [len(row) for row in want.to_pylist()]
            values = want.flatten()
            if one.stored == "bytes":
                assert got.flat_values.numpy().tolist() == values.to_pylist()
            else:
                np.testing.assert_array_equal(got.flat_values.numpy(), values.to_numpy(zero_copy_only=False))
        else:
            assert got.numpy().tolist() == want.to_pylist()


@given(tables())
def test_rows_are_what_protobuf_writes(table):
    infos, rows = table
    layout = Layout("rows")
    found = records(encoder_of(infos, layout).encode(rows))
    for i, record in enumerate(found):
        reference = slow_reference(infos, rows, i)
        ours = tf.train.Example.FromString(record)
        assert _filled(ours) == _filled(reference)
        back = decode_records(infos, layout, [reference.SerializeToString()])
        for one in infos:
            same(one, back[one.name], rows[one.name][i : i + 1])


def _filled(example):
    """An empty list and a feature of no kind are told apart by protobuf, and by nobody else."""
    for feature in example.features.feature.values():
        if not any(getattr(feature, kind).value for kind in ("bytes_list", "float_list", "int64_list")):
            feature.Clear()
    return example.SerializeToString(deterministic=True)


@given(tables())
def test_rows_decode_to_themselves(table):
    infos, rows = table
    layout = Layout("rows")
    back = decode_records(infos, layout, records(encoder_of(infos, layout).encode(rows)))
    for one in infos:
        same(one, back[one.name], rows[one.name])


@given(tables(NUMBERS + BLOCKS_ONLY), st.integers(1, 20))
def test_blocks_decode_to_themselves(table, rows_per_record):
    infos, rows = table
    layout = Layout("blocks", rows_per_record)
    encoder = encoder_of(infos, layout)
    assert encoder.rows_per_record == rows_per_record
    encoded = encoder.encode(rows)
    n = len(rows[infos[0].name])
    assert encoded.rows.tolist() == [min(rows_per_record, n - at) for at in range(0, n, rows_per_record)]
    back = decode_records(infos, layout, records(encoded))
    for one in infos:
        same(one, back[one.name], rows[one.name])


@given(tables(tuple(set(NUMBERS + BLOCKS_ONLY) - {"uint32", "uint64"})))
def test_blocks_are_what_tensorflow_decodes(table):
    infos, rows = table
    layout = Layout("blocks", 1000)
    found = records(encoder_of(infos, layout).encode(rows))
    assert len(found) == (len(rows[infos[0].name]) > 0)
    for record in found:
        parsed = tf.io.parse_single_example(record, tf_spec(infos, layout))
        total = int(parsed["rows"])
        assert total == len(rows[infos[0].name])
        for one, place in zip(infos, record_fields(infos, layout), strict=True):
            want = rows[one.name]
            if place.key is not None:
                flat = tf.io.decode_raw(parsed[place.key], one.stored).numpy()
                block = flat.reshape(total, -1)[:, place.offset : place.offset + place.width]
                np.testing.assert_array_equal(block.reshape(want.shape), want)
                continue
            if one.shape == ():
                assert place.lengths is None
                assert parsed[place.values].numpy().tolist() == want.to_pylist()
                continue
            lengths = tf.io.decode_raw(parsed[place.lengths], tf.int32).numpy()
            assert lengths.tolist() == [len(row) for row in want.to_pylist()]
            values = want.flatten()
            if one.stored == "bytes":
                assert parsed[place.values].numpy().tolist() == values.to_pylist()
            else:
                got = tf.io.decode_raw(parsed[place.values], one.stored).numpy()
                np.testing.assert_array_equal(got, values.to_numpy(zero_copy_only=False))


@pytest.mark.parametrize("kind", ["rows", "blocks"])
def test_nulls_become_what_a_record_can_hold(kind):
    infos = [info("t", "bytes"), info("l", "float32", (None,)), info("tl", "bytes", (None,))]
    rows = {
        "t": pa.array([None, b"x"], pa.large_binary()),
        "l": pa.array([[1.0, None], None], pa.large_list(pa.float32())),
        "tl": pa.array([None, [None, b"y"]], pa.large_list(pa.large_binary())),
    }
    layout = Layout(kind, 10)
    back = decode_records(infos, layout, records(encoder_of(infos, layout).encode(rows)))
    assert back["t"].to_pylist() == [b"", b"x"]
    assert repr(back["l"].to_pylist()) == "[[1.0, nan], []]"
    assert back["tl"].to_pylist() == [[], [b"", b"y"]]
    with pytest.raises(DataError, match="holds a null"):
        encoder_of([info("i", "int64", (None,))], layout).encode({"i": pa.array([[None]], pa.large_list(pa.int64()))})


@pytest.mark.parametrize("kind", ["rows", "blocks"])
def test_slices_of_arrow_arrays(kind):
    """What a batch cuts out of a larger array has an offset, in the array and in its values."""
    infos = [info("t", "bytes"), info("l", "int16", (None,)), info("tl", "bytes", (None,))]
    rows = {
        "t": pa.array([b"ab", b"", b"cde", b"f"], pa.large_binary())[1:3],
        "l": pa.array([[1], [], [2, 3], [4]], pa.large_list(pa.int16()))[1:3],
        "tl": pa.array([[b"p"], [b"q", b"rs"], [], [b"t"]], pa.large_list(pa.large_binary()))[1:3],
    }
    layout = Layout(kind, 10)
    back = decode_records(infos, layout, records(encoder_of(infos, layout).encode(rows)))
    assert {name: value.to_pylist() for name, value in back.items()} == {
        name: value.to_pylist() for name, value in rows.items()
    }


def test_unpacked_lists_and_unknown_fields_decode():
    """Old writers do not pack numbers; protobuf parsers must take both, and skip what they do not know."""
    floats = b"".join(b"\x0d" + struct.pack("<f", x) for x in (1.5, -2.0))
    ints = b"".join(b"\x08" + wire.varint(x) for x in (7, 2**64 - 1))
    entries = [
        wire.delimited(1, b"f") + wire.delimited(2, wire.delimited(2, floats)),
        wire.delimited(2, wire.delimited(3, ints)) + wire.delimited(1, b"i"),
    ]
    record = wire.delimited(1, b"".join(wire.delimited(1, entry) for entry in entries)) + b"\x79" + bytes(8)
    assert len(tf.train.Example.FromString(record).features.feature) == 2
    back = decode_records([info("i", "int64", (2,)), info("f", "float32", (2,))], Layout("rows"), [record])
    assert back["f"].tolist() == [[1.5, -2.0]]
    assert back["i"].tolist() == [[7, -1]]


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_fail_clearly(data):
    for layout in (Layout("rows"), Layout("blocks")):
        try:
            decode_records([info("f", "float32"), info("t", "bytes")], layout, [data])
        except OutputError as error:
            assert "does not hold the columns" in str(error)  # noqa: PT017 - both outcomes are right


@given(st.data(), tables())
@examples(0.25)
def test_damaged_records_parse_or_fail_clearly(data, table):
    infos, rows = table
    for layout in (Layout("rows"), Layout("blocks", 7)):
        for record in records(encoder_of(infos, layout).encode(rows))[:1]:
            broken = bytearray(record)
            broken[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
            try:
                back = decode_records(infos, layout, [bytes(broken)])
            except OutputError as error:
                assert "does not hold the columns" in str(error)  # noqa: PT017 - both outcomes are right
            else:
                assert list(back) == [one.name for one in infos]


def test_what_a_layout_cannot_hold_is_refused_with_a_remedy():
    wrong = [
        info("a", "float64"),
        info("b", "uint64"),
        info("c", "complex64"),
        info("d", "bytes", (2, 2)),
        info("a", "bool"),
    ]
    with pytest.raises(JobError) as error:
        encoder_of(wrong, Layout("rows", 0))
    text = str(error.value)
    assert len(error.value.problems) == 6
    assert "'a': tf.train.Example has no float64; cast it to float32, or choose output.layout: blocks" in text
    assert "a: two columns have this name" in text
    with pytest.raises(JobError, match="no column to write"):
        encoder_of([], Layout("blocks"))
    with pytest.raises(JobError, match="must stay below"):
        encoder_of([info("wide", "float64", (2**21,))], Layout("blocks"))
    with pytest.raises(JobError, match="must stay below"):
        encoder_of([info("wide", "float32", (2**22,))], Layout("rows"))


def test_columns_that_are_not_as_declared_are_refused():
    encoder = encoder_of([info("a", "int32")], Layout("blocks"))
    with pytest.raises(DataError, match="came as int64"):
        encoder.encode({"a": np.zeros(2, np.int64)})
    with pytest.raises(DataError, match="5 ids, from 0 on, but holds 5"):
        encoder_of([info("a", "uint8", ids=5)], Layout("rows")).encode({"a": np.array([4, 5], np.uint8)})
    lists = pa.array([[b"x"]], pa.large_list(pa.large_binary()))
    with pytest.raises(DataError, match="must have 2 values in every row"):
        encoder_of([info("a", "bytes", (2,))], Layout("rows")).encode({"a": lists})


def test_records_stay_below_sixteen_mebibytes():
    encoder = encoder_of([info("v", "float32", (4096,))], Layout("blocks", 2048))
    assert 1000 < encoder.rows_per_record < 1024
    lengths = encoder.encode({"v": np.zeros((1100, 4096), np.float32)}).lengths
    assert lengths.max() < MOST_BYTES
    texts = [b"x" * (5 << 20)] * 7 + [b""] * 3
    encoder = encoder_of([info("t", "bytes"), info("i", "int32")], Layout("blocks", 1024))
    encoded = encoder.encode({"t": pa.array(texts, pa.large_binary()), "i": np.arange(10, dtype=np.int32)})
    assert encoded.rows.tolist() == [3, 3, 4]
    assert encoded.lengths.max() < MOST_BYTES
    for kind in ("rows", "blocks"):
        with pytest.raises(DataError, match="Row 0 of a batch takes"):
            encoder_of([info("t", "bytes")], Layout(kind)).encode(
                {"t": pa.array([b"x" * (16 << 20)], pa.large_binary())}
            )


def test_rows_have_one_length_per_schema():
    infos = [info("a", "int64"), info("b", "uint8"), info("c", "float32", (3,)), info("d", "int32", ids=1000)]
    random = np.random.default_rng(0)
    encoded = encoder_of(infos, Layout("rows")).encode({one.name: column(random, one, 5000) for one in infos})
    assert set(encoded.lengths.tolist()) == {encoded.lengths[0]}
    assert encoded.lengths.sum() == len(encoded.data)


def test_the_bytes_of_both_layouts_are_pinned():
    """Whoever changes them after the first release raises manifest.FORMAT_VERSION.

    Changed before it: texts of blocks are a bytes_list, as TensorFlow is slow at cutting texts out of joined bytes.
    """
    infos = [info("f", "float32"), info("i", "int32", (2,)), info("t", "bytes")]
    rows = {
        "f": np.array([1.5, np.nan], np.float32),
        "i": np.array([[0, -1], [2, 300]], np.int32),
        "t": pa.array([b"hi", b""], pa.large_binary()),
    }
    pinned = {kind: encoder_of(infos, Layout(kind)).encode(rows).data for kind in ("rows", "blocks")}
    assert {kind: bytes(data).hex() for kind, data in pinned.items()} == PINNED


PINNED = {
    "rows": (
        "4c00000000000000f5d4a2a00ac78080000a0d0a0166120812060a040000c03f0a1d0a016912181a160a1480808080808080"
        "808000ffffffffffffffffff010a948080000a0174128c8080000a878080000a828080006869339022a04a00000000000000"
        "af77dbb00ac58080000a0d0a0166120812060a040000c07f0a1d0a016912181a160a1482808080808080808000ac82808080"
        "80808080000a928080000a0174128a8080000a858080000a80808000895ac56e"
    ),
    "blocks": (
        "5f00000000000000503f28860a5d0a0d0a04726f777312051a030a01020a170a07666c6f61743332120c0a0a0a080000c03f"
        "0000c07f0a1d0a05696e74333212140a120a1000000000ffffffff020000002c0100000a140a08742f76616c75657312080a"
        "060a0268690a008a11a429"
    ),
}


def test_encoding_takes_no_python_object_a_row():
    """Memory follows the bytes written, not the rows: a guard against objects per row."""
    infos = [info(f"c{i}", "int32", ids=1000) for i in range(8)]
    rows = {one.name: np.zeros(50_000, np.int32) for one in infos}
    encoder = encoder_of(infos, Layout("blocks"))
    tracemalloc.start()
    encoded = encoder.encode(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(encoded.data)
