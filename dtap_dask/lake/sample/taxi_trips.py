"""Generates taxi trips with the skew, nulls and relations of real ones, so that a model has something to learn."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

F64 = npt.NDArray[np.float64]
TimeSpan = tuple[datetime, datetime]

SCHEMA = pa.schema(
    [
        ("trip_id", pa.int64()),
        ("trip_start", pa.timestamp("us")),
        ("trip_seconds", pa.int32()),
        ("trip_miles", pa.float64()),
        ("fare", pa.float64()),
        ("tips", pa.float64()),
        ("tolls", pa.decimal128(8, 2)),
        ("payment_type", pa.string()),
        ("company", pa.string()),
        ("shared", pa.bool_()),
        ("pickup_community_area", pa.int32()),
        ("pickup_latitude", pa.float64()),
        ("pickup_longitude", pa.float64()),
        ("dropoff_community_area", pa.int32()),
        ("dropoff_latitude", pa.float64()),
        ("dropoff_longitude", pa.float64()),
        ("waypoints", pa.list_(pa.int32())),
        ("tags", pa.list_(pa.string())),
    ]
)
_PAYMENTS = ("Cash", "Credit Card", "No Charge", "Unknown", "Mobile", "Pcard", "Dispute", "Prcard")
_PAYMENT_SHARES = (0.52, 0.42, 0.03, 0.015, 0.008, 0.004, 0.002, 0.001)
_FIRST = ("Blue", "Yellow", "Checker", "Flash", "City", "Lakeside", "Metro", "Star", "Globe", "Sun", "Nova", "Chicago")
_SECOND = ("Cab", "Taxi Association", "Dispatch", "Medallion Corp", "Transit Inc")
_COMPANIES = tuple(f"{first} {second}" for second in _SECOND for first in _FIRST)
_TAGS = ("airport", "night", "rain", "luggage", "pool", "wheelchair")
_HOURS = np.array([3, 2, 2, 1, 1, 2, 3, 4, 5, 5, 4, 5, 5, 5, 5, 5, 5, 6, 7, 7, 6, 6, 6, 5], np.float64)
_AREAS = 77


def trips(first_id: int, rows: int, span: TimeSpan, seed: tuple[int, ...]) -> pa.Table:
    """`rows` trips with ids from `first_id`, ordered by their start within `span`; deterministic."""
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    start, hour = _starts(draw, rows, span)
    minutes = np.clip(np.exp(draw.normal(2.25, 0.65, rows)), 1, 300)
    miles = np.where(
        draw.random(rows) < 0.03, 0.0, np.round(minutes * np.clip(draw.normal(0.24, 0.08, rows), 0.02, 1), 1)
    )
    fare = np.round((3.25 + 1.8 * miles + 0.2 * minutes) * 4) / 4
    fare[draw.random(rows) < 0.005] = 0.0
    payment = _pick(draw, rows, _PAYMENT_SHARES)
    company = _pick(draw, rows, 1.0 / np.arange(1, len(_COMPANIES) + 1) ** 1.1)
    shared = draw.random(rows) < 0.06
    ids = np.arange(first_id, first_id + rows, dtype=np.int64)
    tips = _tips(draw, fare, payment, hour, company)
    columns: dict[str, pa.Array] = {
        "trip_id": pa.array(ids),
        "trip_start": start,
        "trip_seconds": _gaps(draw, pa.array((minutes * 60).astype(np.int32)), 0.01),
        "trip_miles": _gaps(
            draw, pa.array(np.where(draw.random(rows) < 0.001, np.nan, miles), from_pandas=False), 0.02
        ),
        "fare": pa.array(fare),
        "tips": pa.array(tips),
        "tolls": _tolls(draw, rows),
        "payment_type": _words(_PAYMENTS, payment),
        "company": _gaps(draw, _words(_COMPANIES, company), 0.08),
        "shared": _gaps(draw, pa.array(shared), 0.005),
        **_place(draw, "pickup", rows, 0.03),
        **_place(draw, "dropoff", rows, 0.08),
        "waypoints": _waypoints(draw, rows),
        "tags": _tags(draw, miles, hour),
    }
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _starts(draw: np.random.Generator, rows: int, span: TimeSpan) -> tuple[pa.Array, F64]:
    """Ascending starts, more in the evening than at night, and their hour of the day with its fraction."""
    day = 86_400_000_000
    low, high = ((moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) for moment in span)
    even = low + (np.arange(rows) + draw.random(rows)) / rows * (high - low)
    days = np.floor(even / day)
    shares = np.concatenate([[0.0], np.cumsum(_HOURS) / _HOURS.sum()])
    hour = np.interp((even - days * day) / day, shares, np.arange(25.0))
    micros = (days * day + hour * 3_600_000_000).astype(np.int64)
    # A span may begin within a day: starts that the distribution of hours moves out of it are clipped.
    seconds = np.clip(micros, low, high - 1) // 1_000_000 * 1_000_000
    return pa.array(seconds).cast(pa.timestamp("us")), hour


def _tips(
    draw: np.random.Generator, fare: F64, payment: npt.NDArray[np.intp], hour: F64, company: npt.NDArray[np.intp]
) -> F64:
    """Tips by card; hardly any by cash are on record. Higher in the evening, on longer rides and for some companies."""
    share = 0.13 + 0.05 * (hour >= 18) + 0.0015 * np.minimum(fare, 40) + 0.03 * (company % 3 == 0)
    share = np.clip(share + draw.normal(0, 0.06, len(fare)), 0, 0.6)
    chance = np.where(payment == 1, 0.93, np.where(payment == 4, 0.85, 0.02))
    return np.where(draw.random(len(fare)) < chance, np.round(share * fare, 2), 0.0)


def _tolls(draw: np.random.Generator, rows: int) -> pa.Array:
    cents = np.where(draw.random(rows) < 0.02, draw.integers(50, 1200, rows), 0)
    pair = np.zeros((rows, 2), np.int64)  # little-endian 128-bit integers of cents
    pair[:, 0] = cents
    return pa.Array.from_buffers(pa.decimal128(8, 2), rows, [None, pa.py_buffer(pair.astype("<i8").tobytes())])


def _place(draw: np.random.Generator, end: str, rows: int, missing: float) -> dict[str, pa.Array]:
    """A community area and its centre; all three are null together."""
    area = _pick(draw, rows, 1.0 / np.arange(1, _AREAS + 1))
    gone = draw.random(rows) < missing
    values = {
        "community_area": (area + 1).astype(np.int32),
        "latitude": np.round(41.65 + 0.0047 * ((area * 29) % _AREAS), 6),
        "longitude": np.round(-87.9 + 0.0045 * ((area * 17) % _AREAS), 6),
    }
    return {f"{end}_{name}": pa.array(array, mask=gone) for name, array in values.items()}


def _waypoints(draw: np.random.Generator, rows: int) -> pa.Array:
    counts = np.minimum(draw.geometric(0.45, rows) - 1, 6)
    return _lists(pa.array(draw.integers(1, _AREAS + 1, int(counts.sum()), dtype=np.int32)), counts)


def _tags(draw: np.random.Generator, miles: F64, hour: F64) -> pa.Array:
    chances = (0.05, 0.0, 0.08, 0.05, 0.03, 0.01)
    has = np.stack([draw.random(len(miles)) < chance for chance in chances], axis=1)
    has[:, 0] |= miles > 9
    has[:, 1] = (hour < 5) | (hour >= 22)
    words = np.nonzero(has)[1]  # row by row, in the order of the tags
    return _lists(_words(_TAGS, words), has.sum(axis=1))


def _lists(values: pa.Array, counts: npt.NDArray[np.int64]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _pick(draw: np.random.Generator, rows: int, weights: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Category numbers with probabilities in proportion to `weights`."""
    bounds = np.cumsum(np.asarray(weights, np.float64))
    return np.searchsorted(bounds[:-1] / bounds[-1], draw.random(rows), side="right")


def _words(words: tuple[str, ...], codes: npt.NDArray[np.intp]) -> pa.Array:
    return pa.array(words).take(pa.array(codes))


def _gaps(draw: np.random.Generator, values: pa.Array, share: float) -> pa.Array:
    """`values` with nulls in about `share` of the places."""
    missing = pa.array(draw.random(len(values)) < share)
    return pc.if_else(missing, pa.scalar(None, values.type), values)
