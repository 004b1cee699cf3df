"""Columns through steps, batch by batch; what several features have in common is worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from dtap_dask.errors import DtapError
from dtap_dask.features.column import Column, from_arrow
from dtap_dask.features.feature import Chain
from dtap_dask.features.step import Bound, ErrorContext, Fitted, naming, unforeseen


class Program:
    """The values of `chains` for a record batch, given what their steps have learnt."""

    def __init__(self, chains: Iterable[Chain], fitted: Mapping[Chain, Fitted], names: Mapping[str, str]):
        """`names` gives each column's feature, for messages; `places` where each chain stands in what `run` returns."""
        self.places: dict[Chain, int] = {}
        self._nodes: list[tuple[ErrorContext, int, Bound | None, str]] = []
        self._names = names
        for chain in chains:
            self._add(chain, fitted)

    def _add(self, chain: Chain, fitted: Mapping[Chain, Fitted]) -> int:
        if chain in self.places:
            return self.places[chain]
        name = chain.steps[-1].name if chain.steps else "reading"
        place = ErrorContext(self._names.get(chain.column, chain.column), chain.column, name)
        if not chain.steps:
            node: tuple[ErrorContext, int, Bound | None, str] = (place, -1, None, chain.column)
        else:
            before = self._add(Chain(chain.column, chain.steps[:-1]), fitted)
            with naming(place):
                node = (place, before, chain.steps[-1].bind(fitted.get(chain, {}), place), chain.column)
        self._nodes.append(node)
        self.places[chain] = len(self._nodes) - 1
        return self.places[chain]

    def run(self, rows: pa.RecordBatch) -> list[Column]:
        """All columns, sources and steps between included. DataError names column and step."""
        values: list[Column] = []
        try:
            for _, before, bound, column in self._nodes:
                values.append(from_arrow(rows.column(column)) if bound is None else bound(values[before]))
        except (DtapError, MemoryError):
            raise
        except Exception as error:
            raise unforeseen(self._nodes[len(values)][0], error) from error
        return values
