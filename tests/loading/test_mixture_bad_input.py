"""What is refused of mixtures, with every problem at once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import write_dataset
from dtap_dask.errors import DataError, JobError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.records.example import Layout
from mixtures import mixture
from numbered_rows import PLAIN


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({}, "components: {} is not a dict of components by name"),
        ([Component("a")], "is not a dict of components by name"),
        ({"a": "path", 3: Component("a")}, "components.a: 'path' is not a Component.*\ncomponents: the name 3 is not"),
        (
            {"a": Component("a", weight=0), "b": Component("b", weight=math.nan, repeat=1), "c": Component("c")},  # type: ignore[arg-type]
            "components.a.weight: 0 is not a positive number.*\n"
            "components.b.weight: nan is not a positive.*\ncomponents.b.repeat: 1 is neither True nor False",
        ),
        ({"a": Component("a", weight=-1)}, "components.a.weight: -1 is not"),
        ({"a": Component("a", weight=math.inf)}, "components.a.weight: inf is not"),
        ({"a": Component("a", weight=b"1")}, "components.a.weight: b'1' is not"),  # type: ignore[arg-type]
        (
            {"a": Component("a", weight=1e-10), "b": Component("b")},
            "components.a.weight: 1e-10 is less than a billionth",
        ),
    ],
)
def test_what_is_no_mixture_is_refused(components: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        Mixture(components)


def test_unlike_columns_are_all_named(paths: dict[str, str], tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "fare": {"dtype": "float64", "stored": "float64"},
        "miles": {"role": "kept"},
        "company": {"stored": "uint8"},
        "sizes": {"shape": (2,)},
        "late": {"role": "feature"},
    }
    infos = tuple(replace(info, **changes.get(info.name, {})) for info in PLAIN if info.name != "row")

    def columns(first: int, rows: int) -> dict[str, Any]:
        return {info.name: np.zeros((rows, *info.shape), info.stored) for info in infos}  # type: ignore[arg-type]

    other = write_dataset(tmp_path, infos, Layout("blocks", 8), {"train": [5]}, columns)
    unlike = Mixture({"many": Component(paths["many"]), "other": Component(other)})
    with pytest.raises(JobError) as caught:
        batches(unlike, kept=True, ids="stored")
    text = "components.other: column {!r}: {}, but {} in component 'many'; "
    expected = [
        ("fare", "feature float64", "feature float32"),
        ("miles", "kept float32", "feature float32"),
        ("company", "feature uint8", "feature uint16"),
        ("sizes", "feature float32[2]", "feature float32[3]"),
        ("late", "feature bool", "label bool"),
        ("row", "no such column", "kept int64"),
    ]
    lines = str(caught.value).splitlines()
    assert sorted(line.partition("; ")[0] + "; " for line in lines) == sorted(text.format(*each) for each in expected)
    assert next(iter(batches(unlike, features=["company"], label=False)))["company"].dtype == np.int64


def test_arguments_are_refused_as_those_of_a_single_dataset(paths: dict[str, str]) -> None:
    with pytest.raises(JobError) as caught:
        batches(mixture(paths), batch_size=0, seed="x")  # type: ignore[arg-type]
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["batch_size", "seed"]
    unknown = Mixture({"many": Component(paths["many"], split="eval"), "few": Component(paths["few"])})
    with pytest.raises(JobError, match=r"components\.many\.split: .* has no split 'eval'"):
        batches(unknown)
    with pytest.raises(JobError, match="split: 'eval' has no meaning for a mixture: give it to each Component"):
        batches(mixture(paths), split="eval")
    with pytest.raises(JobError, match="components.many.path: .*Mixture.* is not the path of a dataset"):
        batches(Mixture({"many": Component(mixture(paths)), "few": Component(paths["few"])}))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="have 91 rows for a reader, so that dropping incomplete batches of 200"):
        batches(mixture(paths), batch_size=200, remainder="drop")
    with pytest.raises(DataError, match="'train' of .*few has 0 rows for a reader"):
        batches(mixture(paths), readers=(0, 14), remainder="drop")
