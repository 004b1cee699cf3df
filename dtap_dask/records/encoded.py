"""What an encoder gives: framed records, ready to be appended to a TFRecord file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtap_dask.errors import DataError, JobError

MOST_BYTES = 16 << 20  # a record stays below this, checksums included


@dataclass(frozen=True)
class Encoded:
    """Framed records: their bytes (anything with the buffer protocol), framed lengths and rows, both int64[records]."""

    data: bytes | npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]


def too_large(row: int, size: int) -> DataError:
    """The error for one row that fits no record."""
    return DataError(
        f"Row {row} of a batch takes {size:,} bytes, and a record must stay below {MOST_BYTES:,}. Cut or drop long "
        "texts (`derive`), or leave the column or the row (`source.where`) out."
    )


def too_wide(size: int) -> JobError:
    """The error for a schema whose every row fits no record."""
    return JobError(
        f"A row of these features takes {size:,} bytes, and a record must stay below {MOST_BYTES:,}. Write fewer or "
        "narrower vectors (fewer one-hot values, pca, ordinal_encode)."
    )
