"""What the output of a feature is: its dtype, how narrow it is stored, its width, its ids and class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.features.column import Lists, item_of, shape_of
from dtap_dask.features.decimals import spelled
from dtap_dask.features.elementwise import Cast
from dtap_dask.features.encode import LabelEncode
from dtap_dask.features.feature import Feature, Lane
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.state import FittedState
from dtap_dask.features.step import ValueType, narrow
from dtap_dask.lake.schema import is_text


@dataclass(frozen=True)
class LaneOutput:
    """One column's part of a feature's output; `width` is its places in a vector."""

    dtype: str
    stored: str
    width: int
    ids: int | None = None
    vocabulary: str | None = None
    classes: tuple[str, ...] | None = None


def lane_outputs(feature: Feature, state: FittedState) -> tuple[LaneOutput, ...]:
    """The output of each lane, now that the steps are fitted."""
    if feature.indicator is not None:
        return tuple(LaneOutput("int64", "uint8", 1) for _ in feature.lanes)
    return tuple(_lane_output(feature, lane, state) for lane in feature.lanes)


def planned_dtype(feature: Feature) -> str:
    """The dtype of a feature's output, which its types tell before anything is fitted."""
    if feature.indicator is not None:
        return "int64"
    if feature.reduce is not None:
        return next((step.dtype for step in reversed(feature.tail) if isinstance(step, Cast)), "float32")
    pairs = [_planned(lane.kinds[-1], feature.spec.role) for lane in feature.lanes]
    return _common([LaneOutput(dtype, stored, 1) for dtype, stored in pairs])[0]


def _planned(kind: ValueType, role: str) -> tuple[str, str]:
    if kind.base == "onehot":
        return kind.cast or "float32", kind.cast or "uint8"
    if kind.encoder is not None:
        return kind.cast or "int64", kind.cast or "int64"
    if kind.base == "list":
        return _list_dtypes(kind, role)
    return ("bytes", "bytes") if kind.base == "text" else _number_dtypes(kind, role)


def _lane_output(feature: Feature, lane: Lane, state: FittedState) -> LaneOutput:
    kind = lane.kinds[-1]
    if kind.base == "onehot":
        return _onehot(lane, kind, state)
    if kind.encoder is not None:
        return _ids(lane, kind, kind.encoder, state)
    if kind.base == "list":
        return LaneOutput(*_list_dtypes(kind, feature.spec.role), width=1)
    if kind.base == "text":
        return LaneOutput("bytes", "bytes", 1)
    dtype, stored = _number_dtypes(kind, feature.spec.role)
    return LaneOutput(dtype, stored, kind.width or 1)


def _onehot(lane: Lane, kind: ValueType, state: FittedState) -> LaneOutput:
    index = max(i for i, step in enumerate(lane.steps) if step.name == "one_hot_encode")
    chain = lane.chain(index + 1)
    categories = state.fitted[chain]["categories_"]
    dtype = kind.cast or "float32"
    stored = dtype if dtype.startswith("float") and kind.cast else "uint8"
    classes = tuple(map(_class_name, categories.to_pylist()))
    return LaneOutput(dtype, stored, len(categories), None, state.vocabulary_files.get(chain), classes)


def _ids(lane: Lane, kind: ValueType, encoder: int, state: FittedState) -> LaneOutput:
    chain = lane.chain(encoder + 1)
    step = lane.steps[encoder]
    fitted = state.fitted.get(chain, {})
    count = step.ids(fitted) or 1
    dtype = kind.cast or "int64"
    stored = narrow(count - 1) if not dtype.startswith("float") else dtype
    _refuse_merged(count, dtype, f"{step.name} of column {lane.column!r}")
    classes = None
    if isinstance(step, LabelEncode):
        classes = tuple(map(_class_name, fitted["vocabulary"].to_pylist()))
    return LaneOutput(dtype, stored, 1, count, state.vocabulary_files.get(chain), classes)


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


