"""The two forms in which rows leave Python, and what TensorFlow makes of each: the structure of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.choice.rows import Weights
from dtap_dask.loading.columns import Unpacker
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.order.runs import RowNumbers
from dtap_dask.loading.reading.epoch import ReaderPass
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.shards.decode import PADDING_WEIGHT, Decoder, zeros_of
from dtap_dask.loading.shards.open_shard import RecordBytes
from dtap_dask.loading.structure import structured
from dtap_dask.records import columns
from dtap_dask.records.encoder import EncodedRecords
from dtap_dask.records.example import encoder_of
from dtap_dask.train.blocks import Order, decode_blocks
from dtap_dask.train.parsing import decode_rows


class Form(Protocol):
    """Arrays of one piece, and the tensors that TensorFlow makes of them."""

    @property
    def dtypes(self) -> Sequence[tf.DType]:
        """Those of the arrays."""

    def arrays(self, read: ReaderPass, piece: int) -> list[Any]:
        """The rows of a piece."""

    def prepared(self, packed: Rows) -> Rows:
        """What the threads that read make of packed rows; it can be cut."""

    def of_prepared(self, rows: Rows) -> list[Any]:
        """The same of prepared rows."""

    def none(self) -> list[Any]:
        """No rows."""

    def structured(self, tensors: Sequence[tf.Tensor]) -> Any:
        """The arrays, by now tensors, in the structure of a batch."""


class ColumnForm:
    """The delivered columns, for records without texts and lists."""

    def __init__(self, decoder: Decoder, options: BatchOptions):
        self._decoder, self._options = decoder, options
        self._unpacker = Unpacker(decoder, options.dtypes, options.vectors)
        self._none = self.prepared(decoder.zeros(0))
        self.dtypes = [tf.as_dtype(column.dtype) for column in self._none.values()]

    def arrays(self, read: ReaderPass, piece: int) -> list[Any]:
        """See Form."""
        return self.of_prepared(read.rows(piece, self._decoder, self.prepared))

    def prepared(self, packed: Rows) -> Rows:
        """See Form."""
        return self._unpacker.fixed(packed)

    def of_prepared(self, rows: Rows) -> list[Any]:
        """See Form."""
        return list(rows.values())

    def none(self) -> list[Any]:
        """See Form."""
        return list(self._none.values())

    def structured(self, tensors: Sequence[tf.Tensor]) -> Any:
        """See Form."""
        for tensor, column in zip(tensors, self._none.values(), strict=True):
            tensor.set_shape([None, *column.shape[1:]])
        found = dict(zip(self._none, tensors, strict=True))
        return _structured(self._options, found, found.get(PADDING_WEIGHT))


class RecordForm:
    """Serialized records, and the places of the wanted rows among theirs, for records with texts and lists."""

    def __init__(self, split: DatasetSplit, options: BatchOptions):
        infos = tuple(replace(info, dtype=options.dtypes.get(info.name, info.dtype)) for info in split.infos)
        self._split, self._options = replace(split, infos=infos), options
        # Records are decoded here, too, where those that cannot be are to be left out, or where floats are narrowed.
        names = options.dtypes.keys() if options.skips else options.narrowed.keys()
        self._decoder = Decoder(split, names, narrowed=options.narrowed) if names else None
        self._encoder = encoder_of(split.infos, split.layout)
        self.dtypes = [tf.string, tf.int64, *([tf.float32] if options.weighted else [])]

    def arrays(self, read: ReaderPass, piece: int) -> list[Any]:
        """See Form."""
        found = read.read(piece, self._decoder)
        if found is None:
            return self._padding(read.padding)
        weight = np.ones(len(found.places), np.float32) if found.weight is None else found.weight[found.places]
        return self._tensors(found.records, found.places, weight)

    def prepared(self, packed: Rows) -> Rows:
        """See Form."""
        return packed

    def of_prepared(self, rows: Rows) -> list[Any]:
        """See Form. They have all columns of the split, whose layout is `blocks`."""
        values = {name: column for name, column in rows.items() if name != PADDING_WEIGHT}
        weight = rows.get(PADDING_WEIGHT, np.ones(columns.row_count(rows), np.float32))
        return self._encoded(self._encoder.encode_packed(values), weight)

    def none(self) -> list[Any]:
        """See Form."""
        return self._padding(0)

    def _padding(self, rows: int) -> list[Any]:
        encoded = self._encoder.encode(zeros_of(self._split.infos, rows))
        return self._encoded(encoded, np.zeros(rows, np.float32))

    def _encoded(self, encoded: EncodedRecords, weight: Weights) -> list[Any]:
        read = [RecordBytes(np.frombuffer(encoded.data, np.uint8), offsets_of(encoded.lengths))]
        return self._tensors(read, np.arange(len(weight)), weight)

    def _tensors(self, read: Sequence[RecordBytes], places: RowNumbers, weight: Weights) -> list[Any]:
        records = np.array([payload.tobytes() for each in read for payload in each.payloads()], object)
        return [records, places, *([weight] if self._options.weighted else [])]

    def structured(self, tensors: Sequence[tf.Tensor]) -> Any:
        """See Form."""
        records, places = tensors[:2]
        records.set_shape([None])
        places.set_shape([None])
        return self.decoded(records, lambda _: places, tensors[2] if self._options.weighted else None)

    def decoded(self, records: tf.Tensor, order: Order | None, weight: tf.Tensor | None = None) -> Any:
        """Serialized records in the structure of a batch; see decode_blocks for `order`."""
        options = self._options
        decode = decode_blocks if self._split.layout.kind == "blocks" else decode_rows
        found = decode(self._split, options.dtypes.keys(), records, order)
        for dtype, infos in options.vectors.items():
            parts = [tf.reshape(found.pop(info.name), [-1, columns.width(info)]) for info in infos]
            found[dtype] = tf.concat(parts, axis=1)
        return _structured(options, found, weight)


def _structured(options: BatchOptions, found: Mapping[str, tf.Tensor], weight: tf.Tensor | None) -> Any:
    if weight is not None:
        weight.set_shape([None])
    return structured(
        options.infos, found, kept=options.kept, as_float=_as_float, vectors=[*options.vectors], weight=weight
    )


def _as_float(label: tf.Tensor) -> tf.Tensor:
    return tf.cast(label, tf.float32) if label.dtype == tf.bool else label
