"""Texts in blocks: a bytes_list, read as protobuf reads it, of as many texts as rows, below the limit of a record."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import OutputError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import wire
from dtap_dask.records.encoder import MOST_BYTES
from dtap_dask.records.example import Layout, decode_records, encoder_of
from dtap_dask.records.tfrecord import FOOTER, HEADER

TEXT = FeatureInfo("t", "feature", "bytes", "bytes")
TEXTS = FeatureInfo("t", "feature", "bytes", "bytes", (None,))


def record_of(one, column):
    """The one record of a column of few rows."""
    encoded = encoder_of([one], Layout("blocks")).encode({"t": column})
    assert len(encoded.lengths) == 1
    return bytes(encoded.data)[HEADER:-FOOTER]


VALUE = st.builds(
    lambda tag, text, width: tag + wire.varint(len(text), width) + text,
    st.sampled_from([b"\x0a", b"\x0a", b"\x8a\x00", b"\x12"]),  # a value, also with a padded tag; another field
    st.binary(max_size=20) | st.binary(min_size=128, max_size=140),
    st.integers(1, 5),
)


@given(st.lists(VALUE | st.just(b"\x10\x05")), st.integers(0, 3))
def test_texts_parse_as_protobuf_parses_them(values, lost):
    data = b"".join(values)
    data = data[: max(0, len(data) - lost)]
    record = wire.delimited(1, wire.delimited(1, wire.delimited(2, wire.delimited(1, data))))
    try:
        want = list(tf.train.Example.FromString(record).features.feature[""].bytes_list.value)
    except DecodeError:
        with pytest.raises(wire.WireError):
            wire.parse_example(record)
    else:
        assert wire.parse_example(record) == {"": want}


def test_blocks_of_other_numbers_of_texts_are_refused():
    record = record_of(TEXT, pa.array([b"a", b"b"], pa.large_binary()))
    with pytest.raises(OutputError, match="'t/values' is not a bytes_list of 2 texts"):
        decode_records([TEXT], Layout("blocks"), [record.replace(b"\x0a\x01a\x0a\x01b", b"\x0a\x04a\x0a\x01b")])
    record = record_of(TEXTS, pa.array([[b"a"], [b"b", b"c"]], pa.large_list(pa.large_binary())))
    for lengths, message in (((1, 3), "'t/values' is not a bytes_list of 4 texts"), ((4, -1), "negative length")):
        changed = record.replace(struct.pack("<2i", 1, 2), struct.pack("<2i", *lengths))
        with pytest.raises(OutputError, match=message):
            decode_records([TEXTS], Layout("blocks"), [changed])


def test_the_limit_holds_where_texts_take_the_most_besides_their_bytes():
    """One text needs a length of four bytes, so all of its record get it; the rest of the record is empty texts."""
    empty = 3_200_000
    ends = np.concatenate([[0], np.full(empty + 1, 2**21)])
    texts = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), empty + 1, [None, pa.py_buffer(ends), pa.py_buffer(bytes(2**21))]
    )
    lists = pa.LargeListArray.from_arrays(pa.array(np.arange(empty + 2)), texts)
    for one, column in ((TEXT, texts), (TEXTS, lists)):
        encoded = encoder_of([one], Layout("blocks", empty + 1)).encode({"t": column})
        assert (len(encoded.rows), encoded.rows.sum()) == (2, empty + 1)
        assert MOST_BYTES - 512 < encoded.lengths[0] < MOST_BYTES
