"""Fits steps with dask-ml's estimators, Dask DataFrame reductions, scikit-learn and NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from dask_ml.impute import SimpleImputer
from dask_ml.preprocessing import Categorizer, MinMaxScaler, StandardScaler
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.impute import SimpleImputer as PlainImputer
from sklearn.preprocessing import PowerTransformer, QuantileTransformer, RobustScaler

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Floats, Numbers
from dtap_dask.features.engine.checks import infinite, is_testable
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.features.statistics.gram import Gram
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import Covariance, Moments
from dtap_dask.features.steps.bucketize import Bucketize
from dtap_dask.features.steps.distribution import QuantileTransform, RobustScale
from dtap_dask.features.steps.encode import OneHotEncode
from dtap_dask.features.steps.estimator import Estimator
from dtap_dask.features.steps.frequency import CountEncode
from dtap_dask.features.steps.impute import Impute
from dtap_dask.features.steps.keyed import Keyed
from dtap_dask.features.steps.multihot import MultiHot
from dtap_dask.features.steps.operation import Fitted, Operation, StatisticSpec
from dtap_dask.features.steps.ordinal import LabelEncode, OrdinalEncode
from dtap_dask.features.steps.reduce import Pca, signed
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.features.steps.svd import TruncatedSvd
from dtap_dask.features.steps.target import TargetEncode
from dtap_dask.features.steps.yeo_johnson import PowerTransform, is_resolved, yeo_johnson
from dtap_dask.job.estimators.external import transformers
from dtap_dask.job.estimators.frames import VALUES, Frames, Target, places_by_input
from dtap_dask.job.estimators.keyed import by_key
from dtap_dask.job.estimators.ranges import extremes, with_constants
from dtap_dask.job.estimators.target import target_means


@dataclass(frozen=True)
class _Range:
    """The number of values of a column, the smallest and the largest."""

    count: int
    low: float
    high: float


def _ranges(frame: dd.DataFrame, targets: Sequence[Target], rows: int) -> list[_Range]:
    """Count the values of each column; DataError where there are none, or infinite ones."""
    found = frame.map_partitions(_seen, meta=_seen(frame._meta)).compute()
    seen = []
    for number, target in enumerate(targets):
        part = found[found.index == str(number)]
        count = int(part["count"].sum())
        _refuse(target, target.value.learns, rows - count, count, int(part["infinite"].sum()))
        seen.append(_Range(count, float(part["low"].min()), float(part["high"].max())))
    return seen


def _seen(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"count": frame.count(), "infinite": np.isinf(frame).sum(), "low": frame.min(), "high": frame.max()}
    )


def _refuse(target: Target, learns: StatisticSpec | None, nulls: int, count: int, infinities: int) -> None:
    if infinities:
        context, testable = target.context, is_testable(target.value)
        raise infinite(infinities, context.column, context.feature, target.step.name, testable=testable)
    if count == 0 and learns is not None:
        nothing = learns.empty()
        nothing.nulls = nulls
        target.step.fit(nothing, target.context)  # says that there is nothing to learn


def standard(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """dask_ml.preprocessing.StandardScaler, with a guard against a variance that is only rounding."""
    step = targets[0].step
    assert isinstance(step, StandardScale)
    frame = frames.floats([target.inputs[0] for target in targets])
    seen = _ranges(frame, targets, rows)
    scaler = StandardScaler(with_mean=step.with_mean, with_std=step.with_std).fit(frame)
    names = [name for name in ("mean_", "var_", "scale_") if hasattr(scaler, name)]
    learnt: list[Fitted] = []
    for number, (target, one) in enumerate(zip(targets, seen, strict=True)):
        own = {name: float(getattr(scaler, name)[number]) for name in names}
        moments = Moments()
        moments.count, moments.mean = one.count, own.get("mean_", 0.0)
        moments.squares = own.get("var_", 0.0) * one.count
        fitted = step.fit(moments, target.context)  # says if squares overflow
        learnt.append({**fitted, **with_constants(own, one.low, one.high)})
    return learnt


def minmax(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """dask_ml.preprocessing.MinMaxScaler, on a frame: on arrays one NaN poisons a column."""
    step = targets[0].step
    assert isinstance(step, MinMaxScale)
    frame = frames.floats([target.inputs[0] for target in targets])
    seen = _ranges(frame, targets, rows)
    scaler = MinMaxScaler(feature_range=step.feature_range).fit(frame)
    learnt: list[Fitted] = []
    for number, (target, one) in enumerate(zip(targets, seen, strict=True)):
        names = ("data_min_", "data_max_", "data_range_", "scale_", "min_")
        own = {name: float(getattr(scaler, name)[str(number)]) for name in names}
        fitted = step.fit(extremes(one.count, one.low, one.high), target.context)
        learnt.append({**fitted, **own} if math.isfinite(own["scale_"]) else fitted)
    return learnt


def maxabs(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """Dask DataFrame's min and max: dask-ml has no MaxAbsScaler."""
    frame = frames.floats([target.inputs[0] for target in targets])
    seen = _ranges(frame, targets, rows)
    return [
        target.step.fit(extremes(one.count, one.low, one.high), target.context)
        for target, one in zip(targets, seen, strict=True)
    ]


