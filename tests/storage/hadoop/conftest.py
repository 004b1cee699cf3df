"""Fixtures of tests on a real HDFS."""

from __future__ import annotations

import pytest

from dtap_dask.storage.hadoop.native import HdfsFileSystem
from hdfs_clients import connect
from mini_hdfs import Hdfs


@pytest.fixture
def fs(hdfs: Hdfs) -> HdfsFileSystem:
    """The shared HDFS."""
    return connect(hdfs.url)


@pytest.fixture
def root(fs: HdfsFileSystem, hdfs_url: str) -> str:
    """The path of an empty folder of the test's own there."""
    path = fs._strip_protocol(hdfs_url)
    fs.makedirs(path)
    return str(path)
