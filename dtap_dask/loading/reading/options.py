"""The arguments that `load` and `batches` share: what a batch holds, and which rows this reader gets; checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from dtap_dask.errors import DataError, JobError, Problem
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import DatasetSplit, selected
from dtap_dask.loading.order.position import Readers
from dtap_dask.loading.order.sharing import integer, readers_of
from dtap_dask.loading.shards.precision import FloatDtype, is_float, largest
from dtap_dask.records.blocks import matrices

SKIPS = 100  # damaged records in an epoch that `on_bad_record="skip"` leaves out
OnBadRecord = Literal["error", "skip"] | Mapping[Literal["skip"], int]
Ids = Literal["int64", "int32", "stored"]
Remainder = Literal["keep", "drop", "pad", "repeat"]


@dataclass(frozen=True)
class BatchOptions:
    """What a batch holds.

    `infos` are its columns in order, `dtypes` theirs as they are delivered. `vectors` are the features that come side
    by side in one matrix, named after the dtype in which they are delivered. `remainder` says what becomes of the rows
    at the end of an epoch that do not fill a batch. `skips` is the number of damaged records in an epoch that become
    padding; one more is an error. A reader has as many batches for each of its `replicas`. `class_weighted`: rows are
    weighted by their class.
    """

    size: int
    infos: tuple[FeatureInfo, ...]
    dtypes: dict[str, str]
    kept: bool
    vectors: dict[str, list[FeatureInfo]]
    remainder: Remainder
    skips: int
    replicas: int = 1
    class_weighted: bool = False

    @property
    def names(self) -> dict[str, list[str]]:
        """The names of the features of each matrix, in the order of its columns."""
        return {dtype: [info.name for info in infos] for dtype, infos in self.vectors.items()}

    @property
    def narrowed(self) -> dict[str, str]:
        """The dtypes of the float features that do not hold all numbers of the stored ones."""
        floats = [info for info in self.infos if is_float(info)]
        return {
            info.name: self.dtypes[info.name]
            for info in floats
            if largest(self.dtypes[info.name]) < largest(info.stored)
        }

    @property
    def weighted(self) -> bool:
        """Whether batches need a weight beside the dataset's, of classes or because rows of padding weigh nothing."""
        padded = self.remainder == "pad" or self.skips > 0
        return self.class_weighted or (padded and not any(info.role == "weight" for info in self.infos))

    def count(self, most: int, fewest: int, taken: int = 0) -> int:
        """The batches of each reader where readers have between `fewest` and `most` rows; the same for all of them.

        `taken` are the batches of the epoch before these: all replicas have equally many batches of both together.
        """
        found = fewest // self.size if self.remainder == "drop" else -(-most // self.size)
        if self.remainder == "keep":
            return found
        if self.remainder == "drop":
            return max(0, found - (taken + found) % self.replicas)
        return found + -(taken + found) % self.replicas

    def refuse_none(self, split: DatasetSplit, most: int, fewest: int) -> None:
        """DataError where a whole epoch has no batch."""
        if not self.count(most, fewest):
            raise DataError(
                f"The split {split.name!r} of {split.store.url} has {fewest:,} rows for a reader, so that dropping "
                f"incomplete batches of {self.size * self.replicas:,} rows drops them all. Use smaller batches, or "
                "keep the last one."
            )