def mean(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """dask_ml.impute.SimpleImputer."""
    frame = frames.floats([target.inputs[0] for target in targets])
    _ranges(frame, targets, rows)
    imputer = SimpleImputer(strategy="mean").fit(frame)
    learnt: list[Fitted] = []
    for number, target in enumerate(targets):
        value = float(imputer.statistics_[str(number)])
        if not math.isfinite(value):
            raise DataError(
                f"The values of {target.context} are so large that dask-ml's sum of them overflows float64. Use `fit: "
                "fused`, or put `clip` before it."
            )
        learnt.append({"statistics_": value})
    return learnt


def most_frequent(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """Dask DataFrame's value_counts, the smallest of several as scikit-learn: dask-ml takes any of them."""
    learnt = []
    for target in targets:
        counts = _counts(_tally(frames, target, rows), rows)
        kind = target.inputs[0].type.source
        if counts.values is not None and pa.types.is_decimal(kind) and pa.types.is_large_binary(counts.values.type):
            counts.values = counts.values.cast(pa.string()).cast(kind)  # smallest as numbers, not as text
        learnt.append(target.step.fit(counts, target.context))
    return learnt


def categories(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """dask_ml.preprocessing.Categorizer, and Dask DataFrame's value_counts for the order."""
    learnt = []
    for target in targets:
        tally = _tally(frames, target, rows)
        known = Categorizer(columns=[VALUES]).fit(_pooled(frames, target))
        in_order = tally.loc[known.categories_[VALUES].categories]
        known_before = frames.learnt.get(target.value, {})
        learnt.append(target.step.fit_further(known_before, _counts(in_order, rows), target.context))
    return learnt


def _pooled(frames: Frames, target: Target) -> dd.DataFrame:
    """The values that a target is fitted from, of all columns that share its vocabulary."""
    of = target.value.pool or target.inputs[:1]
    return dd.concat([frames.values(value) for value in of]) if len(of) > 1 else frames.values(of[0])


def _tally(frames: Frames, target: Target, rows: int) -> Any:
    """How often each value came: a pandas Series."""
    frame = _pooled(frames, target)
    tally = frame[VALUES].value_counts(split_out=1).compute()
    own = frame._meta[VALUES].dtype
    if pd.api.types.is_numeric_dtype(own):
        tally.index = tally.index.astype(own)
    endless = int(tally[np.isinf(tally.index)].sum()) if own == np.float64 else 0
    count = int(tally.sum())
    _refuse(target, target.value.learns, rows - count, count, endless)
    return tally


def _counts(tally: Any, rows: int) -> Counts:
    """As the steps take it: numbers of their own type, text as large_binary."""
    counts = Counts()
    index = tally.index
    if pd.api.types.is_numeric_dtype(index.dtype):
        counts.values = pa.array(index.to_numpy())
    else:
        counts.values = pa.array([word.encode("latin-1") for word in index], pa.large_binary())
    counts.tally = tally.to_numpy().astype(np.int64)
    counts.count = int(counts.tally.sum())
    counts.nulls = rows - counts.count
    return counts


def median(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's SimpleImputer on the one column, gathered by a worker: dask-ml's median is approximate."""
    return [_gathered(frames, target, rows, _median) for target in targets]


def _median(target: Target, column: Floats) -> Fitted:
    return {"statistics_": float(PlainImputer(strategy="median").fit(column).statistics_[0])}


def robust(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's RobustScaler on the one column, gathered by a worker: dask-ml's takes approximate percentiles."""
    return [_gathered(frames, target, rows, _robust) for target in targets]


def _robust(target: Target, column: Floats) -> Fitted:
    step = target.step
    assert isinstance(step, RobustScale)
    fitted = _summarized(target, column)  # says that the range overflows
    scaler = RobustScaler(**step.model_dump()).fit(column)
    return {**fitted, **{name: float(getattr(scaler, name)[0]) for name in ("center_", "scale_") if name in fitted}}


def _summarized(target: Target, column: Floats) -> Fitted:
    """What the step learns itself from all values of a column."""
    assert target.value.learns is not None
    values = target.value.learns.empty()
    values.add(Sample(Numbers(column[:, 0])))
    values.settle()
    return target.step.fit(values, target.context)


def ranks(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's QuantileTransformer on the one column, gathered by a worker: dask-ml's is approximate."""
    return [_gathered(frames, target, rows, _ranks) for target in targets]


def _ranks(target: Target, column: Floats) -> Fitted:
    step = target.step
    assert isinstance(step, QuantileTransform)
    fitted = _summarized(target, column)  # says that the range overflows
    options = {**step.model_dump(), "n_quantiles": len(fitted["quantiles_"]), "subsample": None}
    found = QuantileTransformer(**options).fit(column[~np.isnan(column)][:, None]).quantiles_[:, 0]
    return {**fitted, "quantiles_": tuple(np.maximum.accumulate(found).tolist())}


def powers(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's PowerTransformer on the one column, gathered by a worker: dask-ml has none."""
    return [_gathered(frames, target, rows, _power) for target in targets]


def _power(target: Target, column: Floats) -> Fitted:
    step = target.step
    assert isinstance(step, PowerTransform)
    fitted = _summarized(target, column)  # says that squares overflow
    try:
        found = PowerTransformer(standardize=step.standardize).fit(column)
    except ValueError as error:
        raise DataError(
            f"scikit-learn's PowerTransformer fails on the values of {target.context}: {error} Use `fit: fused`, or "
            "put `standard_scale` before it."
        ) from error
    power = float(found.lambdas_[0])
    transformed = yeo_johnson(column[~np.isnan(column)], power)
    if not is_resolved(float(transformed.mean()), float(transformed.var())):
        return fitted  # scikit-learn's power has values that are mostly rounding
    moments = ("mean_", "var_", "scale_") if step.standardize else ()
    return {**fitted, "lambdas_": power, **{name: float(getattr(found._scaler, name)[0]) for name in moments}}


def quantiles(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """numpy.quantile on the one column, gathered by a worker: dask-ml's percentiles are approximate."""
    return [_gathered(frames, target, rows, _quantiles) for target in targets]


def _quantiles(target: Target, column: Floats) -> Fitted:
    step = target.step
    assert isinstance(step, Bucketize)
    assert step.quantiles is not None
    values = column[~np.isnan(column)]
    inner = np.quantile(values, np.arange(1, step.quantiles) / step.quantiles)
    return {"boundaries_": tuple(np.unique(inner).tolist()), "n_samples_seen_": len(values)}


def components(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's PCA on the block, gathered by a worker: dask-ml's fails with today's scikit-learn."""
    return [_gathered(frames, target, rows, _components) for target in targets]


def _components(target: Target, block: Floats) -> Fitted:
    step = target.step
    assert isinstance(step, Pca)
    infinities = int(np.isinf(block).sum())
    if infinities:
        raise infinite(infinities, target.context.column, target.context.feature, step.name, testable=False)
    block = block[~np.isnan(block).any(axis=1)]
    covariance = Covariance()
    covariance.count = len(block)
    if len(block) < max(2, step.n_components):
        step.fit(covariance, target.context)  # says that there are too few rows
    with np.errstate(invalid="ignore", over="ignore"):  # scikit-learn divides by the whole variance, which may be 0
        pca = PCA(step.n_components, svd_solver="full").fit(block)
    if not np.isfinite(pca.explained_variance_).all():
        covariance.products = np.full((1, 1), np.inf)
        step.fit(covariance, target.context)  # says that squares overflow
    if step.whiten:
        step.refuse_flat(pca.explained_variance_, target.context)
    return {
        "components_": tuple(map(tuple, signed(pca.components_).tolist())),
        "explained_variance_": tuple(pca.explained_variance_.tolist()),
        "explained_variance_ratio_": tuple(np.nan_to_num(pca.explained_variance_ratio_).tolist()),
        "singular_values_": tuple(pca.singular_values_.tolist()),
        "mean_": tuple(pca.mean_.tolist()),
        "n_components_": step.n_components,
        "n_features_in_": block.shape[1],
        "n_samples_": len(block),
        "noise_variance_": float(pca.noise_variance_),
    }


def decompositions(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's TruncatedSVD on the block, gathered by a worker: dask-ml's takes no data frames."""
    widths = [{"input_widths_": places_by_input(frames.floats(target.inputs).columns)} for target in targets]
    learnt = [_gathered(frames, target, rows, _decomposition) for target in targets]
    return [{**one, **other} for one, other in zip(learnt, widths, strict=True)]


def _decomposition(target: Target, block: Floats) -> Fitted:
    step = target.step
    assert isinstance(step, TruncatedSvd)
    infinities = int(np.isinf(block).sum())
    if infinities:
        raise infinite(infinities, target.context.column, target.context.feature, step.name, testable=False)
    block = block[~np.isnan(block).any(axis=1)]
    gram = Gram()
    gram.add(Sample(Numbers(block)))
    step.refuse(gram, target.context)
    algorithm = "arpack" if step.n_components < min(block.shape) else "randomized"
    svd = TruncatedSVD(step.n_components, algorithm=algorithm, random_state=0).fit(block)
    return {
        "components_": tuple(map(tuple, signed(svd.components_).tolist())),
        "explained_variance_": tuple(svd.explained_variance_.tolist()),
        "explained_variance_ratio_": tuple(np.nan_to_num(svd.explained_variance_ratio_).tolist()),
        "singular_values_": tuple(svd.singular_values_.tolist()),
        "n_features_in_": block.shape[1],
        "n_samples_": len(block),
    }


def _gathered(frames: Frames, target: Target, rows: int, learn: Callable[[Target, Floats], Fitted]) -> Fitted:
    """What `learn` makes of all values [rows, columns], brought together on one worker in the order of the source."""
    frame = frames.floats(target.inputs)
    if not isinstance(target.step, Pca | TruncatedSvd):
        _ranges(frame, [target], rows)
    fitted: Fitted = dask.delayed(_together)(frame.to_delayed(), target, learn).compute()
    return fitted


def _together(parts: Sequence[pd.DataFrame], target: Target, learn: Callable[[Target, Floats], Fitted]) -> Fitted:
    return learn(target, np.concatenate([part.to_numpy() for part in parts]))


def fillings(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """What an imputer with this strategy learns."""
    step = targets[0].step
    assert isinstance(step, Impute)
    return {"mean": mean, "median": median, "most_frequent": most_frequent}[step.strategy](frames, targets, rows)


Fit = Callable[[Frames, Sequence[Target], int], list[Fitted]]

FITS: dict[type[Operation], Fit] = {
    Impute: fillings,
    Keyed: by_key,
    StandardScale: standard,
    MinMaxScale: minmax,
    MaxAbsScale: maxabs,
    RobustScale: robust,
    QuantileTransform: ranks,
    PowerTransform: powers,
    OrdinalEncode: categories,
    LabelEncode: categories,
    OneHotEncode: categories,
    CountEncode: categories,
    MultiHot: categories,
    Bucketize: quantiles,
    Pca: components,
    TargetEncode: target_means,
    TruncatedSvd: decompositions,
    Estimator: transformers,
}
"""What fits an operation: a function of frames, of targets that have this same step, and of the number of fitted rows.
Operations that never learn have none."""
