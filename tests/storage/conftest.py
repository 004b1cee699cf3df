"""Fixtures of tests of storage."""

from __future__ import annotations

import os
from collections.abc import Iterator

import dask
import fsspec
import pytest

from dtap_dask.job.taps import DtapFileSystem


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """fsspec knows dtap:// as ours, and neither the environment nor Dask has settings of taps."""
    for name in [name for name in os.environ if name.startswith("DTAP_")]:
        monkeypatch.delenv(name)
    fsspec.register_implementation("dtap", DtapFileSystem, clobber=True)
    with dask.config.set(dtap={}, hdfs={}):
        yield
