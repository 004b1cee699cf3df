"""Footers of many files read by all cores of this machine, for those who plan without a cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from dtap_dask.job.cluster import machine
from dtap_dask.job.interrupts import unheard
from dtap_dask.job.planning.source import footer_parts
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary, summarize_footers
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.storage import Store


def summarize_in_processes(source: Store, files: Sequence[SourceFile], query: FooterQuery) -> FooterSummary:
    """`summarize_footers` of many files, in one process per core.

    The processes are spawned: they import the main module once more, so it must be one that allows that, as the
    command is.
    """
    spawning = multiprocessing.get_context("spawn")  # what filesystems' clients hold does not survive a fork
    with ProcessPoolExecutor(machine.cores(), mp_context=spawning) as pool:
        with unheard():
            summaries = pool.map(partial(summarize_footers, source, query=query), footer_parts(files))
        return FooterSummary.concat(list(summaries))
