"""`dtap_dask.torch_batches` and `dtap_dask.torch_rows`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dtap_dask.errors import JobError, Problem
from dtap_dask.loading.dataset import open_split
from dtap_dask.loading.mixture.component import Mixture
from dtap_dask.loading.mixture.opening import opened
from dtap_dask.loading.order.position import Readers
from dtap_dask.loading.order.sharing import integer
from dtap_dask.loading.reading.options import Ids, OnBadRecord, Remainder, batch_options
from dtap_dask.loading.shards.precision import FloatDtype
from dtap_dask.storage import local_copies

if TYPE_CHECKING:
    from dtap_dask.train.pytorch.iterable import TorchBatches
    from dtap_dask.train.pytorch.map_style import TorchRows


def torch_batches(
    path: str | os.PathLike[str] | Mixture,
    split: str = "train",
    batch_size: int = 1024,
    shuffle: bool | None = None,
    seed: int = 0,
    *,
    workers: int = 0,
    features: Sequence[str] | None = None,
    kept: bool = False,
    label: bool = True,
    as_vectors: bool = False,
    ids: Ids = "int64",
    floats: FloatDtype | None = None,
    readers: tuple[int, int] | Literal["TF_CONFIG"] | None = None,
    remainder: Remainder | None = None,
    on_bad_record: OnBadRecord = "error",
    skip: int = 0,
    take: int | None = None,
    where: str | None = None,
    resample: Mapping[Any, float] | Literal["balanced"] | None = None,
    class_weights: Mapping[Any, float] | Literal["balanced"] | None = None,
    state: Mapping[str, Any] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> TorchBatches:
    """The rows of one split in batches of tensors, as a torch.utils.data.IterableDataset.

    `DataLoader(torch_batches(path, workers=2), batch_size=None, num_workers=2)`: the elements are whole batches, so the
    DataLoader makes none. They are those of `load` and `batches`, whose arguments these are: (features, label),
    (features, label, weight) or features alone, and with `kept=True` a pair of that and a dict of the kept columns, as
    named tuples. Features are a dict by name: scalars [batch], vectors [batch, k], lists of any length
    `Ragged(values, offsets)`, text as NumPy arrays of bytes objects. A boolean label is float32.

    The `workers` of the DataLoader divide the rows of a reader among them; each row comes once, in the same batches
    every time. Another number of workers gives other batches. In a Mixture workers draw the same components, each with
    its part of their rows, and pad the last batches unless `remainder` says otherwise. For several processes that train
    together, `readers` is (rank, number of them), such as `(dist.get_rank(), dist.get_world_size())`.

    Every iteration over the DataLoader is the next epoch, also with persistent workers; `set_epoch(n)` chooses one.
    `state(k)` is the position after k batches of an iteration, and `state=` continues there. `stats()` says how fast a
    loop is fed; with workers, one over `measured(loader)`.

    Raises JobError where PyTorch is not installed, and the errors of `batches`.
    """
    _check_torch()
    number = integer(workers)
    if number is None or number < 0:
        raise JobError(Problem("workers", f"{workers!r} is not a number of workers, such as 2, or 0 for none"))
    if isinstance(path, Mixture) and number > 1:  # as of several readers, who draw the same components
        if remainder == "keep":
            raise JobError(Problem("remainder", _NOT_KEPT))
        remainder = remainder or "pad"
    source, options = opened(
        path,
        split,
        batch_size,
        shuffle,
        seed,
        readers=readers,
        storage=storage,
        features=features,
        kept=kept,
        label=label,
        as_vectors=as_vectors,
        ids=ids,
        floats=floats,
        remainder=remainder,
        on_bad_record=on_bad_record,
        skip=skip,
        take=take,
        where=where,
        resample=resample,
        class_weights=class_weights,
    )
    from dtap_dask.train.pytorch.iterable import TorchBatches

    return TorchBatches(source, options, number, state)


def torch_rows(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    features: Sequence[str] | None = None,
    kept: bool = False,
    label: bool = True,
    as_vectors: bool = False,
    ids: Ids = "int64",
    floats: FloatDtype | None = None,
    storage: Mapping[str, Any] | None = None,
) -> TorchRows:
    """The rows of one split by their numbers in the order of the manifest, as a map-style torch.utils.data.Dataset.

    `len()` is the number of rows, `rows[7]` one row, and `rows[[7, 3]]` a batch as `torch_batches` gives it. So
    `DataLoader(rows, batch_size=64, shuffle=True)` works as with any dataset, and
    `DataLoader(rows, batch_size=None, sampler=BatchSampler(RandomSampler(rows), 1024, False))` makes the batches at
    once, many times faster. Records are read as they are needed: a row costs a block, or in the layout `rows` a record.
    Rows are chosen and datasets joined by PyTorch: torch.utils.data.Subset, ConcatDataset, WeightedRandomSampler.

    Raises JobError where PyTorch is not installed or for wrong arguments, DataError for a split without rows,
    OutputError for a dataset that is not finished or is damaged, StorageError for one that cannot be reached.
    """
    _check_torch()
    if isinstance(path, Mixture):
        raise JobError(Problem("path", _NO_MIXTURE))
    found = open_split(path, split, storage)
    options = batch_options(
        found,
        Readers(),
        1,
        features=features,
        kept=kept,
        label=label,
        as_vectors=as_vectors,
        ids=ids,
        floats=floats,
        remainder="keep",
    )
    from dtap_dask.train.pytorch.map_style import TorchRows

    return TorchRows(found, options, None if found.paths else local_copies.cache(storage or {}))


_NOT_KEPT = (
    "the workers of a mixture draw the same components, but with 'keep' one could have a row of a component more than "
    "another; use 'pad', 'repeat' or 'drop', or no more than one worker"
)
_NO_MIXTURE = (
    "the rows of a mixture have no numbers, as they are drawn anew in each epoch. Join the `torch_rows` of its "
    "components with torch.utils.data.ConcatDataset, and draw them with a WeightedRandomSampler; or use `torch_batches`"
)


def _check_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise JobError("PyTorch is not installed; `pip install 'dtap-dask[torch]'` or `pip install torch` installs it.")
