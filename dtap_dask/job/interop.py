"""What a job has fitted, as fitted dask-ml estimators where dask-ml is right, and as scikit-learn's otherwise."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from dask_ml.impute import SimpleImputer
from dask_ml.preprocessing import Categorizer, MinMaxScaler, StandardScaler
from sklearn.decomposition import PCA
from sklearn.impute import MissingIndicator
from sklearn.impute import SimpleImputer as PlainImputer
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, MaxAbsScaler, OneHotEncoder, OrdinalEncoder

from dtap_dask.errors import DtapError
from dtap_dask.features import FittedState
from dtap_dask.features.bucketize import Bucketize
from dtap_dask.features.elementwise import Cast, Clip, Log1p, Passthrough
from dtap_dask.features.encode import HashEncode, LabelEncode, OneHotEncode, OrdinalEncode
from dtap_dask.features.feature import Feature, Lane
from dtap_dask.features.impute import Impute
from dtap_dask.features.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.features.step import Fitted, Kind, Step
from dtap_dask.job.oracle import fit_with_dask_ml as fit_with_dask_ml
from dtap_dask.records.commit import sidecar_path
from dtap_dask.records.manifest import read_manifest
from dtap_dask.storage import open_store


@dataclass(frozen=True)
class Refused:
    """A step that no estimator of dask-ml or scikit-learn does as the job does, and the reason."""

    step: str
    reason: str

    def transform(self, frame: object) -> NoReturn:
        """Raise DtapError with the reason."""
        raise DtapError(f"Step {self.step} has no dask-ml or scikit-learn estimator: {self.reason}")


@dataclass(frozen=True)
class Estimators:
    """The steps of one column of a feature, or the one on all its columns (pca), in order.

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
    | one_hot_encode, maxabs_scale, pca | sklearn: OneHotEncoder, MaxAbsScaler, PCA |
    | bucketize: quantiles; boundaries | sklearn: KBinsDiscretizer; FunctionTransformer of numpy.digitize |
    | clip, log1p, passthrough, cast of numbers to a float | sklearn.preprocessing.FunctionTransformer |
    | hash_encode, other casts, what follows a Categorizer | `Refused`, with the reason |

    A vocabulary's id in the dataset is code + 1 + oov_buckets, where the code is the place among `categories_`
    (`frame[column].cat.codes`); a label's id is the code. Categorizer makes null and unseen values alike missing,
    code -1, and pandas warns of unseen ones. dask-ml's estimators take pandas and Dask DataFrames; scikit-learn's
    take pandas ones, so use `ddf.map_partitions(estimator.transform)`. Columns must have plain NumPy or text dtypes
    with NaN or None for null, not Arrow-backed numbers. Raises OutputError where there is no finished dataset.
    """
    if not isinstance(state, FittedState):
        state = _open(state, storage)
    if state.levels < state.pipeline.levels:
        raise DtapError(
            f"The state has {state.levels} of {state.pipeline.levels} levels fitted. Finish the run first, with "
            "--resume, then give its folder."
        )
    return {feature.spec.name: _feature(state, feature) for feature in state.pipeline.features}


def _open(path: str | os.PathLike[str], storage: Mapping[str, Any] | None) -> FittedState:
    store = open_store(os.fspath(path), storage)
    file = "transform.json"
    return FittedState.load(store, sidecar_path(store, read_manifest(store), file).removesuffix(file))


def _feature(state: FittedState, feature: Feature) -> list[Estimators]:
    spec = feature.spec
    made = []
    for lane in feature.lanes:
        estimators = _lane(state, lane)
        if feature.indicator is not None:
            estimators.append(("missing_indicator", _indicator(lane)))
        made.append(Estimators(spec.name, (lane.column,), _named(estimators)))
    reduced = state.reduced(feature)
    if reduced is not None:
        kind = Kind("float", pa.float64(), nulls=False)
        tail = [(step.name, _estimator(step, {}, "", kind)) for step in feature.tail]
        pca = _pca(reduced.fitted, spec.columns)
        made.append(Estimators(spec.name, spec.columns, _named([(reduced.step.name, pca), *tail])))
    return made


def _lane(state: FittedState, lane: Lane) -> list[tuple[str, Any]]:
    estimators: list[tuple[str, Any]] = []
    coded = ""
    for index, step in enumerate(lane.steps):
        fitted = state.fitted.get(lane.chain(index + 1), {})
        estimator = _estimator(step, fitted, lane.column, lane.kinds[index])
        if coded and not isinstance(step, Passthrough):
            estimator = Refused(step.name, f"it works on the ids of {coded}, and Categorizer gives categories.")
        estimators.append((step.name, estimator))
        if isinstance(estimator, Categorizer):
            coded = step.name
    return estimators


def _named(estimators: Sequence[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """Numbers for names that come more than once, as make_pipeline gives them."""
    counts = Counter(name for name, _ in estimators)
    seen: Counter[str] = Counter()
    named = []
    for name, estimator in estimators:
        seen[name] += 1
        named.append((f"{name}-{seen[name]}" if counts[name] > 1 else name, estimator))
    return tuple(named)


def _estimator(step: Step, fitted: Fitted, column: str, given: Kind) -> Any:
    return _MAKERS[type(step)](step, fitted, column, given)


def _standard(step: StandardScale, fitted: Fitted, column: str, given: Kind) -> Any:
    scaler = StandardScaler(with_mean=step.with_mean, with_std=step.with_std)
    arrays = {name: np.array([value]) for name, value in fitted.items() if name in ("mean_", "var_", "scale_")}
    return _filled(scaler, n_features_in_=1, n_samples_seen_=fitted["n_samples_seen_"], **arrays)


def _minmax(step: MinMaxScale, fitted: Fitted, column: str, given: Kind) -> Any:
    names = ("data_min_", "data_max_", "data_range_", "scale_", "min_")
    series = {name: pd.Series([fitted[name]], index=[column]) for name in names}
    scaler = MinMaxScaler(feature_range=step.feature_range)
    return _filled(scaler, n_features_in_=1, n_samples_seen_=fitted["n_samples_seen_"], **series)


def _maxabs(step: MaxAbsScale, fitted: Fitted, column: str, given: Kind) -> Any:
    scaler = _fit(MaxAbsScaler(), column, [fitted["max_abs_"]])
    return _filled(scaler, n_samples_seen_=fitted["n_samples_seen_"])


def _impute(step: Impute, fitted: Fitted, column: str, given: Kind) -> Any:
    if step.strategy in ("median", "most_frequent"):
        return _fit(PlainImputer(strategy=step.strategy), column, [fitted["statistics_"]])
    value = step.value if step.strategy == "constant" else fitted["statistics_"]
    imputer = SimpleImputer(strategy=step.strategy, fill_value=step.value)
    return _filled(imputer, indicator_=None, n_features_in_=1, statistics_=pd.Series([value], index=[column]))


def _indicator(lane: Lane) -> Any:
    known = "" if lane.kinds[-1].base == "text" else 0.0
    return _fit(MissingIndicator(features="all"), lane.column, [known])


def _ordinal(step: OrdinalEncode, fitted: Fitted, column: str, given: Kind) -> Any:
    values = _values(fitted["vocabulary"], given)
    if step.oov_buckets or given.base != "text":
        dtype = pd.CategoricalDtype(list(values))
        return _filled(Categorizer(columns=[column]), columns_=[column], categories_={column: dtype})
    missing = {"encoded_missing_value": -1} if step.null == "id" else {}
    known = [*values, np.nan] if missing else [*values]
    encoder = OrdinalEncoder(categories=[np.array(known, object)], dtype=np.int64, **missing)
    return _fit(encoder, column, [*values])


def _one_hot(step: OneHotEncode, fitted: Fitted, column: str, given: Kind) -> Any:
    if step.null != step.unseen:
        return Refused(
            step.name,
            f"OneHotEncoder treats null as it does any unseen value, and here null is {step.null!r} and unseen is "
            f"{step.unseen!r}.",
        )
    values = _values(fitted["categories_"], given)
    unknown = "ignore" if step.unseen == "zeros" else "error"
    encoder = OneHotEncoder(categories=[values], handle_unknown=unknown, sparse_output=False, dtype=np.float32)
    return _fit(encoder, column, [*values])


def _hash(step: HashEncode, fitted: Fitted, column: str, given: Kind) -> Any:
    return Refused(step.name, "none of theirs computes FarmHash's Fingerprint64; tf.strings.to_hash_bucket_fast does.")


def _bucketize(step: Bucketize, fitted: Fitted, column: str, given: Kind) -> Any:
    if step.boundaries is not None:
        return FunctionTransformer(_digitized, kw_args={"bins": step.boundaries}, feature_names_out="one-to-one")
    edges = np.empty(1, object)
    edges[0] = np.array([-np.inf, *fitted["boundaries_"], np.inf])
    bins = KBinsDiscretizer(
        step.quantiles, encode="ordinal", strategy="quantile", quantile_method="linear", subsample=None
    )
    return _filled(
        bins.set_output(transform="pandas"),
        bin_edges_=edges,
        n_bins_=np.array([len(edges[0]) - 1]),
        n_features_in_=1,
        feature_names_in_=np.array([column], object),
    )


def _clip(step: Clip, fitted: Fitted, column: str, given: Kind) -> Any:
    bounds = {"lower": step.min, "upper": step.max}
    return FunctionTransformer(_clipped, kw_args=bounds, feature_names_out="one-to-one")


def _log1p(step: Log1p, fitted: Fitted, column: str, given: Kind) -> Any:
    return FunctionTransformer(np.log1p, feature_names_out="one-to-one")


def _cast(step: Cast, fitted: Fitted, column: str, given: Kind) -> Any:
    if step.dtype.startswith("float") and (given.is_number or given.base == "onehot"):
        return FunctionTransformer(_as_type, kw_args={"dtype": step.dtype}, feature_names_out="one-to-one")
    return Refused(
        step.name,
        f"a cast to {step.dtype} of a column of {given.base} checks every value, and theirs do not; use pandas.",
    )


def _passthrough(step: Passthrough, fitted: Fitted, column: str, given: Kind) -> Any:
    return FunctionTransformer(feature_names_out="one-to-one")


def _pca(fitted: Fitted, columns: Sequence[str]) -> Any:
    names = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_")
    plain = {name: fitted[name] for name in ("n_components_", "n_features_in_", "n_samples_", "noise_variance_")}
    pca = PCA(n_components=fitted["n_components_"]).set_output(transform="pandas")
    arrays = {name: np.array(fitted[name]) for name in names}
    return _filled(pca, feature_names_in_=np.array(columns, object), **arrays, **plain)


_MAKERS: dict[type[Step], Callable[..., Any]] = {
    StandardScale: _standard,
    MinMaxScale: _minmax,
    MaxAbsScale: _maxabs,
    Impute: _impute,
    OrdinalEncode: _ordinal,
    LabelEncode: _ordinal,
    OneHotEncode: _one_hot,
    HashEncode: _hash,
    Bucketize: _bucketize,
    Clip: _clip,
    Log1p: _log1p,
    Cast: _cast,
    Passthrough: _passthrough,
}


def _filled(estimator: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(estimator, name, value)
    return estimator


def _fit(estimator: Any, column: str, values: Iterable[object]) -> Any:
    """Fit a scikit-learn estimator on the least data that teaches it what was learnt: its private parts are set too."""
    return estimator.set_output(transform="pandas").fit(pd.DataFrame({column: [*values]}))


def _values(array: pa.Array, given: Kind) -> npt.NDArray[Any]:
    """A vocabulary as pandas holds such a column."""
    if given.base == "text":
        return np.array(array.to_pylist(), object)
    return np.asarray(array.to_numpy(), np.bool_ if given.base == "bool" else None)


def _clipped(frame: Any, lower: float | None, upper: float | None) -> Any:
    return frame.clip(lower, upper)


def _digitized(frame: Any, bins: tuple[float, ...]) -> Any:
    return frame.apply(np.digitize, bins=bins)


def _as_type(frame: Any, dtype: str) -> Any:
    return frame.astype(dtype)
