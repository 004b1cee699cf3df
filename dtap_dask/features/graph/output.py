"""What each output is: its dtype, how narrow it is stored, its width, its ids and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import item_of, shape_of
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.steps.keyed import Keyed
from dtap_dask.features.steps.operation import Fitted, Source, narrow
from dtap_dask.features.steps.valuetype import ValueType

VocabularyFiles = Mapping[Value, str]  # the Parquet file of each value that has a vocabulary, relative to the dataset


@dataclass(frozen=True)
class ValueOutput:
    """One value's part of an output; `width` is the numbers that it has in a vector."""

    dtype: str
    stored: str
    width: int
    ids: int | None = None
    vocabulary: str | None = None
    classes: tuple[str, ...] | None = None


def planned_dtype(output: Output) -> str:
    """The dtype of an output, which its types decide before anything is fitted."""
    return _common([ValueOutput(*_planned(value.type, output.role), 1) for value in output.values])[0]


def _planned(kind: ValueType, role: str) -> tuple[str, str]:
    """(dtype, stored); ids may yet be stored narrower."""
    if kind.element is not None:
        return _planned(kind.element, role)
    if kind.base == "onehot":
        dtype = kind.cast or "float32"
        return dtype, dtype if kind.cast and dtype.startswith("float") else kind.holds
    if kind.ids:
        return kind.cast or "int64", kind.cast or "int64"
    return ("bytes", "bytes") if kind.base == "text" else _number_dtypes(kind, role)


def value_output(value: Value, role: str, fitted: Mapping[Value, Fitted], files: VocabularyFiles) -> ValueOutput:
    """One value's part of an output, now that everything is fitted."""
    dtype, stored = _planned(value.type, role)
    width = width_of(value, fitted)
    if not value.type.ids and value.type.base != "onehot":
        return ValueOutput(dtype, stored, width)
    encoder = encoder_of(value)
    learnt, count = fitted.get(encoder, {}), None
    if value.type.ids:
        count = encoder.applied.ids(learnt) or 1
        stored = narrow(count - 1) if not dtype.startswith("float") else dtype
        _refuse_merged(count, dtype, f"{encoder.applied.title} of column {', '.join(encoder.columns)!r}")
    file = None if isinstance(encoder.operation, Keyed) else files.get(encoder)  # that of keys is no vocabulary
    return ValueOutput(dtype, stored, width, count, file, encoder.applied.classes(learnt))


def encoder_of(value: Value) -> Value:
    """The value whose ids or one-hot vectors it still is."""
    while not isinstance(value.operation, Source) and value.operation.keeps_ids:
        [value] = value.inputs
    return value


def width_of(value: Value, fitted: Mapping[Value, Fitted]) -> int:
    """How many numbers a row of a value has, now that what it is made from is fitted."""
    if isinstance(value.operation, Source):
        return value.type.width or 1
    return value.operation.width(fitted.get(value, {}), [width_of(one, fitted) for one in value.inputs])


def _refuse_merged(count: int, dtype: str, what: str) -> None:
    """DataError for more ids than a float dtype tells apart."""
    if dtype.startswith("float") and count - 1 > 2 ** (np.finfo(dtype).nmant + 1):
        raise DataError(
            f"The {what} makes ids up to {count - 1:,}, and {dtype} holds whole numbers one by one only up to "
            f"{2 ** (np.finfo(dtype).nmant + 1):,}: different ids would become one. Leave the ids as integers, or "
            "lower `top_k` or `buckets`."
        )


def _number_dtypes(kind: ValueType, role: str) -> tuple[str, str]:
    """(dtype, stored) of plain numbers."""
    if kind.cast is not None:
        return kind.cast, "uint8" if kind.cast == "bool" else kind.cast
    if role == "weight":
        return "float32", "float32"
    if kind.base == "float":
        return _float_dtypes(item_of(kind.source), role)
    if kind.base == "bool":
        return ("float32" if role == "label" else "int64"), "uint8"
    return "int64", _integer_store(kind.holds)


def _float_dtypes(own: pa.DataType, role: str) -> tuple[str, str]:
    """(dtype, stored) of floats and decimals; what is kept keeps its value, decimals as integers or as text."""
    if role == "kept" and pa.types.is_decimal(own):
        return ("int64", "int64") if own.scale == 0 else ("bytes", "bytes")
    double = role == "kept" and pa.types.is_float64(own)
    return ("float64", "float64") if double else ("float32", "float32")


def _integer_store(dtype: str) -> str:
    """As wide as the values need it, among the dtypes that tf.io.decode_raw reads."""
    return dtype if dtype in ("int8", "uint8", "int16", "uint16", "int32") else "int64"


def output_info(output: Output, parts: Sequence[ValueOutput]) -> FeatureInfo:
    """The whole output, of what each of its values is."""
    name, role, columns = output.name, output.role, output.columns
    if not output.vector:
        [one], kind = parts, output.values[0].type
        is_vector = kind.base == "onehot" or kind.width is not None
        fixed = (shape_of(kind.source) or (one.width,)) if is_vector else ()
        shape: tuple[int | None, ...] = (None,) if kind.base == "list" else fixed
        return FeatureInfo(name, role, one.dtype, one.stored, shape, columns, one.ids, one.vocabulary, one.classes)
    dtype, stored = _common(parts)
    for value, part in zip(output.values, parts, strict=True):
        _refuse_merged(part.ids or 1, dtype, f"vector {name!r}, column {', '.join(value.columns)!r},")
    width = sum(part.width for part in parts)
    return FeatureInfo(name, role, dtype, stored, (width,), columns, ids=_common_ids(parts))


def _common(parts: Sequence[ValueOutput]) -> tuple[str, str]:
    """One (dtype, stored) for a vector: that of all, float32 beside any float, else int64."""
    pairs = {(part.dtype, part.stored) for part in parts}
    if len(pairs) == 1:
        return pairs.pop()
    if any(part.dtype.startswith("float") for part in parts):
        if {part.stored for part in parts} == {"uint8"}:
            return "float32", "uint8"
        return ("float64", "float64") if any(part.dtype == "float64" for part in parts) else ("float32",) * 2
    stored = np.result_type(*(np.dtype(part.stored) for part in parts)).name
    return "int64", stored if stored not in ("uint32", "uint64") else "int64"


def _common_ids(parts: Sequence[ValueOutput]) -> int | None:
    ids = [part.ids for part in parts]
    return max(count for count in ids if count is not None) if ids and None not in ids else None
