"""truncated_svd of one-hot vectors as tensors: without the vectors, and equal to what records hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches

ROWS, WORDS = 500, 300


@pytest.mark.parametrize("graph", [False, True])
def test_one_hot_vectors_are_never_made(monkeypatch: pytest.MonkeyPatch, graph: bool) -> None:
    rng = np.random.default_rng(0)
    rows = pa.record_batch(
        {
            "a": [f"w{i}" for i in (rng.random(ROWS) ** 2 * WORDS).astype(int)],
            "x": rng.normal(size=ROWS),
            "b": pa.array(rng.integers(0, 40, ROWS), mask=rng.random(ROWS) < 0.2),
        }
    )
    hot = FeatureSpec("v", "feature", ("a", "b"), (parse_step("one_hot_encode"), parse_step("truncated_svd", 3)),
                      vector=True)  # fmt: skip
    plain = FeatureSpec("w", "feature", ("x",), (parse_step("truncated_svd", 1),), vector=True)
    state = features_only(fit_batches(build([hot, plain], rows.schema), [rows]))
    new = pa.record_batch({"a": ["w0", "never", None], "x": [1.5, -2.0, 0.0], "b": pa.array([None, 99, 7])})
    wanted = Transform(state).apply(new)

    monkeypatch.setattr(tf, "one_hot", lambda *_, **__: pytest.fail("vectors are made dense"))
    module = ServingModule(state, {})
    made = (tf.function(module) if graph else module)(raw_tensors(new))
    for name in ("v", "w"):
        np.testing.assert_allclose(made[name], wanted[name], rtol=0, atol=4 * np.spacing(np.abs(wanted[name]).max()))
