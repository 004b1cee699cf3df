"""The fitted features of a finished dataset, opened once and kept for the next rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import pyarrow as pa

from dtap_dask.features import FittedState, Rows, Transform
from dtap_dask.features.graph.serving import of_new_rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.lake.derived import RawColumns, needed
from dtap_dask.records.fitted import read_fitted
from dtap_dask.records.folder import MANIFEST
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage import Store, local_copies, open_store


@dataclass(frozen=True)
class FittedFeatures:
    """The features of a dataset, without label, weight and kept columns, as a function of raw rows."""

    manifest: Manifest
    state: FittedState

    @cached_property
    def raw(self) -> RawColumns:
        """What rows must have: the columns that the features are made from, directly or by `derive`."""
        return self.manifest.source_columns.raw.needed_for(self.features.graph.columns)

    @cached_property
    def features(self) -> FittedState:
        """The state of the features alone."""
        return of_new_rows(self.state)

    @property
    def infos(self) -> tuple[FeatureInfo, ...]:
        """What each feature is."""
        return self._transform.infos

    @cached_property
    def together(self) -> FeatureGroup:
        """All features in one group: best for few rows."""
        return FeatureGroup(self.raw, self._transform)

    @cached_property
    def apart(self) -> tuple[FeatureGroup, ...]:
        """The features in groups that have none of the lake's columns in common: best for many rows."""
        raw, read = self.raw, set(self.raw.schema.names)
        sources = {output.name: output.sources for output in self.features.graph.outputs}
        groups = disjoint({name: sorted(needed(used, raw.derived) & read) for name, used in sources.items()})
        columns = (chain.from_iterable(sources[name] for name in names) for names in groups)
        pairs = zip(columns, groups, strict=True)
        return tuple(FeatureGroup(raw.needed_for(used), self._transform.of(names)) for used, names in pairs)

    @cached_property
    def _transform(self) -> Transform:
        return Transform(self.features)


@dataclass(frozen=True)
class FeatureGroup:
    """Features as a function of the columns of the lake that they are made from, which `raw` describes."""

    raw: RawColumns
    transform: Transform

    @property
    def infos(self) -> tuple[FeatureInfo, ...]:
        """What each feature is."""
        return self.transform.infos

    def apply(self, rows: pa.RecordBatch) -> Rows:
        """The features of rows with the columns of `raw.schema`, as records store them."""
        return self.transform.apply(self.raw.with_derived(rows))


def disjoint(columns: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The names in groups that have none of their columns in common; `columns` are those of each name."""
    above: dict[str, str] = {}  # a forest, whose trees are the columns of the groups

    def root(column: str) -> str:
        while above.setdefault(column, column) != column:
            above[column] = column = above[above[column]]
        return column

    for first, *others in filter(None, columns.values()):
        for column in others:
            above[root(column)] = root(first)
    groups: dict[str, list[str]] = {}
    for name, used in columns.items():
        groups.setdefault(root(used[0]) if used else "", []).append(name)
    return list(groups.values())


def open_features(path: str | os.PathLike[str], storage: Mapping[str, Any] | None = None) -> FittedFeatures:
    """The fitted features of the dataset at `path`; what is opened is kept, and read again once the dataset changes.

    OutputError where there is no finished dataset.
    """
    settings = json.dumps(local_copies.others(storage or {}), sort_keys=True)
    store = open_store(os.fspath(path), json.loads(settings))
    return _opened(store.address, settings, _version(store))


def _version(store: Store) -> tuple[int, str | None] | None:
    """What differs once the manifest was replaced; None where there is none, which `read_fitted` explains."""
    try:
        found = store.info(MANIFEST)
    except FileNotFoundError:
        return None
    return found.size, found.version


@lru_cache(maxsize=16)
def _opened(url: str, settings: str, version: object) -> FittedFeatures:
    store = open_store(url, json.loads(settings))
    return FittedFeatures(*read_fitted(store))
