"""Records to columns as NumPy arrays, in their stored dtypes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dtap_dask.errors import DamagedError
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.shards.open_shard import RecordBytes
from dtap_dask.loading.shards.precision import refuse_overflow
from dtap_dask.records import blocks, columns
from dtap_dask.records.blocks import BlockFrame
from dtap_dask.records.example import decode_records, not_this_schema
from dtap_dask.records.rows_decode import decode_equal
from dtap_dask.records.tfrecord import FOOTER, HEADER
from dtap_dask.records.wire import Bytes

PADDING_WEIGHT = "/weight"  # the key of a weight among packed rows; no feature has such a name


class MatrixSpan(NamedTuple):
    """Columns of a matrix [rows, width] that are next to each other, and where they begin and end in each row."""

    infos: Sequence[FeatureInfo]
    start: int
    stop: int
    width: int


def spans_of(infos: Sequence[FeatureInfo], names: Collection[str]) -> dict[str, MatrixSpan]:
    """For each stored dtype with a wanted column: its columns from the first wanted one to the last."""
    return {
        stored: _span(group, names)
        for stored, group in blocks.matrices(infos).items()
        if any(info.name in names for info in group)
    }


def _span(group: Sequence[FeatureInfo], names: Collection[str]) -> MatrixSpan:
    ends = list(itertools.accumulate(map(columns.width, group), initial=0))
    wanted = [index for index, info in enumerate(group) if info.name in names]
    first, last = wanted[0], wanted[-1] + 1
    return MatrixSpan(group[first:last], ends[first], ends[last], ends[-1])


def parts_of(spans: Mapping[str, MatrixSpan], names: Container[str]) -> Iterator[tuple[str, slice]]:
    """Where the columns `names` are in the matrices of spans: the stored dtype, and columns that are neighbours."""
    for stored, span in spans.items():
        at = 0
        for wanted, run in itertools.groupby(span.infos, lambda info: info.name in names):
            stop = at + sum(map(columns.width, run))
            if wanted:
                yield stored, slice(at, stop)
            at = stop


class Decoder:
    """Decodes the wanted columns of records to packed rows, as `columns.take`, `cut` and `join` take them.

    Packed rows are a matrix [rows, width] for each stored dtype, with the columns of its span, and an Arrow array for
    each column of texts or lists, under its name with '/values' behind it.
    """

    def __init__(
        self,
        split: DatasetSplit,
        names: Collection[str],
        *,
        weighted: bool = False,
        narrowed: Mapping[str, str] | None = None,
    ):
        """`weighted`: packed rows have a weight, 1 for each row of the dataset, and 0 for padding.

        `narrowed` are features whose values must fit in these dtypes.
        """
        self._weighted, self._names, self._narrowed = weighted, frozenset(names), narrowed or {}
        self.spans = spans_of(split.infos, names)
        self.variable = [info for info in blocks.variable(split.infos) if info.name in names]
        self._split = split
        self._widths = {
            stored: sum(map(columns.width, group)) for stored, group in blocks.matrices(split.infos).items()
        }
        self._packs = {info.name for span in self.spans.values() for info in span.infos}
        self._frames: dict[int, BlockFrame] = {}

    def is_part_of(self, other: Decoder) -> bool:
        """Whether the rows that `other` packs have all columns that this one does."""
        return self._names <= other._names

    @property
    def quick(self) -> bool:
        """Whether `decode` works on whole matrices: no texts and lists are wanted, and rows have none at all."""
        return not (self.variable if self._split.layout.kind == "blocks" else blocks.variable(self._split.infos))

    def decode(self, read: Iterable[RecordBytes], rows: int) -> Rows:
        """The rows of all records, in order. Blocks are decoded as they come, while they are in the processor's cache.

        DamagedError where a record does not have the manifest's columns, or all together not that many rows.
        """
        if self._split.layout.kind == "blocks" and not self.variable:
            return self._with_weight(self._matrices(read, rows), 1)
        packed = self._decoded(list(read))
        if columns.row_count(packed) != rows:
            raise _other_rows(columns.row_count(packed), rows)
        return self._with_weight(packed, 1)

    def checked(self, packed: Rows) -> Rows:
        """Packed rows. DataError where a value does not fit in the dtype in which it is delivered."""
        if self._narrowed:
            spans = {stored: span.infos for stored, span in self.spans.items()}
            refuse_overflow(spans, self.variable, packed, self._narrowed)
        return packed

    def _decoded(self, read: Sequence[RecordBytes]) -> Rows:
        equal = self._equal_rows(read)
        if equal is not None:
            return self._packed(equal)
        records = [payload.tobytes() for each in read for payload in each.payloads()]
        return self._packed(decode_records(self._split.infos, self._split.layout, records))

    def _equal_rows(self, read: Sequence[RecordBytes]) -> Rows | None:
        """The rows of records of the layout rows that all have one length, as those of fixed-width columns do."""
        if self._split.layout.kind != "rows" or not self.quick:
            return None
        lengths = {records.length for records in read}
        if len(lengths) != 1 or None in lengths:
            return None
        raw = np.concatenate([records.data.reshape(len(records), -1)[:, HEADER:-FOOTER] for records in read])
        try:
            return decode_equal(self._split.infos, raw, self._packs)
        except ValueError as error:
            raise not_this_schema(error) from error

    def _packed(self, rows: Rows) -> Rows:
        packed: Rows = {
            stored: np.concatenate([columns.matrix(info, rows) for info in span.infos], axis=1)
            for stored, span in self.spans.items()
        }
        return {**packed, **{f"{info.name}/values": rows[info.name] for info in self.variable}}

    def zeros(self, rows: int) -> Rows:
        """That many packed rows of zeros, empty texts and empty lists."""
        packed: Rows = {
            stored: np.zeros((rows, span.stop - span.start), np.dtype(stored)) for stored, span in self.spans.items()
        }
        packed.update({f"{info.name}/values": _empty(info, rows) for info in self.variable})
        return self._with_weight(packed, 0)

    def _with_weight(self, packed: Rows, weight: float) -> Rows:
        if self._weighted:
            packed[PADDING_WEIGHT] = np.full(columns.row_count(packed), weight, np.float32)
        return packed

    def _matrices(self, read: Iterable[RecordBytes], rows: int) -> Rows:
        """The spans of blocks, without a parse of each: blocks of equal length differ in their matrices only."""
        found: Rows = {stored: np.empty((rows, span.stop - span.start), stored) for stored, span in self.spans.items()}
        dtypes = {stored: np.dtype(stored).newbyteorder("<") for stored in self.spans}
        at = 0
        for payload in itertools.chain.from_iterable(records.payloads() for records in read):
            frame = self._frame(payload)
            stop = at + frame.rows
            if stop <= rows:
                for stored, span in self.spans.items():
                    shape = (frame.rows, self._widths[stored])
                    values = np.ndarray(shape, dtypes[stored], payload, frame.places[stored])
                    found[stored][at:stop] = values[:, span.start : span.stop]
            at = stop
        if at != rows:
            raise _other_rows(at, rows)
        return found

    def _frame(self, payload: Bytes) -> BlockFrame:
        frame = self._frames.get(len(payload))
        if frame is None or not frame.fits(payload):
            try:
                frame = BlockFrame.of(payload, self._widths)
            except ValueError as error:
                raise not_this_schema(error) from error
            self._frames[len(payload)] = frame
        return frame


def _other_rows(found: int, wanted: int) -> DamagedError:
    return not_this_schema(ValueError(f"{found:,} rows instead of {wanted:,}"))


def zeros_of(infos: Sequence[FeatureInfo], rows: int) -> Rows:
    """That many rows of zeros, empty texts and empty lists, as the transform returns rows."""
    return {
        info.name: np.zeros((rows, *(size or 0 for size in info.shape)), np.dtype(info.stored))
        if columns.is_fixed(info)
        else _empty(info, rows)
        for info in infos
    }


def _empty(info: FeatureInfo, rows: int) -> pa.Array:
    if columns.is_text(info):
        return pa.array([b""] * rows, pa.large_binary())
    kind = pa.large_binary() if info.stored == "bytes" else pa.from_numpy_dtype(np.dtype(info.stored))
    return pa.array([[b""] * (info.shape[0] or 0)] * rows, pa.large_list(kind))
