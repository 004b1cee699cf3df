"""Steps with `by` in TensorFlow give what records hold, for any rows and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dtap_dask.errors import DataError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches
from property_tests import examples
from serving_parity import BOOLEANS, F32, F64, I64, INTEGERS, PLAIN, TEXT, WORDS, assert_equal, outcome

FILL = ("impute", {"strategy": "constant", "value": 0})
DATES = st.one_of(st.none(), st.integers(-3, 3))
KEYS = [(TEXT, WORDS), (I64, INTEGERS), (pa.bool_(), BOOLEANS), (pa.date32(), DATES)]
COLUMNS: list[tuple[pa.DataType, Any, list[Any]]] = [
    (F64, PLAIN, [FILL, ("standard_scale", {"by": "key"})]),
    (I64, INTEGERS, [FILL, ("minmax_scale", {"by": "key", "feature_range": [-1, 1]})]),
    (F32, PLAIN, [FILL, ("maxabs_scale", {"by": "key"}), ("robust_scale", {"by": "key", "unit_variance": True})]),
    (F64, PLAIN, [("impute", {"by": "key", "indicator": True})]),
    (I64, INTEGERS, [("impute", {"by": "key", "strategy": "median"})]),
    (I64, INTEGERS, [("impute", {"by": "key", "strategy": "most_frequent"})]),
    (TEXT, WORDS, [("impute", {"by": "key", "strategy": "most_frequent"})]),
    (F64, PLAIN, [FILL, ("bucketize", {"by": "key", "quantiles": 3})]),
    (I64, INTEGERS, [FILL, ("bucketize", {"by": "key", "quantiles": 4})]),
]


def graph_of(kind: pa.DataType, key: pa.DataType, steps: list[Any]) -> Any:
    parsed = tuple(parse_step(*step) for step in steps)
    return build([FeatureSpec("x", "feature", ("x",), parsed)], pa.schema({"x": kind, "key": key}))


@pytest.mark.parametrize(("kind", "values", "steps"), COLUMNS)
@examples(0.1, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_serving_is_what_records_hold(kind: pa.DataType, values: Any, steps: list[Any], data: Any) -> None:
    key, keys = data.draw(st.sampled_from(KEYS), label="key")
    graph = graph_of(kind, key, steps)
    rows = st.lists(st.tuples(values, keys), min_size=1, max_size=8)
    seen, new = (pa.record_batch(list(map(list, zip(*data.draw(rows), strict=True))), graph.schema) for _ in range(2))
    try:
        state = features_only(fit_batches(graph, [seen]))
    except DataError:
        return
    served, transform = ServingModule(state, {}), Transform(state)
    for some in (seen, new, new.slice(0, 1)):
        ours, theirs = outcome(transform.apply, some), outcome(served, raw_tensors(some))
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_equal(state, ours, theirs)


def test_a_saved_model_needs_the_key(tmp_path: Path) -> None:
    graph = graph_of(F64, TEXT, [("standard_scale", {"by": "key"})])
    state: FittedState = fit_batches(
        graph, [pa.record_batch([[1.0, 3.0, 10.0, 30.0], [b"a", b"a", b"b", b"b"]], graph.schema)]
    )
    module = ServingModule(state, {})
    assert [column.name for column in module.columns] == ["x", "key"]
    spec = {"x": tf.TensorSpec([None], tf.float64, "x"), "key": tf.TensorSpec([None], tf.string, "key")}
    tf.saved_model.save(module, tmp_path / "saved", signatures=tf.function(module).get_concrete_function(spec))
    loaded = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    made = loaded(x=tf.constant([3.0, 10.0, 5.0], tf.float64), key=tf.constant(["a", "b", "new"]))["x"].numpy()
    rows = pa.record_batch([[3.0, 10.0, 5.0], [b"a", b"b", b"new"]], graph.schema)
    assert made.tolist() == Transform(state).apply(rows)["x"].tolist()
    assert made.tolist()[:2] == [1, -1]
