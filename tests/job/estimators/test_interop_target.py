"""target_encode as scikit-learn's TargetEncoder: its `transform` gives what rows outside the fitted part get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import dtap_dask
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from fitting import fit_batches


@pytest.mark.parametrize("column", ["word", "number", "flag"])
@pytest.mark.parametrize("labels_of", ["continuous", "binary", "multiclass", "multiclass of two"])
def test_the_estimator_of_target_encode(labels_of: str, column: str) -> None:
    target_type = labels_of.split(maxsplit=1)[0]
    rng = np.random.default_rng(0)
    holes = rng.random(300) < 0.1
    labels = {
        "continuous": rng.normal(size=300),
        "binary": rng.choice([2, 5], 300),
        "multiclass": rng.integers(3, 7, 300),
        "multiclass of two": rng.choice([2, 5], 300),
    }
    rows = pa.record_batch(
        {
            "word": pa.array(rng.choice(["a", "b", "c"], 300), mask=holes),
            "number": pa.array(rng.integers(-4, 4, 300), mask=holes),
            "flag": pa.array(rng.random(300) < 0.2, mask=holes),
            "y": labels[labels_of],
        }
    )
    step = parse_step("target_encode", {"cv": 3, "target_type": target_type})
    graph = build([FeatureSpec("x", "feature", (column,), (step,)), FeatureSpec("y", "label", ("y",), ())], rows.schema)
    state = fit_batches(graph, [rows.append_column("<fold 3>", pa.array(rng.integers(0, 3, 300)))])
    [entry] = dtap_dask.to_dask_ml(state)["x"]
    assert entry.columns == (column,)
    [(_, estimator)] = entry.steps
    made: Any = estimator.transform(rows.to_pandas()[[column]])
    expected = Transform(state).apply(rows)["x"].reshape(300, -1)
    np.testing.assert_allclose(made.to_numpy().reshape(300, -1), expected, rtol=1e-6)
    assert estimator.target_type_ == target_type
    assert estimator.classes_ is None or estimator.classes_.tolist() == np.unique(labels[labels_of]).tolist()
