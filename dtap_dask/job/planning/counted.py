"""Counted rows by row group and part of the split, and the bytes that were read for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtap_dask.errors import DataError
from dtap_dask.lake.scan import ScanSpec
from dtap_dask.storage import Store


@dataclass(frozen=True)
class Reading:
    """The bytes that a task read from column chunks and from footers."""

    columns: int
    footers: int

    @classmethod
    def of(cls, store: Store) -> Reading:
        """What the counters of a task's own store say."""
        counters = store.counters
        return cls(counters.bytes_read - counters.footer_bytes, counters.footer_bytes)


@dataclass(frozen=True)
class Counted:
    """The rows of a task by row group and part of the split, shape [groups, parts], and the bytes read for them.

    `unmatched` rows pass the filter but are in no part.
    """

    task: int
    rows: npt.NDArray[np.int64]
    unmatched: int
    reading: Reading


def refuse_empty(scan: ScanSpec, source: str, totals: npt.NDArray[np.int64]) -> None:
    """DataError if no row is left, or none in the part that is fitted; `totals` holds the rows of each part."""
    if not totals.sum():
        causes = [f"source.where: {scan.where!r}"] if scan.where else []
        causes += [f"source.sample: {scan.sample}"] if scan.sample is not None else []
        causes += ["the conditions of split.where"] if scan.split and scan.split.where else []
        raise DataError(f"No row of {source} is left: none passed. Check {', '.join(causes)}.")
    if scan.split and scan.split.fit and not totals[scan.split.names.index(scan.split.fit)]:
        parts = ", ".join(f"{name} {count:,}" for name, count in zip(scan.split.names, totals, strict=True))
        raise DataError(
            f"The part {scan.split.fit!r}, which is fitted, has no rows ({parts}). Check split and split.fit."
        )
