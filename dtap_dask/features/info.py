"""What each output column is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["feature", "label", "weight", "kept"]


@dataclass(frozen=True)
class FeatureInfo:
    """One output column, as records hold it and as a loader yields it.

    `shape` is the shape of one row: () for a scalar, (k,) for a vector, (None,) for a list of any length.
    `dtype` is what a loader yields: a NumPy name such as 'float32' or 'int64', or 'bytes' for text.
    `stored` is the narrower dtype inside block records ('uint8', 'uint16', 'int32', ...); 'bytes' for text.
    `ids` is the number of ids an embedding needs (largest id + 1), where the column holds ids.
    `vocabulary` is the Parquet file of the ids' words, relative to the dataset; `classes` a label's class names.
    """

    name: str
    role: Role
    dtype: str
    stored: str
    shape: tuple[int | None, ...] = ()
    columns: tuple[str, ...] = ()
    ids: int | None = None
    vocabulary: str | None = None
    classes: tuple[str, ...] | None = None
