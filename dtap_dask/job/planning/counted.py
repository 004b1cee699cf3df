"""How many rows of a task survive, in which part of the split, and the bytes that reading them took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtap_dask.errors import DataError
from dtap_dask.lake.scan import ScanSpec
from dtap_dask.storage import Store


@dataclass(frozen=True)
class Reading:
    """Bytes that a task read of column chunks, and of footers."""

    columns: int
    footers: int

    @classmethod
    def of(cls, store: Store) -> Reading:
        """What a store of the task's own has counted."""
        counters = store.counters
        return cls(counters.bytes_read - counters.footer_bytes, counters.footer_bytes)


@dataclass(frozen=True)
class Counted:
    """Rows of each row group of a task in each part of the split, shape [groups, parts], and what reading it took."""

    task: int
    rows: npt.NDArray[np.int64]
    unmatched: int
    reading: Reading


def refuse_empty(scan: ScanSpec, source: str, totals: npt.NDArray[np.int64]) -> None:
    """DataError where no row is left, or none in the part that is fitted; `totals` has the rows of each part."""
    if not totals.sum():
        asked = [f"source.where: {scan.where!r}"] if scan.where else []
        asked += [f"source.sample: {scan.sample}"] if scan.sample is not None else []
        asked += ["the conditions of split.where"] if scan.split and scan.split.where else []
        raise DataError(f"No row of {source} is left: none passed. Check {', '.join(asked)}.")
    if scan.split and not totals[scan.split.names.index(scan.split.fit)]:
        told = ", ".join(f"{name} {count:,}" for name, count in zip(scan.split.names, totals, strict=True))
        raise DataError(
            f"The part {scan.split.fit!r}, which is fitted, has no rows ({told}). Check split and split.fit."
        )