def _list_dtypes(kind: ValueType, role: str) -> tuple[str, str]:
    item = kind.source.value_type
    if is_text(item):
        return "bytes", "bytes"
    if kind.cast is not None:
        return kind.cast, kind.cast
    if pa.types.is_floating(item) or pa.types.is_decimal(item):
        return _float_dtypes(item, role)
    return "int64", "uint8" if pa.types.is_boolean(item) else _integer_store(str(item))


def feature_infos(state: FittedState) -> tuple[FeatureInfo, ...]:
    """All output columns of a fitted state, without what applying it takes to prepare."""
    return tuple(feature_info(feature, lane_outputs(feature, state), state) for feature in state.pipeline.features)


def feature_info(feature: Feature, outputs: Sequence[LaneOutput], state: FittedState) -> FeatureInfo:
    """The whole feature's output."""
    spec = feature.spec
    columns = spec.columns
    if feature.reduce is not None:
        dtype = next((step.dtype for step in reversed(feature.tail) if isinstance(step, Cast)), "float32")
        return FeatureInfo(spec.name, spec.role, dtype, dtype, (feature.reduce.n_components,), columns)
    if not spec.vector:
        one, kind = outputs[0], feature.lanes[0].kinds[-1]
        places = (one.width,) if kind.base == "onehot" else shape_of(kind.source) if kind.width is not None else ()
        shape: tuple[int | None, ...] = (None,) if kind.base == "list" else places
        return FeatureInfo(
            spec.name, spec.role, one.dtype, one.stored, shape, columns, one.ids, one.vocabulary, one.classes
        )
    width = sum(output.width for output in outputs)
    dtype, stored = _common(outputs)
    for lane, output in zip(feature.lanes, outputs, strict=True):
        _refuse_merged(output.ids or 1, dtype, f"vector {spec.name!r}, column {lane.column!r},")
    return FeatureInfo(spec.name, spec.role, dtype, stored, (width,), columns, ids=_common_ids(outputs))


def _common(outputs: Sequence[LaneOutput]) -> tuple[str, str]:
    """One (dtype, stored) for a vector: that of all, float32 beside any float, else int64."""
    pairs = {(output.dtype, output.stored) for output in outputs}
    if len(pairs) == 1:
        return pairs.pop()
    if any(output.dtype.startswith("float") for output in outputs):
        if {output.stored for output in outputs} == {"uint8"}:
            return "float32", "uint8"
        return ("float64", "float64") if any(output.dtype == "float64" for output in outputs) else ("float32",) * 2
    stored = np.result_type(*(np.dtype(output.stored) for output in outputs)).name
    return "int64", stored if stored not in ("uint32", "uint64") else "int64"


def _common_ids(outputs: Sequence[LaneOutput]) -> int | None:
    ids = [output.ids for output in outputs]
    return max(count for count in ids if count is not None) if ids and None not in ids else None


def _class_name(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def list_output(column: Lists, info: FeatureInfo) -> pa.Array:
    """Lists as large_list of the stored dtype; text as large_binary."""
    array = column.array
    lengths = pc.list_value_length(array).to_numpy()
    inner = array.flatten()
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    if info.stored == "bytes":
        inner = inner.dictionary_decode() if pa.types.is_dictionary(inner.type) else inner
        inner = spelled(inner) if pa.types.is_decimal(inner.type) else inner
        return pa.LargeListArray.from_arrays(pa.array(offsets), inner.cast(pa.large_binary()))
    target = pa.from_numpy_dtype(np.dtype(info.stored))
    if pa.types.is_floating(target):
        return pa.LargeListArray.from_arrays(pa.array(offsets), inner.cast(target, safe=False))
    try:
        inner = inner.cast(target)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Values of the lists in column {info.columns[0]!r} do not fit {info.stored}: {error}. Leave such rows "
            "out with `source.where`, or leave the column out."
        ) from error
    return pa.LargeListArray.from_arrays(pa.array(offsets), inner)
