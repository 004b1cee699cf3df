"""Rows to framed tf.train.Example records and back, in either layout, without TensorFlow and without row objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dtap_dask.errors import JobError, OutputError, Problem
from dtap_dask.features.state import FeatureInfo
from dtap_dask.records import blocks, rows, rows_decode
from dtap_dask.records.columns import Rows, is_fixed
from dtap_dask.records.encoded import Encoded
from dtap_dask.records.tfrecord import Compression

LayoutKind = Literal["blocks", "rows"]


@dataclass(frozen=True)
class Layout:
    """How rows lie in records. `rows_per_record` counts for blocks only, where a record holds up to so many rows."""

    kind: LayoutKind = "blocks"
    rows_per_record: int = 1024
    compression: Compression = "none"


class Encoder:
    """Encodes rows of one schema. Raises JobError, with every problem, for columns that the layout cannot hold.

    `rows_per_record` is 1 for rows; for blocks what the layout asks for, lowered so far that a record stays below
    16 MiB. It depends on the schema alone.
    """

    def __init__(self, infos: Sequence[FeatureInfo], layout: Layout):
        check_schema(infos, layout)
        self.infos = tuple(infos)
        self.layout = layout
        self._encoder = (
            blocks.BlocksEncoder(self.infos, layout.rows_per_record)
            if layout.kind == "blocks"
            else rows.RowsEncoder(self.infos)
        )
        self.rows_per_record = self._encoder.rows_per_record

    def encode(self, data: Rows) -> Encoded:
        """Framed records of `data`, in order; DataError where a single row is larger than a record may be.

        blocks: a record for every `rows_per_record` rows and one for the rest; a record whose texts or lists would
        bring it above 16 MiB is cut into several. rows: a record a row.
        """
        return self.encode_packed(self.pack(data))

    def pack(self, data: Rows) -> Rows:
        """`data` in the form from which it is encoded at least cost, by names of the encoder's own.

        Its rows can be cut, taken and joined as those of `data`, only faster: columns lie side by side in few matrices.
        """
        return self._encoder.pack(data)

    def encode_packed(self, packed: Rows) -> Encoded:
        """`encode` of what `pack` gave."""
        return self._encoder.encode(packed)


def decode(infos: Sequence[FeatureInfo], layout: Layout, record: bytes) -> Rows:
    """The rows of one record, columns in their stored dtypes. OutputError where it is not such a record.

    A record of the rows layout may come from any writer of tf.train.Example: order of features, packing and the width
    of varints are free.
    """
    return decode_many(infos, layout, [record])


def decode_many(infos: Sequence[FeatureInfo], layout: Layout, records: Sequence[bytes]) -> Rows:
    """The rows of many records, joined in order: like `decode`, much faster for records of the rows layout."""
    try:
        return blocks.decode(infos, records) if layout.kind == "blocks" else rows_decode.decode(infos, records)
    except ValueError as error:
        raise OutputError(
            f"A record does not hold the columns that its manifest states: {error}. It was written by another job or "
            "is damaged; `dtap-dask verify` names every such record."
        ) from error


def check_schema(infos: Sequence[FeatureInfo], layout: Layout) -> None:
    """JobError, with every problem, for columns that the layout cannot hold."""
    problems = [problem for info in infos for problem in _problems(info, layout)]
    names = [info.name for info in infos]
    problems += [
        Problem(name, "two columns have this name") for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if not infos:
        problems.append(Problem("features", "there is no column to write; name at least one feature"))
    if layout.rows_per_record < 1:
        problems.append(Problem("output.rows_per_record", f"{layout.rows_per_record} is not a positive number of rows"))
    if problems:
        raise JobError(problems)


# What a column of fixed width can be stored as.
STORED = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)


def _problems(info: FeatureInfo, layout: Layout) -> list[Problem]:
    place = f"column {info.name!r}"
    if info.stored == "bytes" or info.stored in STORED:
        found = []
    else:
        return [Problem(place, f"no record can hold {info.stored!r}; cast it to float32, int64 or bytes")]
    if None in info.shape and info.shape != (None,):
        found.append(Problem(place, f"shape {info.shape} is not one list a row; leave the column out"))
    if not is_fixed(info) and len(info.shape) > 1:
        found.append(Problem(place, f"text of shape {info.shape} has more than one axis; flatten it"))
    if layout.kind == "rows" and info.stored in ("float64", "float16"):
        found.append(
            Problem(
                place, f"tf.train.Example has no {info.stored}; cast it to float32, or choose output.layout: blocks"
            )
        )
    if layout.kind == "rows" and info.stored == "uint64":
        found.append(
            Problem(place, "tf.train.Example has no uint64; cast it to int64, or choose output.layout: blocks")
        )
    return found
