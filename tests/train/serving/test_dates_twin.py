"""datetime_parts in TensorFlow gives what it gives in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.features import FeatureSpec, build, parse_step
from dtap_dask.features.columns.arrow import from_arrow
from dtap_dask.features.columns.column import Numbers, numbers
from dtap_dask.features.graph.value import context_of
from dtap_dask.features.steps.dates import PARTS
from dtap_dask.features.steps.zones import CYCLE, zone
from dtap_dask.train.serving.dates import datetime_parts
from dtap_dask.train.serving.tensors import NumberTensor
from property_tests import examples

CHANGES = zone("Europe/Dublin").changes.tolist()
ZONES = (None, "Europe/Dublin", "Pacific/Apia", "Asia/Kathmandu")


def both(array: pa.Array, options: dict[str, Any]) -> list[tuple[Numbers, NumberTensor]]:
    """Each part in NumPy and in TensorFlow."""
    schema = pa.schema({"t": array.type})
    outputs = build([FeatureSpec("t", "feature", ("t",), (parse_step("datetime_parts", options),))], schema).outputs
    column, found = numbers(from_arrow(array)), []
    nulls = column.nulls()
    given = NumberTensor(tf.constant(column.values, tf.int64), None if nulls is None else tf.constant(nulls))
    for output in outputs:
        [value] = output.values
        made = datetime_parts(value.operation, {}, value)(given)
        assert isinstance(made, NumberTensor)
        found.append((numbers(value.applied.bind({}, context_of(value))(column)), made))
    return found


@examples(0.3)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(10**16), 10**16),
            st.builds(
                lambda change, cycle, gap: (change + cycle * CYCLE) * 1_000_000 + gap,
                st.sampled_from(CHANGES), st.sampled_from((0, 0, 1, 5)), st.integers(-1, 1),
            ),
        ),
        min_size=1, max_size=20,
    ),
    st.sampled_from(ZONES),
    st.booleans(),
)  # fmt: skip
def test_parts_are_those_of_numpy(micros: list[int | None], name: str | None, cyclic: bool) -> None:
    array = pa.array(micros, pa.timestamp("us"))
    for ours, theirs in both(array, {"extract": list(PARTS), "zone": name, "cyclic": cyclic}):
        if ours.is_float:
            np.testing.assert_array_equal(theirs.values, ours.values)
            continue
        known = slice(None) if ours.valid is None else ours.valid
        np.testing.assert_array_equal(theirs.values.numpy()[known], ours.values[known])
        assert (theirs.null is None) == (ours.valid is None)


def test_epoch_seconds_and_what_is_beyond() -> None:
    for ours, theirs in both(pa.array([0, -1, 2**31]), {"extract": list(PARTS), "unit": "s"}):
        assert theirs.values.numpy().tolist() == ours.values.tolist()
    with pytest.raises(tf.errors.InvalidArgumentError, match="column 't', step datetime_parts: times beyond 64 bits"):
        both(pa.array([2**62]), {"extract": "hour", "unit": "s"})
