"""One warning of a model that waits for data, with what to do about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from dtap_dask.loading.feed import FeedStage

FEWEST, SHORTEST = 50, 1.0  # batches and seconds that must have been measured
SOON = 10.0  # seconds from the first batch of an epoch that does not end before, and between two such checks


class FeedWarning(UserWarning):
    """A model waits for data."""


class FeedWatch:
    """Warns once, with what to do about each stage."""

    def __init__(self, remedies: Mapping[FeedStage, str] | None = None) -> None:
        self._remedies = {**REMEDIES, **(remedies or {})}
        self._warned, self._checked = False, 0.0

    def check_early(self, first: float, stats: Callable[[], Mapping[str, Any]]) -> None:
        """Check an epoch that has not ended for long since its first batch, at `first` of perf_counter."""
        now = perf_counter()
        if not self._warned and now - max(first, self._checked) > SOON:
            self._checked = now
            self.check(stats())

    def check(self, found: Mapping[str, Any]) -> None:
        """Warn if these `stats()` have a bottleneck, and enough was measured to say so."""
        stage: FeedStage | None = found["bottleneck"]
        if stage is None or self._warned or found["batches"] < FEWEST or found["seconds"] < SHORTEST:
            return
        self._warned = True
        text = (
            f"The model waits for data in {found['waiting']:.0%} of the time, most of all for {self._remedies[stage]}."
        )
        warnings.warn(text, FeedWarning, stacklevel=3)


REMEDIES: dict[FeedStage, str] = {
    "disk": (
        "reading records from disk. Put the dataset, or the cache of a staged one (storage.cache.path), on a faster "
        "disk, or write it with output.compression: gzip"
    ),
    "remote": (
        "shards that are fetched. Give a mount of the store in storage.mounts, or a cache that holds the whole dataset "
        "(storage.cache.size), or copy the dataset to a local disk"
    ),
    "decode": (
        "decoding records. Load fewer bytes with as_vectors=True, ids='int32' or features=[...], take larger batches, "
        "or write the dataset with output.layout: blocks"
    ),
    "shuffle": (
        "shuffling rows. Load fewer columns with features=[...], or load with shuffle=False what was written with "
        "output.shuffle: mixed"
    ),
}
