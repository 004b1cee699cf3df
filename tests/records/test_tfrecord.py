"""TFRecord files, held against TensorFlow's own writer and reader."""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import OutputError
from dtap_dask.records.tfrecord import Gzip, file_crc32c, frame, header, mask_all, masked_crcs, read_records
from dtap_dask.storage import open_store
from property_tests import examples

RECORDS = st.lists(st.binary(max_size=300), max_size=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(str(tmp_path_factory.mktemp("records")))


def put(store, name, data):
    with store.create(name) as file:
        file.write(data)
    return store.local_path(name)


def tf_read(path, compression=""):
    return [record.numpy() for record in tf.data.TFRecordDataset(path, compression)]


@examples(0.25)
@given(RECORDS)
def test_tensorflow_reads_what_is_framed(store, records):
    path = put(store, "framed", b"".join(map(frame, records)))
    assert tf_read(path) == records
    assert list(read_records(store, "framed")) == records


@examples(0.25)
@given(RECORDS, st.sampled_from([("none", ""), ("gzip", "GZIP")]))
def test_what_tensorflow_writes_is_read(store, records, compression):
    ours, theirs = compression
    with tf.io.TFRecordWriter(store.local_path("theirs"), theirs) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(store, "theirs", ours)) == records


def test_checksums_of_many_rows_are_those_of_each():
    rows = np.random.default_rng(0).integers(0, 256, (100, 37), np.uint8)
    want = [int.from_bytes(frame(row.tobytes())[-4:], "little") for row in rows]
    assert masked_crcs(rows).tolist() == want
    assert mask_all(np.array([0, 1, 2**32 - 1], np.uint32)).dtype == np.uint32
    assert len(header(7)) == 12


@examples(0.25)
@given(st.binary(max_size=4000), st.lists(st.integers(0, 4000), max_size=6))
def test_gzip_is_the_same_however_it_is_cut(data, cuts):
    data = data * 700  # above the piece that zlib is fed
    whole, pieces = Gzip(), Gzip()
    want = whole.add(data) + whole.finish()
    ends = [0, *sorted(cut * 700 for cut in cuts), len(data)]
    got = b"".join(pieces.add(data[a:b]) for a, b in itertools.pairwise(ends)) + pieces.finish()
    assert got == want
    assert gzip.decompress(want) == data
    assert want[3:8] == bytes(5)  # no flags (so no file name), time 0: RFC 1952


def test_tensorflow_reads_gzip(store):
    stream = Gzip()
    records = [b"a" * 1000, b"", b"b"]
    path = put(store, "zipped", stream.add(b"".join(map(frame, records))) + stream.finish())
    assert tf_read(path, "GZIP") == records
    empty = put(store, "zipped-empty", Gzip().finish())
    assert tf_read(empty, "GZIP") == []
    assert list(read_records(store, "zipped-empty", "gzip")) == []


def test_every_truncation_is_told_with_record_and_offset(store):
    data = frame(b"first") + frame(b"second")
    for size in range(1, len(data)):
        put(store, "cut", data[:size])
        found = []
        if size == len(frame(b"first")):
            assert list(read_records(store, "cut")) == [b"first"]
            continue
        number, offset = (0, 0) if size < 21 else (1, 21)
        with pytest.raises(OutputError, match=f"record {number} at byte {offset} of .*/cut: the file ends"):
            found.extend(read_records(store, "cut"))


def test_every_changed_byte_is_found(store):
    data = frame(b"first") + frame(b"second")
    for at in range(len(data)):
        put(store, "bad", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(OutputError, match=f"record {int(at >= 21)} at byte {21 * (at >= 21)} .*checksum"):
            list(read_records(store, "bad"))


def test_a_damaged_gzip_file_is_told(store):
    stream = Gzip()
    data = stream.add(frame(np.random.default_rng(0).bytes(5000))) + stream.finish()
    for name, broken in {"short": data[:-9], "mixed": data[:2000] + b"\0\1\2" + data[2003:], "no": b"plain"}.items():
        put(store, name, broken)
        with pytest.raises(OutputError, match=f"of .*/{name}"):
            list(read_records(store, name, "gzip"))


def test_the_checksum_of_a_file_is_the_published_one(store):
    put(store, "digits", b"123456789")
    assert file_crc32c(store, "digits") == 0xE3069283  # the check value of CRC-32C, RFC 3720 and the CRC catalogue
    with pytest.raises(FileNotFoundError):
        file_crc32c(store, "missing")
