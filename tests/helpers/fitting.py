"""Fitting rows that a test holds in memory, by the definition: pass after pass, each batch as a task of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dtap_dask.features import Accumulator, FittedState, finish, merge
from dtap_dask.features.engine.fit import FitMask
from dtap_dask.features.graph.graph import Graph


def fit_batches(graph: Graph, batches: Sequence[pa.RecordBatch], fit: Sequence[FitMask] | None = None) -> FittedState:
    """All passes over the batches; `fit` masks the rows of each that are fitted. Without passes the state is empty."""
    state = FittedState.unfitted(graph)
    for _ in range(graph.passes):
        partials = []
        for number, rows in enumerate(batches):
            accumulator = Accumulator(state)
            accumulator.add(rows, None if fit is None else fit[number])
            partials.append(accumulator.partial())
        state = finish(merge(partials), state)
    return state


def pieces(rows: pa.RecordBatch, at: Sequence[int]) -> list[pa.RecordBatch]:
    """The rows in batches that end at these numbers of rows; one batch without rows if there are none."""
    ends = sorted({0, rows.num_rows, *(cut for cut in at if cut < rows.num_rows)})
    return [rows.slice(start, stop - start) for start, stop in itertools.pairwise(ends)] or [rows]


def learnt(state: FittedState) -> Mapping[str, Any]:
    """The fitted numbers of the first output's value."""
    return state.fitted[state.graph.outputs[0].values[0]]
