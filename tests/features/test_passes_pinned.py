"""Passes, statistics and fitted numbers of 24 chains of steps, written down.

The values are those of the engine before features became a graph of values, which 1,500 generated jobs found equal to
this one: passes, statistics, fitted numbers and outputs to the bit, and the same jobs refused. Here numbers are
compared to nine digits, as another processor may round the last ones otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dtap_dask.features import FeatureSpec, build, parse_step
from dtap_dask.features.engine.fit import measures
from fitting import fit_batches

COUNT = 360


def rows() -> pa.RecordBatch:
    """Numbers without a generator of random ones, whose stream may change: residues, some of them left out."""
    i = np.arange(COUNT)
    return pa.record_batch(
        {
            "x": pa.array((i * 7919 % 997) / 8, mask=i % 7 == 3),
            "y": (i * 104729 % 1009) / 16 - 30,
            "z": pa.array((i * 611953 % 503) / 4, mask=i % 11 == 5),
            "n": i * 31 % 10 - 5,
            "s": pa.array(np.array(["a", "b", "c", "d"], object)[i * i % 13 % 4], mask=i % 9 == 4).dictionary_encode(),
        }
    )


MEDIAN, FREQUENT = {"impute": "median"}, {"impute": "most_frequent"}
ZERO = {"impute": {"strategy": "constant", "value": 0}}
QUARTERS = {"bucketize": {"quantiles": 4}}
# Columns, steps, the number of statistics of each pass, and the digest of what is fitted.
CHAINS: list[tuple[str, list[Any], list[int], str]] = [
    ('y', [], [], 'e3b0c44298fc1c14'),
    ('y', [{'clip': {'min': 0}}, 'log1p'], [], 'e3b0c44298fc1c14'),
    ('x', [ZERO, {'bucketize': {'boundaries': [1]}}], [], 'e3b0c44298fc1c14'),
    ('x', ['impute'], [1], '9d7de8461c305030'),
    ('y', ['standard_scale'], [1], '7fe06b73cb8309e8'),
    ('x', ['impute', 'standard_scale'], [1], '334ff59d76611635'),
    ('x', [MEDIAN, 'log1p', {'clip': {'max': 9}}, 'minmax_scale'], [2], '805d9c26e1f228fe'),
    ('x', [FREQUENT, 'maxabs_scale', 'log1p'], [2], '48b17c7a3139c002'),
    ('x', [MEDIAN, QUARTERS], [1], '83267496d58fcf4f'),
    ('y', ['standard_scale', 'minmax_scale'], [1, 1], '8b5055175124dec1'),
    ('x', ['impute', 'standard_scale', QUARTERS], [1, 1], '7d81f3c329677199'),
    ('y', [QUARTERS, 'one_hot_encode'], [1, 1], '579a9926baafce1d'),
    ('x', ['standard_scale', 'impute', 'minmax_scale'], [1, 2], 'd2e357306ca29f86'),
    ('x', ['impute', 'log1p', MEDIAN, 'minmax_scale'], [1, 2], '8f8cd9916511dada'),
    ('s', [{'ordinal_encode': {'top_k': 2}}], [1], '91bcd6a3279a8f9d'),
    ('s', [FREQUENT, 'ordinal_encode'], [1], '01693705d8224096'),
    ('s', ['one_hot_encode'], [1], '180c354de7cac2d0'),
    ('y n', ['standard_scale', {'pca': 2}], [3], 'c1c44c2bfbd33fc2'),
    ('x z', ['impute', {'pca': 2}], [2, 1], '838700777949ebda'),
    ('x z y', ['impute', 'standard_scale', {'pca': 2}], [3, 1], 'd9e4070a675f2e54'),
    ('y n', [{'pca': 2}], [1], '9368ea7e53cfcd8f'),
    ('y n', ['minmax_scale', 'standard_scale', {'pca': 1}], [2, 3], '6869b2e32458f2ec'),
    ('y n', [{'bucketize': {'quantiles': 3}}, 'standard_scale', {'pca': 1}], [2, 3], '9da63a00c6ed4f56'),
    ('x z', [{'impute': {'indicator': True}}, 'maxabs_scale'], [4], 'dc1b7445a6ac907f'),
]  # fmt: skip


def digits(value: Any) -> Any:
    if isinstance(value, pa.Array):
        return digits(value.to_pylist())
    if isinstance(value, tuple | list):
        return [digits(one) for one in value]
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def digest(fitted: list[Mapping[str, Any]]) -> str:
    """Of the numbers of all steps, whatever their order."""
    lines = sorted(repr(sorted((name, digits(value)) for name, value in one.items())) for one in fitted)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def spec(columns: str, steps: list[Any]) -> FeatureSpec:
    parsed = [parse_step(*next(iter(one.items()))) if isinstance(one, dict) else parse_step(one) for one in steps]
    names, vector = tuple(columns.split()), " " in columns
    nulls = not vector and columns in "xz" and not any(one.name == "impute" for one in parsed)
    return FeatureSpec("out", "feature", names, tuple(parsed), vector, allow_null=nulls)


@pytest.mark.parametrize(("columns", "steps", "taken", "learnt"), CHAINS)
def test_a_chain(columns: str, steps: list[Any], taken: list[int], learnt: str) -> None:
    batch = rows()
    graph = build([spec(columns, steps)], batch.schema)
    assert [len(measures(graph, at)) for at in range(graph.passes)] == taken
    state = fit_batches(
        graph, [batch.slice(0, 100), batch.slice(100)], [np.arange(100) % 5 > 0, np.arange(260) % 4 > 0]
    )
    assert digest(list(state.fitted.values())) == learnt
