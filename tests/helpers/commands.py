"""A command as a user types it, in this process: a process of its own would import everything anew."""

from __future__ import annotations

from click.testing import CliRunner, Result

from dtap_dask.cli import tfrecords


def typed(*words: str) -> Result:
    """What a command prints and returns; an exception of ours that is not told in words fails the test."""
    return CliRunner().invoke(tfrecords, list(words), catch_exceptions=False)
