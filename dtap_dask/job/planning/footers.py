"""Footers of a source: few are read here, many elsewhere, such as by all cores of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from dtap_dask.job.cluster import machine
from dtap_dask.job.interrupts import shielded
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary, summarize_footers
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.storage import Store

# More footers than this are read elsewhere: in tasks on the workers, or by all cores (half a millisecond each here).
FOOTERS_ON_CLIENT = 1000
FOOTERS_A_TASK = 256

ReadFooters = Callable[[Store, Sequence[SourceFile], FooterQuery], FooterSummary]


def summarize(
    source: Store, files: Sequence[SourceFile], query: FooterQuery, elsewhere: ReadFooters | None
) -> FooterSummary:
    """Summarize the footers of files: here, or by `elsewhere`, if given, where they are many."""
    if elsewhere is not None and len(files) > FOOTERS_ON_CLIENT:
        return elsewhere(source, files, query)
    return summarize_footers(source, files, query)


def footer_batches(files: Sequence[SourceFile]) -> list[Sequence[SourceFile]]:
    """The files in batches whose footers are read together."""
    return [files[start : start + FOOTERS_A_TASK] for start in range(0, len(files), FOOTERS_A_TASK)]


def summarize_in_processes(source: Store, files: Sequence[SourceFile], query: FooterQuery) -> FooterSummary:
    """`summarize_footers` of many files, in one process per core.

    The processes are spawned: they import the main module once more, so it must be one that allows that, as the
    command is.
    """
    spawning = multiprocessing.get_context("spawn")  # what filesystems' clients hold does not survive a fork
    with ProcessPoolExecutor(machine.cores(), mp_context=spawning) as pool:
        with shielded():
            summaries = pool.map(partial(summarize_footers, source, query=query), footer_batches(files))
        return FooterSummary.concat(list(summaries))
