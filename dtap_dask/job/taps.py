"""Storage settings of a job, with those of Dask's configuration as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask

from dtap_dask.errors import StorageError
from dtap_dask.storage import Store, dtap
from dtap_dask.storage.settings import WAYS, resolved


def settings(storage: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A job's `storage` section, completed by the environment and then by Dask's configuration (`dtap:`, `hdfs:`).

    Raises StorageError for unknown keys and wrong values in any of the three.
    """
    return resolved(storage, configured())


def combined(*stores: Store) -> dict[str, Any]:
    """The settings of the first store, with the ways to the taps of all stores, for tasks that open all of them."""
    first = dict(stores[0].settings)
    ways = {tap: way for store in stores for tap, way in store.settings["dtap"].get(WAYS, {}).items()}
    return {**first, "dtap": {**first["dtap"], WAYS: ways}}


def configured() -> dict[str, Any]:
    """The sections `dtap` and `hdfs` of Dask's configuration."""
    found = {}
    for name in ("dtap", "hdfs"):
        section = dask.config.get(name, None)
        if section is not None and not isinstance(section, Mapping):
            raise StorageError(f"Dask's configuration holds {name}: {section!r}, but a mapping of keys is needed.")
        if section:
            found[name] = section
    return found


class DtapFileSystem(dtap.TapFileSystem):
    """The filesystem that fsspec uses for `dtap://`: `storage.dtap.TapFileSystem`, with Dask's configuration."""

    def _below(self) -> Mapping[str, Any]:
        return configured()
