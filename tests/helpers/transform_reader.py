"""A program that computes a dataset's columns by transform.json, written from docs/transform.md alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow.parquet as pq
from farmhash import Fingerprint64

Json: TypeAlias = dict[str, Any]
Column: TypeAlias = list[Any]  # a value for each row; None is null


def columns(folder: Path, source: dict[str, Column]) -> dict[str, np.ndarray[Any, Any]]:
    """Every column of the dataset but lists, of rows of its source without NaN."""
    transform = json.loads((folder / "transform.json").read_text())
    assert transform["format"] == 2
    values: list[Column] = []
    for value in transform["values"]:
        if "column" in value:
            values.append(source[value["column"]])
            continue
        if "vocabulary" in value:
            table = pq.read_table(folder / value["vocabulary"]).to_pydict()
            value["fitted"] = {**value.get("fitted", {}), **table}
        rows = zip(*(values[place] for place in value["inputs"]), strict=True)
        apply = OPERATIONS[value["operation"]](value["options"], value.get("fitted", {}))
        values.append([apply(*row) for row in rows])
    return {one["name"]: output(one, values) for one in transform["outputs"]}


def output(one: Json, values: list[Column]) -> np.ndarray[Any, Any]:
    parts = [values[place] for place in one["values"]]
    if one["dtype"] == "bytes":
        return np.array([(text or "").encode() for text in parts[0]], object)
    missing = [[math.nan if value is None else value for value in part] for part in parts]
    if one["vector"]:
        return np.concatenate([np.array(part, float).reshape(len(part), -1) for part in missing], 1).astype(
            one["dtype"]
        )
    return np.array(missing[0]).astype(one["dtype"])


Apply: TypeAlias = Callable[..., Any]


def unless_null(apply: Apply) -> Apply:
    """Null stays null, and so does what gives NaN."""

    def applied(*given: Any) -> Any:
        if any(one is None for one in given):
            return None
        found = apply(*given)
        return None if isinstance(found, float) and math.isnan(found) else found

    return applied


def impute(options: Json, fitted: Json) -> Apply:
    filling = options["value"] if options["strategy"] == "constant" else fitted["statistics_"]
    return lambda x: filling if x is None else x


def clip(options: Json, fitted: Json) -> Apply:
    low, high = options["min"], options["max"]
    return unless_null(lambda x: min(max(x, x if low is None else low), math.inf if high is None else high))


def standard_scale(options: Json, fitted: Json) -> Apply:
    return unless_null(lambda x: (x - fitted.get("mean_", 0.0)) / fitted.get("scale_", 1.0))


def ordinal_encode(options: Json, fitted: Json) -> Apply:
    buckets = options["oov_buckets"]
    ids = {word: buckets + 1 + place for place, word in enumerate(fitted["vocabulary"])}

    def apply(x: Any) -> int:
        if x is None:
            return 0
        number = Fingerprint64(x.encode()) if isinstance(x, str) else int(x)
        return ids[x] if x in ids else 1 + number % buckets

    return apply


def one_hot_encode(options: Json, fitted: Json) -> Apply:
    return lambda x: [float(x == one) for one in fitted["categories_"]]


def hash_encode(options: Json, fitted: Json) -> Apply:
    def apply(x: Any) -> int:
        text = x if isinstance(x, str) or x is None else str(int(x))
        return 0 if text is None else 1 + Fingerprint64(text.encode()) % options["buckets"]

    return apply


def pca(options: Json, fitted: Json) -> Apply:
    return lambda *x: (np.array(fitted["components_"]) @ (np.array(x) - fitted["mean_"])).tolist()


def cast(options: Json, fitted: Json) -> Apply:
    if options["dtype"] == "string":
        return unless_null(str)
    if options["dtype"].startswith("float"):
        return unless_null(float)
    return unless_null(lambda x: int(x.timestamp() * 1e6) if hasattr(x, "timestamp") else int(x))


OPERATIONS: dict[str, Callable[[Json, Json], Apply]] = {
    "impute": impute,
    "missing_indicator": lambda options, fitted: lambda x: int(x is None),
    "clip": clip,
    "log1p": lambda options, fitted: unless_null(lambda x: math.log1p(x) if x > -1 else math.nan),
    "standard_scale": standard_scale,
    "minmax_scale": lambda options, fitted: unless_null(lambda x: x * fitted["scale_"] + fitted["min_"]),
    "maxabs_scale": lambda options, fitted: unless_null(lambda x: x / fitted["scale_"]),
    "bucketize": lambda options, fitted: unless_null(lambda x: sum(one <= x for one in fitted["boundaries_"])),
    "ordinal_encode": ordinal_encode,
    "label_encode": lambda options, fitted: fitted["vocabulary"].index,
    "one_hot_encode": one_hot_encode,
    "hash_encode": hash_encode,
    "pca": pca,
    "cast": cast,
    "passthrough": lambda options, fitted: lambda x: x,
}
