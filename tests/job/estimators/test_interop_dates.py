"""`to_dask_ml` of datetime_parts: pandas gives the values of the dataset."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import dtap_dask
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.steps.dates import PARTS
from fitting import fit_batches

RNG = np.random.default_rng(5)
HOLES = RNG.random(60) < 0.2
SECONDS = RNG.integers(-(10**9), 3 * 10**9, 60)
BATCH = pa.record_batch(
    {
        "naive": pa.array(SECONDS, pa.timestamp("s"), mask=HOLES),
        "zoned": pa.array(SECONDS * 1000, pa.timestamp("ms", "UTC"), mask=HOLES),
        "day": pa.array(SECONDS // 86_400, pa.int32(), mask=HOLES).cast(pa.date32()),
        "whole": pa.array(SECONDS),
        "holes": pa.array(SECONDS, mask=HOLES),
    }
)


@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("naive", {"extract": [*PARTS]}),
        ("naive", {"extract": [*PARTS], "zone": "America/Chicago", "cyclic": True}),
        ("zoned", {"extract": [*PARTS], "zone": "Europe/Dublin"}),
        ("day", {"extract": ["year", "weekday", "week", "is_weekend"]}),
        ("whole", {"extract": [*PARTS], "unit": "s", "zone": "Asia/Tokyo"}),
        ("holes", {"extract": [*PARTS], "unit": "s", "cyclic": True}),
    ],
)
def test_pandas_gives_the_parts(column: str, options: dict[str, Any]) -> None:
    steps = (parse_step("datetime_parts", options), parse_step("cast", "float64"))
    graph = build([FeatureSpec("t", "feature", (column,), steps, allow_null=True)], BATCH.schema)
    state = fit_batches(graph, [BATCH])
    expected, frame = Transform(state).apply(BATCH), BATCH.to_pandas()
    for name, (entry,) in dtap_dask.to_dask_ml(state).items():
        made = pickle.loads(pickle.dumps(entry.steps[0][1])).transform(frame[[column]])
        np.testing.assert_allclose(made[column].to_numpy(np.float64), expected[name], atol=1e-9, err_msg=name)
