"""The rows that are made up to check an export."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dtap_dask.features import FeatureSpec, FittedState, build
from dtap_dask.train.serving.rows import LEAST, MOST, made_up
from fitting import fit_batches


def state_of(schema: pa.Schema) -> FittedState:
    """A state that has learnt nothing."""
    return fit_batches(build([FeatureSpec(schema.names[0], "feature", (schema.names[0],), ())], schema), [])


@pytest.mark.parametrize(("columns", "rows"), [(1, LEAST), (40, 201), (300, MOST)])
def test_every_column_has_odd_values_while_the_others_have_usual_ones(columns: int, rows: int) -> None:
    schema = pa.schema({f"c{place}": pa.int32() for place in range(columns)})
    made = [one.to_pylist()[0] for one in made_up(schema, state_of(schema))]
    assert len(made) == rows
    nulls = [[name for name, value in row.items() if value is None] for row in made]
    assert sorted(nulls)[-min(columns, rows - 1) :] == [[name] for name in sorted(schema.names[: rows - 1])]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int8(), {None, 0, -1, 127, -128}),
        (pa.uint16(), {None, 0, 1, 65535}),
        (pa.int64(), {None, 0, -1, 2**63 - 1, -(2**63)}),
        (pa.float64(), {None, 0.0, -1.0, 1e30, float("inf")}),
        (pa.binary(), {None, b"", b"never seen\n", "é".encode(), b"\xff"}),
        (pa.bool_(), {None, False, True}),
        (pa.dictionary(pa.int8(), pa.uint16()), {None, 0, 1, 65535}),
        (pa.dictionary(pa.int8(), pa.string()), {None, "", "never seen\n", "é", " "}),
    ],
)
def test_odd_values_are_the_extremes_of_the_type(kind: pa.DataType, values: set[Any]) -> None:
    schema = pa.schema({"x": kind})
    assert {row.column("x")[0].as_py() for row in made_up(schema, state_of(schema))} >= values
