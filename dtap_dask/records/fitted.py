"""A dataset's manifest with the fitted state that belongs to it, also while another run replaces the dataset."""

from __future__ import annotations

from functools import partial

from dtap_dask.errors import OutputError
from dtap_dask.features.graph.state import FittedState
from dtap_dask.records.commit import read_sidecar
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.storage import Store


def read_fitted(store: Store) -> tuple[Manifest, FittedState]:
    """The manifest in a folder, and the state whose files have the checksums that it states.

    Right after a commit, or after a crash in it, these files have not got their names yet, and those of the replaced
    dataset are still there. OutputError where there is no finished dataset, and for files that are missing or damaged.
    """
    manifest = read_manifest(store)
    try:
        return manifest, _state(store, manifest)
    except OutputError:
        present = read_manifest(store)
        if present == manifest:
            raise
        return present, _state(store, present)  # it was replaced meanwhile


def _state(store: Store, manifest: Manifest) -> FittedState:
    return FittedState.load(store, read=partial(read_sidecar, store, manifest))
