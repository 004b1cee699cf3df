"""Categories as how often they occur, against pandas."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from fitting import fit_batches
from property_tests import examples

WORDS = st.lists(st.sampled_from([None, "", "a", "é", "bb"]), min_size=1, max_size=30)
NUMBERS = st.lists(st.none() | st.integers(-3, 3) | st.just(2**62), min_size=1, max_size=30)


def fitted(array: pa.Array, options: Any = None, at: Any = ()) -> FittedState:
    rows = pa.record_batch({"x": array})
    graph = build([FeatureSpec("x", "feature", ("x",), (parse_step("count_encode", options),))], rows.schema)
    ends = sorted({0, len(array), *(cut for cut in at if cut < len(array))})
    return fit_batches(graph, [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)])


@examples(1)
@given(WORDS | NUMBERS, st.booleans(), st.lists(st.integers(1, 29), max_size=2), WORDS | NUMBERS)
def test_values_are_counted_as_pandas_counts_them(values: Any, normalize: bool, at: Any, others: Any) -> None:
    kind = pa.string() if any(isinstance(one, str) for one in values) else pa.int64()
    if all(one is None for one in values):
        return
    state = fitted(pa.array(values, kind), normalize, at)
    counts = pd.Series(values, dtype=object).value_counts(dropna=False, normalize=normalize)
    known = {None if pd.isna(value) else value: count for value, count in counts.items()}
    rows = [*values, *(one for one in others if one is None or isinstance(one, str) == (kind == pa.string()))]
    made = Transform(state).apply(pa.record_batch({"x": pa.array(rows, kind)}))["x"]
    assert made.dtype == (np.float32 if normalize else np.int64)
    assert made.tolist() == np.array([known.get(one, 0) for one in rows], made.dtype).tolist()


def test_filled_nulls_count_once() -> None:
    """An imputer and the encoder behind it learn in one pass: the nulls are added as what they are filled with."""
    rows = pa.record_batch({"x": ["a", "a", "b", None, None, None]})
    steps = (parse_step("impute", "most_frequent"), parse_step("count_encode", True))
    state = fit_batches(build([FeatureSpec("x", "feature", ("x",), steps)], rows.schema), [rows.slice(0, 4), rows[4:]])
    assert state.passes == 1
    np.testing.assert_allclose(Transform(state).apply(rows)["x"], [5 / 6, 5 / 6, 1 / 6, 5 / 6, 5 / 6, 5 / 6], rtol=1e-7)


def test_a_column_that_cannot_be_counted_is_refused() -> None:
    with pytest.raises(DataError, match=r"nothing to learn in column 'x'.*2 nulls"):
        fitted(pa.array([None, None], pa.string()))
    with pytest.raises(DataError, match="meets 3 distinct values, and max_values is 2. Raise `max_values`"):
        fitted(pa.array(["a", "b", "c"]), {"max_values": 2})
    with pytest.raises(JobError, match="count_encode needs integers, booleans or text, and the column is float"):
        fitted(pa.array([1.0]))
