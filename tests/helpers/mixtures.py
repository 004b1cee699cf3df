"""Mixtures of datasets in which a row's number says which component it is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import write_dataset
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, PLAIN, column

SHARDS = {"few": [9, 4], "many": [30, 0, 1, 47], "third": [12, 11]}
FIRST = {"few": 0, "many": 100, "third": 200}  # the number of the first row


def dataset(folder: Path, name: str, layout: Layout | None = None, infos: tuple[FeatureInfo, ...] = PLAIN) -> str:
    """The dataset of one component; its path."""

    def columns(first: int, rows: int) -> dict[str, Any]:
        begin = FIRST[name] + first
        return {info.name: column(info, range(begin, begin + rows)) for info in infos}

    return write_dataset(folder / name, infos, layout or Layout("blocks", 8), {"train": SHARDS[name]}, columns)


def all_kinds(folder: Path) -> Mixture:
    """Two components with columns of every kind, in both layouts, of which ids are stored in different dtypes."""
    other = tuple(
        replace(info, stored={"uint8": "uint16", "int32": "int16"}.get(info.stored, info.stored))
        for info in reversed(INFOS)
    )
    return Mixture(
        {
            "many": Component(dataset(folder, "many", Layout("blocks", 8), INFOS), weight=2),
            "few": Component(dataset(folder, "few", Layout("rows"), other), repeat=True),
        }
    )


def mixture(paths: dict[str, str], *, repeat: str = "", **weights: float) -> Mixture:
    """Components by weight; `repeat` names those that are repeated."""
    chosen = weights or {"many": 3, "few": 1}
    return Mixture({n: Component(paths[n], weight=w, repeat=n in repeat.split()) for n, w in chosen.items()})


def of(name: str, rows: Sequence[int]) -> list[int]:
    """Those of one component."""
    return [row for row in rows if FIRST[name] <= row < FIRST[name] + 100]


def numbers(name: str) -> list[int]:
    """All rows of a component."""
    return [*range(FIRST[name], FIRST[name] + sum(SHARDS[name]))]
