"""Derived columns of raw columns: as a function, as a graph for any number of rows, and saved."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from dtap_dask.features.columns.arrow import from_arrow
from dtap_dask.features.columns.column import Text, numbers
from dtap_dask.lake.sql.expression import bind_in_order
from dtap_dask.train.serving.sql.derived import derived
from dtap_dask.train.serving.tensors import NumberTensor, TensorColumn, TextTensor

ROWS = pa.record_batch(
    {
        "fare": pa.array([4.5, None, float("nan"), -1.25, float("inf")], pa.float32()),
        "miles": pa.array([1.0, 2.5, None, 0.0, 3.75]),
        "trips": pa.array([3, None, -2, 7, 2**40]),
        "paid": pa.array([True, False, None, True, False]),
        "word": pa.array(["añb", None, "", "Taxi", "b"]),
        "day": pa.array([0, 15_000, None, -719_162, 99], pa.date32()),
        "start": pa.array([0, None, -1, 1_370_089_815_500_000, 10**15], pa.timestamp("us")),
        "second": pa.array([0, None, -1, 1_370_089_815, 10**9], pa.timestamp("s", "UTC")),
        "fine": pa.array([0, None, -1_000, 1_370_089_815_500_000_000, 10**15], pa.timestamp("ns")),
        "price": pa.array(
            [Decimal(one) for one in ("1.10", "-2.25", "0.00", "99.99", "12345.67")], pa.decimal128(9, 2)
        ),
    }
)
DERIVE = {
    "per_mile": "fare / miles",
    "large": "per_mile > 1 or paid",
    "more": "trips + 1",
    "loud": "upper(word) || '!'",
    "taxed": "price * 1.1",
    "tax_text": "cast(taxed as varchar)",
    "month": "date_trunc('month', start)",
    "hour": "extract(hour from second)",
    "next_day": "day + 1",
    "nanos": "epoch_ns(fine)",
    "late": "fine + INTERVAL 1 DAY",
    "one": "1",
    "nothing": "case when false then 2.5 end",
    "kind": "case when trips < 0 then 'less' when word like '%b' then word else 'more' end",
}
BOUND = bind_in_order(DERIVE.items(), ROWS.schema)


def raw(array: pa.Array) -> TensorColumn:
    """A column as it is given to a graph."""
    column = from_arrow(array)
    nulls = column.nulls()
    null = tf.constant(np.zeros(len(array), bool) if nulls is None else nulls)
    if isinstance(column, Text):
        return TextTensor(tf.constant([value or b"" for value in column.plain().to_pylist()], tf.string), null)
    given = numbers(column)
    if given.is_float:
        return NumberTensor(tf.constant(given.floats()))
    return NumberTensor(
        tf.constant(given.values if given.values.dtype == np.bool_ else given.values.astype(np.int64)), null
    )


def in_rows(batch: pa.RecordBatch) -> dict[str, Any]:
    """The derived columns as a scan computes them, as lists with None for null."""
    found = {}
    for name, expression in BOUND:
        batch = batch.append_column(pa.field(name, expression.type), expression.evaluate(batch))
        found[name] = listed(raw(batch.column(name)))
    return found


def listed(column: TensorColumn) -> list[Any]:
    values = column.values.numpy().tolist()
    if column.null is None:
        return [None if math.isnan(value) else value for value in values]
    return [None if null else value for value, null in zip(values, column.null.numpy().tolist(), strict=True)]


class Graph(tf.Module):
    """The derived columns of tensors with any number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.derive = derived(BOUND, ROWS.schema)

    @tf.function(autograph=False)
    def __call__(self, **parts: Any) -> dict[str, Any]:
        kinds = {name: TextTensor if parts[name].dtype == tf.string else NumberTensor for name in ROWS.schema.names}
        columns = {name: kind(parts[name], parts.get(f"{name}/null")) for name, kind in kinds.items()}
        made = self.derive(columns)
        return {name: (made[name].values, made[name].null) for name in DERIVE if made[name].null is not None}


def parts_of(batch: pa.RecordBatch) -> dict[str, Any]:
    columns = {name: raw(batch.column(name)) for name in batch.schema.names}
    nulls = {f"{name}/null": column.null for name, column in columns.items() if column.null is not None}
    return {name: column.values for name, column in columns.items()} | nulls


@pytest.mark.parametrize("rows", [5, 1, 0])
def test_they_are_those_of_rows(rows: int) -> None:
    batch = ROWS.slice(0, rows)
    made = derived(BOUND, ROWS.schema)({name: raw(batch.column(name)) for name in batch.schema.names})
    assert list(made) == [*ROWS.schema.names, *DERIVE]
    assert {name: listed(made[name]) for name in DERIVE} == in_rows(batch)


def test_a_saved_graph_computes_them_for_any_number_of_rows(tmp_path: Path) -> None:
    module = Graph()
    signature = {
        name: tf.TensorSpec([None], value.dtype, name.replace("/", "_")) for name, value in parts_of(ROWS).items()
    }
    module.__call__.get_concrete_function(**signature)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for rows in (5, 1, 0):
        batch = ROWS.slice(0, rows)
        expected = in_rows(batch)
        for name, (values, null) in loaded(**parts_of(batch)).items():
            assert listed(NumberTensor(values, null)) == expected[name], name


@pytest.mark.parametrize(
    ("sql", "values", "says"),
    [
        (
            "trips + 9223372036854775807",
            [1],
            r"derived column 'x': 'trips \+ 9223372036854775807' cannot be computed for every row",
        ),
        ("10 // trips", [5, 0], "'10 // trips' cannot be computed"),
        ("cast(trips as tinyint)", [1000], r"'cast\(trips as tinyint\)' cannot be computed"),
    ],
)
def test_rows_that_cannot_be_computed_are_an_error(sql: str, values: list[int], says: str) -> None:
    schema = pa.schema({"trips": pa.int64()})
    compute = derived(bind_in_order({"x": sql}.items(), schema), schema)
    with pytest.raises(tf.errors.InvalidArgumentError, match=says):
        compute({"trips": NumberTensor(tf.constant(values, tf.int64))})


def test_rows_that_are_guarded_are_none() -> None:
    schema = pa.schema({"trips": pa.int64()})
    compute = derived(bind_in_order({"x": "trips <> 0 and 10 // trips > 1"}.items(), schema), schema)
    made = compute({"trips": NumberTensor(tf.constant([5, 0, 100], tf.int64))})["x"]
    assert made.values.numpy().tolist() == [True, False, False]
