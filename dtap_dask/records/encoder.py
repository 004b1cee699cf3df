"""The interface of encoders, from rows to framed records that can be appended to a TFRecord file, and its limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtap_dask.errors import DataError, JobError
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo

MOST_BYTES = 16 << 20  # a record stays below this, framing included


@dataclass(frozen=True)
class EncodedRecords:
    """Framed records: all their bytes, and each one's framed length and number of rows, both int64[records]."""

    data: bytes | npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]


class RecordEncoder(ABC):
    """Encodes rows of one schema.

    `rows_per_record` is 1 in the rows layout; in the blocks layout it is what the layout asks for, lowered so far that
    a record stays below 16 MiB. It depends on the schema alone.
    """

    def __init__(self, infos: Sequence[FeatureInfo], rows_per_record: int):
        self.infos = tuple(infos)
        self.rows_per_record = rows_per_record

    def encode(self, rows: Rows) -> EncodedRecords:
        """Framed records of `rows`, in order. DataError where a single row is larger than a record may be."""
        return self.encode_packed(self.pack(rows))

    @abstractmethod
    def pack(self, rows: Rows) -> Rows:
        """`rows` in the form that is fastest to slice, take from, join and encode; its names are the encoder's own."""

    @abstractmethod
    def encode_packed(self, packed: Rows) -> EncodedRecords:
        """`encode` for what `pack` returned."""


def too_large(row: int, size: int) -> DataError:
    """The error for a row that fits in no record."""
    return DataError(
        f"Row {row} of a batch takes {size:,} bytes, and a record must stay below {MOST_BYTES:,}. Cut or drop long "
        "texts (`derive`), or leave the column or the row (`source.where`) out."
    )


def too_wide(size: int) -> JobError:
    """The error for a schema whose rows fit in no record."""
    return JobError(
        f"A row of these features takes {size:,} bytes, and a record must stay below {MOST_BYTES:,}. Write fewer or "
        "narrower vectors (fewer one-hot values, pca, ordinal_encode)."
    )
