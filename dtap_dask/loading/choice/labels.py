"""Classes of rows: the values of a dataset's only label, and numbers that are given for some of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import Problem, did_you_mean
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.records import columns

MOST_CLASSES = 1000
_LEAST, _MOST = 1e-30, 1e30  # which float32 holds
ByClass = Mapping[Any, float] | Literal["balanced"] | None  # a number for each named class, by the label's value


def the_label(split: DatasetSplit, argument: str, problems: list[Problem]) -> FeatureInfo | None:
    """The label of a split that has one, of one value in each row; adds what is wrong."""
    labels = [info for info in split.infos if info.role == "label"]
    if len(labels) == 1 and labels[0].shape == ():
        return labels[0]
    if not labels:
        found = "the dataset has no label, so that its rows have no classes"
    elif len(labels) > 1:
        names = ", ".join(repr(info.name) for info in labels)
        found = f"the dataset has several labels ({names}), so that a row has no single class"
    else:
        found = f"the label {labels[0].name!r} has several values in each row, so that a row has no single class"
    problems.append(Problem(argument, f"{found}; choose rows with `where`"))
    return None


def by_class(label: FeatureInfo, argument: str, given: Any, problems: list[Problem]) -> ByClass:
    """The argument `resample` or `class_weights`, by values of the label; adds what is wrong."""
    if given is None or (isinstance(given, str) and given == "balanced"):
        return "balanced" if given else None
    if not isinstance(given, Mapping) or not given:
        wanted = "'balanced' or a number for each class, such as {1: 2.0}"
        problems.append(Problem(argument, f"{given!r} is not {wanted}"))
        return None
    found: dict[Any, float] = {}
    for key, number in given.items():
        try:
            value = _value_of(label, key)
            found[value] = _positive(number)
        except ValueError as error:
            problems.append(Problem(f"{argument}[{key!r}]", str(error)))
    if len(found) < len(given) and not problems:
        problems.append(Problem(argument, "two keys name the same class"))
    return found


def as_classes(label: FeatureInfo, values: list[Any]) -> pa.Array:
    """Values of the label as an array of its type."""
    kind = pa.large_binary() if columns.is_text(label) else pa.from_numpy_dtype(np.dtype(label.dtype))
    return pa.array(values, kind)


def classes_in(column: pa.Array, classes: pa.Array) -> npt.NDArray[np.int64]:
    """The place of each value of a label among `classes`, int64 [rows]; -1 for others."""
    found = pc.index_in(without_negative_zero(column), value_set=classes)
    places: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return places


def without_negative_zero(column: pa.Array) -> pa.Array:
    """The column with 0.0 for -0.0, which are one value."""
    return pc.add(column, pa.scalar(0, column.type)) if pa.types.is_floating(column.type) else column


def shown(label: FeatureInfo, value: Any) -> str:
    """A class for a message: its name if it has one, or else the label's value."""
    return repr(label.classes[int(value)]) if label.classes and 0 <= value < len(label.classes) else repr(value)


def unknown_classes(label: FeatureInfo, argument: str, given: ByClass, values: Sequence[Any]) -> Iterator[Problem]:
    """A problem for each class that is named but has no rows; `values` are those that have."""
    if isinstance(given, Mapping):
        some = ", ".join(shown(label, value) for value in values[:20])
        for value in given.keys() - {*values}:
            yield Problem(f"{argument}[{shown(label, value)}]", f"no row has this class; there are {some}")


def _value_of(label: FeatureInfo, key: Any) -> Any:
    """The label's value for a key: the value itself, or the name of a class. ValueError for none."""
    key = key.item() if isinstance(key, np.generic) else key
    if columns.is_text(label):
        if isinstance(key, str | bytes):
            return key.encode() if isinstance(key, str) else key
        raise ValueError(f"the label {label.name!r} is text")
    if isinstance(key, str):
        names = list(label.classes or ())
        if key not in names:
            raise ValueError(f"the label {label.name!r} has no class of that name.{did_you_mean(key, names)}")
        return names.index(key)
    kind = np.dtype(label.dtype)
    if not isinstance(key, int | float) or not math.isfinite(key):
        raise ValueError(f"it is no value of the label {label.name!r}, which is {label.dtype}")
    if kind.kind in "iub" and (key != int(key) or not _fits(kind, int(key))):
        raise ValueError(f"it is no value of the label {label.name!r}, which is {label.dtype}")
    if label.ids is not None and not 0 <= key < label.ids:
        raise ValueError(f"the label {label.name!r} has classes 0 to {label.ids - 1}")
    value = kind.type(key).item()
    return value + 0.0 if kind.kind == "f" else value  # 0.0 for -0.0


def _fits(kind: np.dtype[Any], key: int) -> bool:
    return key in (0, 1) if kind.kind == "b" else np.iinfo(kind).min <= key <= np.iinfo(kind).max


def _positive(number: Any) -> float:
    plain = number.item() if isinstance(number, np.generic) else number
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not plain > 0:
        raise ValueError(f"{number!r} is not a positive number; leave a class out with `where`")
    if not _LEAST <= plain <= _MOST:
        raise ValueError(f"{number!r} is not between {_LEAST:g} and {_MOST:g}")
    return float(plain)
