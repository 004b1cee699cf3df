"""Fitted steps as fitted estimators: of dask-ml where its results agree, else of scikit-learn."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask_ml.preprocessing import Categorizer

from dtap_dask.errors import DtapError
from dtap_dask.features import FittedState
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.elementwise import Passthrough
from dtap_dask.job import taps
from dtap_dask.job.estimators.dask_ml import Refused, estimator_of
from dtap_dask.records.fitted import read_fitted
from dtap_dask.storage import open_store

__all__ = ["Estimators", "Refused", "to_dask_ml"]


@dataclass(frozen=True)
class Estimators:
    """The steps of one column of an output, or those from a step on that takes all its columns (pca), in order.

    `steps` holds (name, fitted estimator or `Refused`), the names unique as in scikit-learn's make_pipeline.
    """

    feature: str
    columns: tuple[str, ...]
    steps: tuple[tuple[str, Any], ...]

    @property
    def refused(self) -> tuple[Refused, ...]:
        """The steps without an estimator."""
        return tuple(estimator for _, estimator in self.steps if isinstance(estimator, Refused))


def to_dask_ml(
    state: FittedState | str | os.PathLike[str], *, storage: Mapping[str, Any] | None = None
) -> dict[str, list[Estimators]]:
    """The fitted estimators of every feature: of each of its columns, and then, for pca, of all of them together.

    `state` is a fitted state, or the folder of a finished dataset (`storage` as in a job file). Nothing is read but
    the fitted state. Each estimator takes the frame of its `columns` that the one before gives:

        for entry in to_dask_ml("out/taxi")["fare"]:
            frame = source[list(entry.columns)].copy()      # StandardScaler.transform changes a pandas frame in place
            for name, estimator in entry.steps:
                frame = estimator.transform(frame)

    | step | estimator |
    |---|---|
    | standard_scale, minmax_scale | dask_ml.preprocessing.StandardScaler, MinMaxScaler |
    | impute: mean, constant | dask_ml.impute.SimpleImputer |
    | impute: median, most_frequent | sklearn.impute.SimpleImputer; the feature of `indicator`: MissingIndicator |
    | ordinal_encode | dask_ml.preprocessing.Categorizer, its categories the vocabulary by falling count |
    | ordinal_encode of text, `oov_buckets: 0` or a label | sklearn.preprocessing.OrdinalEncoder |
    | one_hot_encode, maxabs_scale, robust_scale, pca | sklearn: OneHotEncoder, MaxAbsScaler, RobustScaler, PCA |
    | quantile_transform, power_transform | sklearn.preprocessing: QuantileTransformer, PowerTransformer |
    | truncated_svd, polynomial | sklearn: TruncatedSVD, PolynomialFeatures |
    | estimator | the transformer that the step names |
    | target_encode | sklearn.preprocessing.TargetEncoder; `transform` gives what rows outside the fitted part get |
    | bucketize: quantiles; boundaries | sklearn: KBinsDiscretizer; FunctionTransformer of numpy.digitize |
    | clip, log1p, datetime_parts, passthrough, cast of numbers to a float | sklearn.preprocessing.FunctionTransformer |
    | hash_encode, other casts, what follows a Categorizer | `Refused`, with the reason |
    | multi_hot | sklearn.feature_extraction.text.CountVectorizer in a ColumnTransformer |
    | scalers, impute, clip, log1p, bucketize of vectors | scikit-learn's, for an array [n, k] of the places |
    | a step with `by` | `Refused`: their estimators learn from all rows alike; fit one on each group of a key |
    | count_encode, cross | `Refused`: neither counts values or joins text |
    | tokenize, text_hash | `Refused`: HashingVectorizer computes MurmurHash3 |
    | other steps of lists: null_as_empty, list_length, first, last, pad, encoders of each element | `Refused` |

    A vocabulary's id in the dataset is code + 1 + oov_buckets, where the code is the place among `categories_`
    (`frame[column].cat.codes`); a label's id is the code. Categorizer makes null and unseen values alike missing,
    code -1, and pandas warns of unseen ones. dask-ml's estimators take pandas and Dask DataFrames; scikit-learn's
    take pandas ones, so use `ddf.map_partitions(estimator.transform)`. Columns must have plain NumPy or text dtypes
    with NaN or None for null, not Arrow-backed numbers. Raises OutputError where there is no finished dataset.
    """
    if not isinstance(state, FittedState):
        state = _open(state, storage)
    if not state.is_complete:
        raise DtapError(
            f"The state has {state.passes} of {state.graph.passes} passes. Finish the run first, with "
            "--resume, then give its folder."
        )
    return {
        output.name: [entry for value in output.values for entry in _of_value(state, output, value)]
        for output in state.graph.outputs
    }


def _open(path: str | os.PathLike[str], storage: Mapping[str, Any] | None) -> FittedState:
    store = open_store(os.fspath(path), taps.settings(storage))
    return read_fitted(store)[1]


def _of_value(state: FittedState, output: Output, value: Value) -> list[Estimators]:
    """The estimators of each column up to the first step that takes several columns, then those from that step on."""
    steps: list[Value] = []
    while value.inputs:
        steps.insert(0, value)
        if value.applied.on_block:
            break
        value = value.inputs[0]
    before = [entry for one in value.inputs for entry in _of_value(state, output, one)]
    return [*before, Estimators(output.name, value.columns, _named(_on_columns(state, steps)))]


def _on_columns(state: FittedState, steps: Sequence[Value]) -> list[tuple[str, Any]]:
    estimators: list[tuple[str, Any]] = []
    coded = ""
    for value in steps:
        step = value.applied
        estimator = estimator_of(value, state.fitted.get(value, {}))
        if coded and not isinstance(step, Passthrough):
            estimator = Refused(step.name, f"it works on the ids of {coded}, and Categorizer gives categories.")
        estimators.append((step.title, estimator))
        if isinstance(estimator, Categorizer):
            coded = step.name
    return estimators


def _named(estimators: Sequence[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """Numbers repeated names, as make_pipeline does."""
    counts = Counter(name for name, _ in estimators)
    seen: Counter[str] = Counter()
    named = []
    for name, estimator in estimators:
        seen[name] += 1
        named.append((f"{name}-{seen[name]}" if counts[name] > 1 else name, estimator))
    return tuple(named)
