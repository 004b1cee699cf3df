"""The fitted features of a finished dataset, opened once and kept for the next rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa

from dtap_dask.errors import OutputError
from dtap_dask.features import FittedState, Rows, Transform
from dtap_dask.features.graph.serving import of_new_rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.lake.derived import RawColumns
from dtap_dask.records.folder import MANIFEST
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.storage import Store, local_copies, open_store


@dataclass(frozen=True)
class FittedFeatures:
    """The features of a dataset, without label, weight and kept columns, as a function of raw rows."""

    manifest: Manifest
    state: FittedState

    @cached_property
    def raw(self) -> RawColumns:
        """What rows must have: the columns that the features are made from, directly or by `derive`."""
        entry = self.manifest.raw
        if entry is None:
            raise OutputError(
                "The dataset was written by a release of dtap-dask before 0.2.0 and does not say what its source "
                "columns were. Write it again with `dtap-dask run JOB --overwrite`."
            )
        return entry.raw.needed_for(self.features.graph.columns)

    @cached_property
    def features(self) -> FittedState:
        """The state of the features alone."""
        return of_new_rows(self.state)

    @property
    def infos(self) -> tuple[FeatureInfo, ...]:
        """What each feature is."""
        return self._transform.infos

    @cached_property
    def _transform(self) -> Transform:
        return Transform(self.features)

    def apply(self, rows: pa.RecordBatch) -> Rows:
        """The features of rows with the columns of `raw.schema`, as records store them."""
        return self._transform.apply(self.raw.with_derived(rows))


def open_features(path: str | os.PathLike[str], storage: Mapping[str, Any] | None = None) -> FittedFeatures:
    """The fitted features of the dataset at `path`; what is opened is kept, and read again once the dataset changes.

    OutputError where there is no finished dataset.
    """
    settings = json.dumps(local_copies.others(storage or {}), sort_keys=True)
    store = open_store(os.fspath(path), json.loads(settings))
    return _opened(store.address, settings, _version(store))


def _version(store: Store) -> tuple[int, str | None] | None:
    """What differs once the manifest was replaced; None where there is none, which `read_manifest` explains."""
    try:
        found = store.info(MANIFEST)
    except FileNotFoundError:
        return None
    return found.size, found.version


@lru_cache(maxsize=16)
def _opened(url: str, settings: str, version: object) -> FittedFeatures:
    store = open_store(url, json.loads(settings))
    return FittedFeatures(read_manifest(store), FittedState.load(store))
