"""What tests of mixtures share."""

from __future__ import annotations

import pytest

from dtap_dask.loading.mixture.source import MixtureSource
from mixtures import SHARDS, dataset


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Datasets by the names of components."""
    folder = tmp_path_factory.mktemp("data")
    return {name: dataset(folder, name) for name in SHARDS}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of them in an epoch."""
    monkeypatch.setattr(MixtureSource, "chunk", 16)
