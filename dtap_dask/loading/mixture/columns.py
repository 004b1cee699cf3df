"""The columns that all components of a mixture give, and each component's packed rows in their form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dtap_dask.errors import Problem
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.order.epoch_order import WINDOW_ROWS
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.shards.decode import Decoder
from dtap_dask.records import columns
from dtap_dask.records.example import Layout
from dtap_dask.records.manifest_build import feature_spec

_REMEDY = {
    "feature": "name those that all have in `features`",
    "label": "encode the datasets alike, or give `label=False`",
    "weight": "give all datasets a weight, or none",
    "kept": "keep it in all datasets, or in none, or leave out `kept`",
}


def differences(options: Mapping[str, BatchOptions]) -> Iterator[Problem]:
    """What differs between the columns of the first component and those of the others, by the components' names."""
    (first, expected), *others = options.items()
    mine = _described(expected)
    for name, each in others:
        theirs = _described(each)
        for column in dict.fromkeys([*mine, *theirs]):
            role, one = mine.get(column, (None, "no such column"))
            other_role, other = theirs.get(column, (None, "no such column"))
            if one != other:
                remedy = _REMEDY[role or other_role or "feature"]
                yield Problem(
                    f"components.{name}", f"column {column!r}: {other}, but {one} in component {first!r}; {remedy}"
                )


def _described(options: BatchOptions) -> dict[str, tuple[str | None, str]]:
    """The role of each column, and role, delivered dtype and shape in words."""
    return {
        info.name: (info.role, f"{info.role} {options.dtypes[info.name]}{_shape(info) if info.shape else ''}")
        for info in options.infos
    }


def _shape(info: FeatureInfo) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in info.shape)}]"


def common(first: DatasetSplit, options: Sequence[BatchOptions]) -> DatasetSplit:
    """A split with the columns of all components, in the first one's order, each in a stored dtype that holds all.

    `options` are the components' own. Its rows are packed as those of the layout `blocks`.
    """
    stored: dict[str, set[str]] = {}
    for each in options:
        for info in each.infos:
            stored.setdefault(info.name, set()).add(info.stored)
    names = {info.name for info in options[0].infos}
    infos = tuple(replace(info, stored=_widest(info, stored[info.name])) for info in first.infos if info.name in names)
    layout = Layout("blocks", WINDOW_ROWS)
    return replace(first, infos=infos, layout=layout, spec=feature_spec(infos, layout))


def _widest(info: FeatureInfo, stored: set[str]) -> str:
    if len(stored) == 1:
        return info.stored
    found = np.result_type(*map(np.dtype, sorted(stored)))
    return found.name if np.can_cast(found, np.dtype(info.dtype)) else info.dtype


class Rearrangement:
    """A component's packed rows as those of the mixture."""

    def __init__(self, of: Decoder, to: Decoder):
        self._old = of.spans.keys()
        self._matrices = {stored: _parts(of, span.infos) for stored, span in to.spans.items()}
        widths = {stored: span.stop - span.start for stored, span in of.spans.items()}
        whole = [*of.spans] == [*to.spans] and all(
            parts == [(stored, slice(0, widths.get(stored)))] for stored, parts in self._matrices.items()
        )
        before = {info.name: info.stored for info in of.variable}
        self._lists = {
            f"{info.name}/values": pa.large_list(pa.from_numpy_dtype(info.stored))
            for info in to.variable
            if before[info.name] != info.stored
        }
        self._same = whole and not self._lists

    def __call__(self, packed: Rows) -> Rows:
        """The rows, the same ones where both are packed alike."""
        if self._same:
            return packed
        rows = columns.row_count(packed)
        found: Rows = {
            stored: np.concatenate(
                [packed[one][:, part] for one, part in parts] or [np.empty((rows, 0))],
                axis=1,
                dtype=stored,
                casting="unsafe",  # it is the dtype in which they are delivered, or holds all values
            )
            for stored, parts in self._matrices.items()
        }
        others: dict[str, Any] = {name: column for name, column in packed.items() if name not in self._old}
        for name, kind in self._lists.items():
            others[name] = others[name].cast(kind)
        return {**found, **others}


def _parts(of: Decoder, infos: Sequence[FeatureInfo]) -> list[tuple[str, slice]]:
    """Where the columns are in the matrices of a decoder, in order; neighbours together."""
    places: dict[str, tuple[str, int, int]] = {}
    for stored, span in of.spans.items():
        ends = offsets_of([columns.width(info) for info in span.infos]).tolist()
        for info, start, stop in zip(span.infos, ends, ends[1:], strict=False):
            places[info.name] = (stored, start, stop)
    found = list[tuple[str, slice]]()
    for info in infos:
        stored, start, stop = places[info.name]
        if found and found[-1][0] == stored and found[-1][1].stop == start:
            found[-1] = (stored, slice(found[-1][1].start, stop))
        else:
            found.append((stored, slice(start, stop)))
    return found
