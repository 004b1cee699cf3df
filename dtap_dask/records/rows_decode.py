"""Decoding of the rows layout: fast for records of RowsEncoder, otherwise with a parser for any Example."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns
from dtap_dask.records.columns import ColumnArray
from dtap_dask.records.rows import RowsEncoder, Slot, kind_of
from dtap_dask.records.wire import BYTES_LIST, Bytes, Values, parse_example, unpack_varints

_KINDS = {1: "bytes_list", 2: "float_list", 3: "int64_list"}


def decode_rows(infos: Sequence[FeatureInfo], records: Sequence[bytes]) -> Rows:
    """The rows of all records, one each. ValueError where a record does not have this schema."""
    fast = _decode_template(infos, records)
    if fast is not None:
        return fast
    examples = [parse_example(record) for record in records]
    for example in examples:
        missing = [info.name for info in infos if info.name not in example]
        if missing:
            raise ValueError(f"it has no feature {missing[0]!r}")
    return {info.name: _column(info, [example[info.name] for example in examples]) for info in infos}


def _decode_template(infos: Sequence[FeatureInfo], records: Sequence[bytes]) -> Rows | None:
    """The rows of records that are exactly what RowsEncoder writes for fixed-width columns, else None."""
    if not records or not all(map(columns.is_fixed, infos)) or len({len(record) for record in records}) > 1:
        return None
    return decode_equal(infos, np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1))


def decode_equal(infos: Sequence[FeatureInfo], records: Bytes, names: Container[str] | None = None) -> Rows | None:
    """The rows of records [n, length] that are exactly what RowsEncoder writes for fixed-width columns, else None.

    With `names` only the values of these columns are decoded. ValueError where a number does not fit in its column's
    stored dtype.
    """
    encoder = RowsEncoder(infos)
    if records.shape[1] != len(encoder.template):
        return None
    raw, template = records, np.frombuffer(encoder.template, np.uint8)
    ends = [(slot.at, slot.at + slot.size * slot.count) for slot in sorted(encoder.slots, key=lambda slot: slot.at)]
    between = zip([0, *(stop for _, stop in ends)], [*(start for start, _ in ends), len(template)], strict=True)
    if not all((raw[:, start:stop] == template[start:stop]).all() for start, stop in between):
        return None
    rows: Rows = {}
    for slot in encoder.slots:
        if names is not None and slot.info.name not in names:
            continue
        values = _slot_values(slot, raw[:, slot.at : slot.at + slot.size * slot.count])
        if values is None:
            return None
        rows[slot.info.name] = values.reshape(len(raw), *slot.info.shape)
    return rows


def _slot_values(slot: Slot, raw: Bytes) -> npt.NDArray[np.generic] | None:
    if slot.is_float:
        return np.ascontiguousarray(raw).view("<f4").astype(np.float32, copy=False)
    numbers = unpack_varints(np.ascontiguousarray(raw).reshape(-1))
    if len(numbers) != len(raw) * slot.count:
        return None
    return _narrow(slot.info, numbers)


def _narrow(info: FeatureInfo, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
    narrow = numbers.astype(info.stored)
    if not (narrow.astype(np.int64) == numbers).all():
        raise ValueError(f"column {info.name!r} holds a number that does not fit in {info.stored}")
    return narrow


def _column(info: FeatureInfo, found: Sequence[Values]) -> ColumnArray:
    for values in found:
        if len(values) and _kind(values) != kind_of(info):
            raise ValueError(f"column {info.name!r} is a {_KINDS[_kind(values)]} instead of a {_KINDS[kind_of(info)]}")
    lengths = np.array([len(values) for values in found], np.int64)
    size = 1 if columns.is_text(info) else columns.width(info) if columns.is_fixed(info) else (info.shape[0] or None)
    if size is not None and not (lengths == size).all():
        raise ValueError(f"column {info.name!r} has {lengths[lengths != size][0]} values in a row instead of {size}")
    if kind_of(info) == BYTES_LIST:
        flat: ColumnArray = pa.array([text for values in found for text in values], pa.large_binary())
    else:
        flat = _numbers(info, [values for values in found if isinstance(values, np.ndarray)])
    if isinstance(flat, np.ndarray) and columns.is_fixed(info):
        return flat.reshape(len(found), *info.shape)
    return (
        flat if columns.is_text(info) else pa.LargeListArray.from_arrays(pa.array(offsets_of(lengths)), pa.array(flat))
    )


def _numbers(info: FeatureInfo, parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    flat = np.concatenate(parts) if parts else np.empty(0, info.stored)
    return flat.astype(np.float32, copy=False) if info.stored == "float32" else _narrow(info, flat.astype(np.int64))


def _kind(values: Values) -> int:
    if not isinstance(values, np.ndarray):
        return BYTES_LIST
    return 2 if values.dtype.kind == "f" else 3
