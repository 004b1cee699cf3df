"""Products of columns against scikit-learn's PolynomialFeatures."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import PolynomialFeatures

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from fitting import fit_batches
from property_tests import examples

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-99, 99))
DEGREES = st.integers(1, 4) | st.tuples(st.integers(0, 3), st.integers(1, 4)).filter(lambda pair: pair[0] <= pair[1])


def graph_of(schema, *steps):
    parsed = tuple(parse_step(*step) for step in steps)
    return build([FeatureSpec("v", "feature", tuple(schema.names), parsed, vector=True, place="features[0]")], schema)


def run(matrix, *steps):
    rows = pa.record_batch({f"x{i}": pa.array(column, from_pandas=True) for i, column in enumerate(matrix.T)})
    transform = Transform(fit_batches(graph_of(rows.schema, *steps), [rows]))
    return transform.infos[0], transform.apply(rows)["v"]


@examples(0.5)
@given(ROWS, DEGREES, st.booleans(), st.booleans())
def test_products_are_scikit_learns(matrix, degree, interaction_only, include_bias):
    oracle = PolynomialFeatures(degree, interaction_only=interaction_only, include_bias=include_bias)
    expected = oracle.fit_transform(matrix)
    assume(expected.shape[1])
    options = {"degree": degree, "interaction_only": interaction_only, "include_bias": include_bias}
    info, out = run(matrix, ("polynomial", options))
    np.testing.assert_array_max_ulp(out.reshape(expected.shape), expected.astype(np.float32), 1)
    assert info.shape == ((expected.shape[1],))


def test_nothing_is_fitted_behind_a_scaler():
    matrix = np.array([[1.0, 10], [3, 30], [5, 20]])
    scaled = (matrix - matrix.mean(0)) / matrix.std(0)
    info, out = run(matrix, ("standard_scale",), ("polynomial",))
    np.testing.assert_allclose(out, PolynomialFeatures().fit_transform(scaled), atol=1e-6)
    assert info.dtype == "float32"


def test_nulls_and_overflow_are_errors():
    with pytest.raises(DataError, match=r"'x1'.*null"):
        run(np.array([[1.0, np.nan]]), ("polynomial",))
    with pytest.raises(DataError, match="'x0'.*infinite at step polynomial"):
        run(np.array([[1e200, 1.0]]), ("polynomial",))
    with pytest.raises(DataError, match="'x0'.*infinite at step output as float32"):
        run(np.array([[1e30, 1.0]]), ("polynomial",))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (100, 4, r"degree 4 of 100 columns makes 4,598,126 numbers a row, and at most 4,096 are possible"),
        (2, {"degree": [3, 4], "interaction_only": True, "include_bias": False}, "the block has 2 columns, and.*3 on"),
    ],
)
def test_widths_that_cannot_be(columns, options, message):
    with pytest.raises(JobError, match=message):
        graph_of(pa.schema([(f"x{i}", pa.float64()) for i in range(columns)]), ("polynomial", options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([3, 2], "the smallest degree, 3, is above the largest, 2"),
        (0, "the largest degree must be at least 1"),
        (99, "degrees are from 0 to 64"),
        ([-1, 2], "degrees are from 0 to 64"),
    ],
)
def test_degrees_that_cannot_be(options, message):
    with pytest.raises(JobError, match=message):
        parse_step("polynomial", options)


def test_it_takes_numbers_of_a_block_only():
    with pytest.raises(JobError, match="polynomial needs numbers, and the column is text"):
        graph_of(pa.schema({"s": pa.string()}), ("polynomial",))
    one = FeatureSpec("a", "feature", ("a",), (parse_step("polynomial"),), place="features[0]")
    with pytest.raises(JobError, match="polynomial works on several columns at once. Give the block a `name`"):
        build([one], pa.schema({"a": pa.float64()}))
