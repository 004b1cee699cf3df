"""Assigns rows to the parts of a split, by a hash of their key or by predicates; samples rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.lake.hashing import U64, splitmix64
from dtap_dask.lake.sql.expression import Expression

# Each row's index in the names of the parts, shape [n]; -1 for a row in no part.
PartIndex: TypeAlias = npt.NDArray[np.int16]
# Mixed into the hash of the key, so that a sample of the rows is not just the first part.
_SAMPLE_SALT = np.uint64(0x243F6A8885A308D3)
_FOLD_SALT = np.uint64(0x13198A2E03707344)  # so that folds are independent of split and sample

ROW_FOLDS = 1 << 31
"""With this many folds the fold of a row is a hash of the row itself, whatever the key of the split is."""


@dataclass(frozen=True)
class SplitSpec:
    """The parts of a split, in written order: `fractions` of the key's hash, or `where` predicates; the other is None.

    `key`: the key columns (empty: the file's key and the row number in the file); `fit`: the part that is fitted, None
    where none is.
    """

    names: tuple[str, ...]
    fractions: tuple[float, ...] | None
    key: tuple[str, ...]
    where: tuple[str, ...] | None
    fit: str | None


def to_unit(hashes: U64) -> npt.NDArray[np.float64]:
    """h / 2^64 in [0, 1), shape [n], from the upper 53 bits (all that a float64 can hold without reaching 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def in_sample(hashes: U64, fraction: float) -> npt.NDArray[np.bool_]:
    """Whether each row is in a sample of `fraction` of the rows, shape [n]; independent of the split."""
    return np.asarray(to_unit(splitmix64(hashes ^ _SAMPLE_SALT)) < fraction)


def upper_bounds(fractions: Sequence[float]) -> npt.NDArray[np.float64]:
    """Where each part's interval of [0, 1) ends, shape [parts]; the last is 1 whatever rounding did."""
    total, bounds = Fraction(0), []
    for fraction in fractions:
        total += Fraction(repr(fraction))  # 0.8 + 0.1 is 0.9 here
        bounds.append(float(total))
    return np.array([*bounds[:-1], 1.0])


def by_fraction(hashes: U64, fractions: Sequence[float]) -> PartIndex:
    """The index of the part whose interval holds each row, shape [n]."""
    inner = upper_bounds(fractions)[:-1]
    return np.searchsorted(inner, to_unit(hashes), side="right").astype(np.int16)


def fold_column(folds: int) -> str:
    """The name of the column that holds the fold of each row, one of `folds`; no column of a lake has it."""
    return f"<fold {folds}>"


def fold_index(hashes: U64, folds: int, fitted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The fold of each row, shape [n]: 0 to folds - 1 where it is `fitted`, else -1."""
    return np.where(fitted, (to_unit(splitmix64(hashes ^ _FOLD_SALT)) * folds).astype(np.int64), -1)


def by_predicate(rows: pa.RecordBatch, predicates: Sequence[Expression]) -> PartIndex:
    """The index of the first predicate that is true for each row, shape [n]; -1 where none is."""
    parts = np.full(rows.num_rows, -1, np.int16)
    for index in reversed(range(len(predicates))):
        parts[predicates[index].keep(rows).to_numpy(zero_copy_only=False)] = index
    return parts