def batch_options(
    split: DatasetSplit,
    readers: Readers,
    size: int,
    *,
    features: Sequence[str] | None,
    kept: bool,
    label: bool,
    as_vectors: bool,
    ids: Any,
    floats: Any = None,
    remainder: Any,
    on_bad_record: Any = "error",
    class_weighted: bool = False,
) -> BatchOptions:
    """The options of a batch. JobError, with every problem, for wrong ones."""
    problems = list[Problem]()
    if remainder is None:
        remainder = "keep" if readers.count == readers.replicas == 1 else "pad"
    if remainder not in get_args(Remainder):
        problems.append(Problem("remainder", f"{remainder!r} is none of {_listed(Remainder)}"))
    elif remainder == "keep" and readers.count > 1:
        problems.append(
            Problem(
                "remainder", "'keep' could give one reader a batch more than another; use 'pad', 'repeat' or 'drop'"
            )
        )
    skips = _skips(on_bad_record)
    if skips is None:
        wanted = "'error', 'skip' or a number of records in an epoch, such as {'skip': 1000}"
        problems.append(Problem("on_bad_record", f"{on_bad_record!r} is not {wanted}"))
    if ids not in get_args(Ids):
        problems.append(Problem("ids", f"{ids!r} is none of {_listed(Ids)}"))
    if floats is not None and floats not in get_args(FloatDtype):
        problems.append(Problem("floats", f"{floats!r} is none of {_listed(FloatDtype)}, and not None"))
    for name, value in {"kept": kept, "label": label, "as_vectors": as_vectors}.items():
        problems += _not_bool(name, value)
    roles = {"feature", "weight", *(["kept"] if kept else []), *(["label"] if label else [])}
    infos = tuple(info for info in selected(split.infos, features) if info.role in roles)
    if not infos:
        have = ", ".join(f"{info.name!r} ({info.role})" for info in split.infos)
        problems.append(Problem("kept", f"no column is left: the dataset has {have}. Give `kept=True` or `label=True`"))
    if ids == "int32":
        large = [info.name for info in infos if info.ids is not None and info.ids > 1 << 31]
        problems += [Problem("ids", f"the ids of {name!r} do not fit in int32; use 'int64'") for name in large]
    if problems or skips is None:
        raise JobError(problems)
    dtypes = {info.name: _dtype(info, ids, floats) for info in infos}
    vectors = vectors_of(split, dtypes) if as_vectors else {}
    return BatchOptions(size, infos, dtypes, kept, vectors, remainder, skips, readers.replicas, class_weighted)


def vectors_of(split: DatasetSplit, dtypes: Mapping[str, str]) -> dict[str, list[FeatureInfo]]:
    """The features of fixed width by the dtype that is delivered; those of one stored dtype are neighbours."""
    found: dict[str, list[FeatureInfo]] = {}
    for group in matrices(split.infos).values():
        for info in group:
            if info.role == "feature" and info.name in dtypes:
                found.setdefault(dtypes[info.name], []).append(info)
    return found


def checked(batch_size: Any, seed: Any, readers: Any, shuffle: Any) -> tuple[int, int, Readers]:
    """The batch size and the seed as plain integers, and the readers. JobError, with every problem, for wrong ones."""
    size, number, reader = integer(batch_size), integer(seed), Readers()
    problems = []
    if size is None or not 0 < size < 2**63:
        problems.append(Problem("batch_size", f"{batch_size!r} is not a positive number of rows, such as 1024"))
    if number is None or not -(2**63) <= number < 2**63:
        problems.append(Problem("seed", f"{seed!r} is not an integer of 64 bits, such as 0"))
    if shuffle is not None:
        problems += _not_bool("shuffle", shuffle)
    try:
        reader = readers_of(readers)
    except ValueError as error:
        problems.append(Problem("readers", str(error)))
    if problems or size is None or number is None:
        raise JobError(problems)
    return size, number, reader


def _not_bool(name: str, value: Any) -> list[Problem]:
    """What is wrong with an argument that is neither True nor False, such as 'no', which would count as True."""
    return [] if isinstance(value, bool | np.bool_) else [Problem(name, f"{value!r} is neither True nor False")]


def _skips(on_bad_record: Any) -> int | None:
    """The number of damaged records in an epoch that may be left out; None for a wrong choice."""
    if isinstance(on_bad_record, Mapping):
        most = integer(on_bad_record["skip"]) if [*on_bad_record] == ["skip"] else None
        return most if most is not None and most > 0 else None
    return {"error": 0, "skip": SKIPS}.get(on_bad_record) if isinstance(on_bad_record, str) else None


def _dtype(info: FeatureInfo, ids: Ids, floats: FloatDtype | None) -> str:
    if floats is not None and is_float(info):
        return floats
    if info.ids is None or info.role != "feature" or ids == "int64":
        return info.dtype
    return info.stored if ids == "stored" else "int32"


def _listed(choices: Any) -> str:
    return ", ".join(map(repr, get_args(choices)))
