"""Steps with `by`: fitted by scikit-learn and pandas on the rows of each key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.impute import SimpleImputer as PlainImputer
from sklearn.preprocessing import RobustScaler
from sklearn.preprocessing import StandardScaler as PlainScaler

from dtap_dask.features.columns.column import Column, Decimals, Numbers
from dtap_dask.features.engine.checks import infinite
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.steps.bucketize import Bucketize
from dtap_dask.features.steps.distribution import RobustScale
from dtap_dask.features.steps.impute import Impute
from dtap_dask.features.steps.keyed import KEY_OPTIONS, Keyed, with_tables
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.features.steps.valuetype import ValueType
from dtap_dask.job.estimators.frames import Frames, Target
from dtap_dask.job.estimators.ranges import extremes, with_constants
from dtap_dask.job.estimators.target import column_of, parsed


def by_key(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's estimator of the rows of each key, the column and its key gathered by a worker."""
    found = []
    for target in targets:
        value, key = target.inputs
        found.append(dask.delayed(_fitted)(frames.keyed(key, value).to_delayed(), target).compute())
    return found


def _fitted(parts: Sequence[pd.DataFrame], target: Target) -> Fitted:
    step, rows = target.step, pd.concat(parts, ignore_index=True)
    assert isinstance(step, Keyed)
    assert target.value.learns is not None
    statistic: Any = target.value.learns.empty()
    kinds = [value.type for value in target.inputs]
    keys = parsed(rows["0"], kinds[1])
    statistic.add(Sample(_values(rows["1"], kinds[0])), Sample(column_of(keys, kinds[1])))
    statistic.settle()
    if statistic.infinities:
        raise infinite(statistic.infinities, target.context.column, target.context.feature, step.title)
    fitted = step.fit(statistic, target.context)  # says what cannot be learnt from
    groups = [rows["1"][keys == key] for key, _ in statistic.by_key()]
    return with_tables(fitted, [_learnt(target, fitted, group, kinds[0]) for group in (*groups, rows["1"])])


def _values(column: Any, kind: ValueType) -> Column:
    if column.dtype == np.float64:
        return Numbers(column.to_numpy())
    if kind.base == "float":  # the digits of decimals
        source = kind.source.value_type if pa.types.is_dictionary(kind.source) else kind.source
        return Decimals(pa.array([None if pd.isna(one) else one for one in column], pa.string()).cast(source))
    return column_of(parsed(column, kind), kind)


def _learnt(target: Target, fitted: Fitted, group: Any, kind: ValueType) -> Fitted:
    """What is learnt from the values of one key, by the names of `fitted`."""
    assert isinstance(target.step, Keyed)
    of = target.step.step
    if isinstance(of, Impute) and of.strategy == "most_frequent":
        return {"statistics_": _most_frequent(group, kind)}
    column = group.astype(np.float64).to_numpy()[:, None]
    values = column[~np.isnan(column)]
    if isinstance(of, Bucketize):
        assert of.quantiles is not None
        inner = np.quantile(values, np.arange(1, of.quantiles) / of.quantiles)
        return {"boundaries_": tuple(np.unique(inner).tolist()), "n_samples_seen_": len(values)}
    if isinstance(of, Impute):
        return {"statistics_": float(PlainImputer(strategy=of.strategy).fit(column).statistics_[0])}
    if isinstance(of, MinMaxScale | MaxAbsScale):  # scikit-learn's take a range below 2.2e-15 for none
        return of.fit(extremes(len(values), float(values.min()), float(values.max())), target.context)
    assert isinstance(of, RobustScale | StandardScale)
    estimator = RobustScaler if isinstance(of, RobustScale) else PlainScaler
    scaler = estimator(**of.model_dump(exclude=set(KEY_OPTIONS))).fit(column)
    own = {name: float(getattr(scaler, name)[0]) for name in fitted if name not in ("keys_", "n_samples_seen_")}
    if isinstance(of, StandardScale):
        own = with_constants(own, float(values.min()), float(values.max()))
    return {**own, "n_samples_seen_": len(values)}


def _most_frequent(group: Any, kind: ValueType) -> Any:
    """The smallest of the most frequent values, as Impute learns it."""
    counts = group.value_counts()
    values = counts.index[counts == counts.max()]
    if group.dtype == np.float64:
        return float(values.min())
    if kind.base == "float":
        return min(values, key=float)
    found = min(parsed(values, kind))
    return found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else found
