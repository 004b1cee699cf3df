"""Runs a transform.json on rows, written from docs/transform.md alone: nothing of dtap_dask is imported or looked at.

A row at a time, in plain Python: None is null, text is bytes, vectors and one-hot vectors are lists.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import farmhash
import numpy as np
import pyarrow.parquet as pq

from interpreted_lists import multi_hot, pad, pad_mask, text_hash, unless_null, words_of

Json: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Mapping[str, Any]


def run(document: Json, folder: Path, rows: list[Row]) -> dict[str, list[Any]]:
    """The outputs of some rows, before they are rounded to what is stored."""
    if document["format"] != 2:
        raise ValueError("another format")
    values: list[list[Any]] = []
    for entry in document["values"]:
        if "column" in entry:
            null = null_of(document["schema"].get(entry["column"], ""))
            values.append([null if row[entry["column"]] is None else plain(row[entry["column"]]) for row in rows])
        elif "folds" in entry:
            values.append([-1] * len(rows))
        else:
            fitted = dict(entry.get("fitted", {}))
            if "vocabulary" in entry:
                fitted |= {name: list(map(plain, column.to_pylist())) for name, column in columns(folder, entry)}
            make = OPERATIONS[entry["operation"]]
            if entry["operation"] in OF_PLACES and any(isinstance(one, list) for one in fitted.values()):
                operation = of_places(make, entry["options"], fitted)
            else:
                operation = make(entry["options"], fitted)
                if entry["operation"] in OF_ELEMENTS:
                    operation = of_elements(operation, entry["operation"])
            inputs = zip(*(values[place] for place in entry["inputs"]), strict=True)
            values.append([operation(*given) for given in inputs])
    return {output["name"]: written(output, values) for output in document["outputs"]}


def columns(folder: Path, entry: Json) -> Any:
    table = pq.read_table(folder / entry["vocabulary"])
    return zip(table.column_names, table.columns, strict=True)


def null_of(kind: str) -> Any:
    """What a null row of a column is: of vectors of floats a vector of nulls."""
    vector = re.fullmatch(r"fixed_size_list<.*: (float|double|halffloat|decimal.*)>\[(\d+)\]", kind)
    return [None] * int(vector[2]) if vector else None


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(plain, value))
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=value.tzinfo)) // timedelta(microseconds=1)
    return None if isinstance(value, float) and math.isnan(value) else value


def written(output: Json, values: list[list[Any]]) -> list[Any]:
    made = []
    for given in zip(*(values[place] for place in output["values"]), strict=True):
        if not output["allow_null"] and any(is_null(one) for one in given):
            raise ValueError("a null")
        numbers = [with_nan(one, output["shape"]) for one in given]
        if not output["vector"]:
            made.append(numbers[0])
        else:
            made.append([item for one in numbers for item in (one if isinstance(one, list) else [one])])
    return made


def is_null(value: Any) -> bool:
    return value is None or (isinstance(value, list) and None in value)


def with_nan(value: Any, shape: list[int]) -> Any:
    if value is None:
        return math.nan if not shape else [math.nan] * shape[0]
    return [math.nan if one is None else one for one in value] if isinstance(value, list) else value


def of_elements(operation: Callable[..., Any], name: str) -> Callable[..., Any]:
    def apply(*given: Any) -> Any:
        [x] = given
        if not isinstance(x, list):
            return operation(x)
        return [None if name in IDS and one is None else operation(one) for one in x]

    return apply


def of_places(make: Callable[..., Any], options: Json, fitted: Json) -> Callable[..., Any]:
    size = len(next(iter(fitted.values())))
    places = [make(options, {name: values[at] for name, values in fitted.items()}) for at in range(size)]

    def apply(x: Any) -> Any:
        return None if x is None else [place(one) for place, one in zip(places, x, strict=True)]

    return apply


def number(value: Any) -> float:
    return float(value)


def impute(options: Json, fitted: Json) -> Any:
    value = options["value"] if options["strategy"] == "constant" else fitted["statistics_"]

    def fill(x: Any) -> Any:
        if x is not None:
            return number(x) if options["strategy"] in ("mean", "median") else x
        return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value

    return fill


def missing(x: Any) -> Any:
    return list(map(missing, x)) if isinstance(x, list) else int(x is None)


def clip(options: Json, fitted: Json) -> Any:
    low, high = options["min"], options["max"]

    def apply(x: Any) -> Any:
        x = x if low is None else max(x, low)
        return x if high is None else min(x, high)

    return unless_null(apply)


def standard_scale(options: Json, fitted: Json) -> Any:
    return unless_null(lambda x: (number(x) - fitted.get("mean_", 0.0)) / fitted.get("scale_", 1.0))


def robust_scale(options: Json, fitted: Json) -> Any:
    return unless_null(lambda x: (number(x) - fitted.get("center_", 0.0)) / fitted.get("scale_", 1.0))


def bucketize(options: Json, fitted: Json) -> Any:
    bounds = fitted["boundaries_"] if options["boundaries"] is None else options["boundaries"]
    return unless_null(lambda x: sum(bound <= x for bound in bounds))


def ordinal_encode(options: Json, fitted: Json) -> Any:
    places, buckets = {value: place for place, value in enumerate(fitted["vocabulary"])}, options["oov_buckets"]

    def apply(x: Any) -> Any:
        if x is None:
            return 0 if options["null"] == "id" else None
        if x in places:
            return 1 + buckets + places[x]
        return 1 + (farmhash.Fingerprint64(x) if isinstance(x, bytes) else int(x)) % buckets

    return apply


def label_encode(options: Json, fitted: Json) -> Any:
    places = {value: place for place, value in enumerate(fitted["vocabulary"])}
    return lambda x: places[x]


def quantile_transform(options: Json, fitted: Json) -> Any:
    quantiles, last = fitted["quantiles_"], max(len(fitted["quantiles_"]) - 1, 1)
    is_normal = options["output_distribution"] == "normal"
    margin, normal = 1e-7 if is_normal else 0.0, NormalDist()

    def share(x: float) -> float:
        if x - margin < quantiles[0] or x == quantiles[0]:
            return 0.0
        if x + margin > quantiles[-1] or x == quantiles[-1]:
            return min(len(quantiles) - 1, 1) if not is_normal else 1.0
        equal = [place for place, one in enumerate(quantiles) if one == x]
        if equal:
            return (equal[0] + equal[-1]) / 2 / last
        after = next(place for place, one in enumerate(quantiles) if one > x)
        low, high = quantiles[after - 1], quantiles[after]
        return (after - 1 + (x - low) / (high - low)) / last

    def apply(x: Any) -> float:
        found = share(number(x))
        return normal.inv_cdf(min(max(found, 1e-7), 1 - 1e-7)) if is_normal else found

    return unless_null(apply)


def power_transform(options: Json, fitted: Json) -> Any:
    power = fitted["lambdas_"]

    def apply(x: Any) -> float:
        x = number(x)
        p = power if x >= 0 else 2 - power
        grown = math.log1p(abs(x)) if p == 0 else math.expm1(p * math.log1p(abs(x))) / p
        made = math.copysign(grown, x)
        return (made - fitted["mean_"]) / fitted["scale_"] if options["standardize"] else made

    return unless_null(apply)


def estimator(options: Json, fitted: Json) -> Any:
    raise NotImplementedError(f"what {options['path']} has learnt is opaque: only that class says what it means")


def one_hot_encode(options: Json, fitted: Json) -> Any:
    def apply(x: Any) -> list[int]:
        if x is None and options["null"] == "error":
            raise ValueError("a null")
        if x is not None and x not in fitted["categories_"] and options["unseen"] == "error":
            raise ValueError("unseen")
        return [int(x is not None and x == category) for category in fitted["categories_"]]

    return apply


def hash_encode(options: Json, fitted: Json) -> Any:
    def apply(x: Any) -> int:
        if x is None:
            return 0
        return int(1 + farmhash.Fingerprint64(x if isinstance(x, bytes) else str(int(x))) % options["buckets"])

    return apply


def target_encode(options: Json, fitted: Json) -> Any:
    known = dict(zip(fitted["categories_"], fitted["encodings_"], strict=True))

    def apply(x: Any, label: Any, fold: int) -> Any:
        assert fold == -1
        found = known.get(x, fitted["target_mean_"])
        return found if options["target_type"] == "multiclass" else found[0]

    return apply


def count_encode(options: Json, fitted: Json) -> Any:
    counts = dict(zip(fitted["categories_"], fitted["counts_"], strict=True)) | {None: fitted["null_count_"]}
    return lambda x: counts.get(x, 0) / (fitted["n_samples_seen_"] if options["normalize"] else 1)


def cross(options: Json, fitted: Json) -> Any:
    def apply(*inputs: Any) -> bytes | None:
        if None in inputs:
            return None
        return options["separator"].encode().join(x if isinstance(x, bytes) else str(int(x)).encode() for x in inputs)

    return apply


def keyed(options: Json, fitted: Json) -> Any:
    places = {key: place for place, key in enumerate(fitted["keys_"])}
    rows = [{name: column[place] for name, column in fitted.items()} for place in range(len(places))]
    by_place = [OPERATIONS[options["step"]](options["options"], row) for row in rows]
    return lambda x, key: by_place[places.get(key, -1)](x)


def pca(options: Json, fitted: Json) -> Any:
    def apply(*inputs: Any) -> list[float] | None:
        if None in inputs:
            return None
        centred = [number(x) - mean for x, mean in zip(inputs, fitted["mean_"], strict=True)]
        products = [sum(a * b for a, b in zip(row, centred, strict=True)) for row in fitted["components_"]]
        variances = fitted["explained_variance_"] if options["whiten"] else [1] * len(products)
        return [one / math.sqrt(variance) for one, variance in zip(products, variances, strict=True)]

    return apply


def truncated_svd(options: Json, fitted: Json) -> Any:
    def apply(*inputs: Any) -> list[float] | None:
        if None in inputs:
            return None
        row = [number(one) for x in inputs for one in (x if isinstance(x, list) else [x])]
        return [sum(a * b for a, b in zip(component, row, strict=True)) for component in fitted["components_"]]

    return apply


def polynomial(options: Json, fitted: Json) -> Any:
    degree, chosen = options["degree"], itertools.combinations_with_replacement
    least, most = degree if isinstance(degree, list) else (0, degree)
    if options["interaction_only"]:
        chosen = itertools.combinations

    def apply(*inputs: Any) -> list[float] | None:
        if None in inputs:
            return None
        places = [one for size in range(max(least, 1), most + 1) for one in chosen(range(len(inputs)), size)]
        products = [math.prod(number(inputs[place]) for place in one) for one in places]
        return [1.0] * options["include_bias"] + products

    return apply


def cast(options: Json, fitted: Json) -> Any:
    dtype = options["dtype"]

    def apply(x: Any) -> Any:
        if dtype == "string":
            return x if isinstance(x, bytes) else (format(x, "f") if isinstance(x, Decimal) else str(x)).encode()
        if dtype == "bool":
            return {b"true": True, b"false": False}[x] if isinstance(x, bytes) else x != 0
        if dtype.startswith("float"):
            return float(np.dtype(dtype).type(number(x.decode() if isinstance(x, bytes) else x)))
        return int(x.decode() if isinstance(x, bytes) else x)  # int() cuts towards zero

    return unless_null(apply)


def datetime_parts(options: Json, fitted: Json) -> Any:
    [part], zone, wave = options["extract"], options["zone"], options["cyclic"]
    unit = timedelta(microseconds={"s": 1_000_000, "ms": 1000, "us": 1, None: 1}[options["unit"]])

    def apply(x: int) -> float:
        clock = (datetime(1970, 1, 1, tzinfo=UTC) + x * unit).astimezone(ZoneInfo(zone) if zone else UTC)
        day_of_year, (_, week, iso_day) = clock.timetuple().tm_yday, clock.isocalendar()
        number, first, period = {
            "year": (clock.year, 0, 0),
            "month": (clock.month, 1, 12),
            "day": (clock.day, 1, 31),
            "hour": (clock.hour, 0, 24),
            "minute": (clock.minute, 0, 60),
            "weekday": (iso_day - 1, 0, 7),
            "day_of_year": (day_of_year, 1, 366),
            "week": (week, 1, 53),
            "is_weekend": (int(iso_day > 5), 0, 0),
        }[part]
        if not wave:
            return number
        return {"sin": math.sin, "cos": math.cos}[wave](2 * math.pi * (number - first) / period)

    return unless_null(apply)


OF_PLACES = {"impute", "standard_scale", "minmax_scale", "maxabs_scale", "robust_scale"}
IDS = {"ordinal_encode", "hash_encode"}
OF_ELEMENTS = IDS | OF_PLACES | {"clip", "log1p", "quantile_transform", "power_transform", "bucketize", "cast"}

OPERATIONS: dict[str, Callable[[Json, Json], Any]] = {
    "impute": impute,
    "missing_indicator": lambda options, fitted: missing,
    "clip": clip,
    "log1p": lambda options, fitted: unless_null(lambda x: math.log1p(x) if x > -1 else None),
    "standard_scale": standard_scale,
    "robust_scale": robust_scale,
    "quantile_transform": quantile_transform,
    "estimator": estimator,
    "power_transform": power_transform,
    "minmax_scale": lambda options, fitted: unless_null(lambda x: number(x) * fitted["scale_"] + fitted["min_"]),
    "maxabs_scale": lambda options, fitted: unless_null(lambda x: number(x) / fitted["scale_"]),
    "bucketize": bucketize,
    "ordinal_encode": ordinal_encode,
    "label_encode": label_encode,
    "one_hot_encode": one_hot_encode,
    "hash_encode": hash_encode,
    "datetime_parts": datetime_parts,
    "tokenize": lambda options, fitted: unless_null(lambda x: words_of(options, x)),
    "text_hash": text_hash,
    "multi_hot": multi_hot,
    "null_as_empty": lambda options, fitted: lambda x: [] if x is None else x,
    "list_length": lambda options, fitted: unless_null(len),
    "first": lambda options, fitted: unless_null(lambda x: x[: options["count"]]),
    "last": lambda options, fitted: unless_null(lambda x: x[-options["count"] :]),
    "pad": pad,
    "pad_mask": pad_mask,
    "target_encode": target_encode,
    "pca": pca,
    "truncated_svd": truncated_svd,
    "polynomial": polynomial,
    "count_encode": count_encode,
    "cross": cross,
    "keyed": keyed,
    "cast": cast,
    "passthrough": lambda options, fitted: lambda x: x,
}
