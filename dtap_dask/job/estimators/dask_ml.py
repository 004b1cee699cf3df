"""Converts a fitted step to a fitted estimator of dask-ml or scikit-learn, or says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from dask_ml.impute import SimpleImputer
from dask_ml.preprocessing import Categorizer, MinMaxScaler, StandardScaler
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import MissingIndicator as PlainIndicator
from sklearn.impute import SimpleImputer as PlainImputer
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
)
from sklearn.preprocessing import StandardScaler as PlainScaler

from dtap_dask.errors import DtapError
from dtap_dask.features.columns.column import shape_of
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.bucketize import Bucketize
from dtap_dask.features.steps.cross import Cross
from dtap_dask.features.steps.dates import PARTS, DatetimeParts
from dtap_dask.features.steps.distribution import QuantileTransform, RobustScale
from dtap_dask.features.steps.elements import lifted
from dtap_dask.features.steps.elementwise import Cast, Clip, Log1p, Passthrough
from dtap_dask.features.steps.encode import HashEncode, OneHotEncode
from dtap_dask.features.steps.estimator import Estimator
from dtap_dask.features.steps.frequency import CountEncode
from dtap_dask.features.steps.impute import Impute, MissingIndicator
from dtap_dask.features.steps.keyed import Keyed
from dtap_dask.features.steps.lists import First, Last, ListLength, NullAsEmpty, Pad, PadMask
from dtap_dask.features.steps.multihot import MultiHot
from dtap_dask.features.steps.operation import Fitted, Operation
from dtap_dask.features.steps.ordinal import LabelEncode, OrdinalEncode
from dtap_dask.features.steps.places import placed
from dtap_dask.features.steps.polynomial import Polynomial
from dtap_dask.features.steps.reduce import Pca
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.features.steps.svd import TruncatedSvd
from dtap_dask.features.steps.target import TargetEncode
from dtap_dask.features.steps.tokens import TextHash, Tokenize
from dtap_dask.features.steps.valuetype import ValueType
from dtap_dask.features.steps.yeo_johnson import PowerTransform
from dtap_dask.job.estimators.target import target_encoder
from dtap_dask.job.estimators.vectors import estimator_of_vectors


@dataclass(frozen=True)
class Refused:
    """A step without an equivalent estimator in dask-ml or scikit-learn, and the reason."""

    step: str
    reason: str

    def transform(self, frame: object) -> NoReturn:
        """Raise DtapError with the reason."""
        raise DtapError(f"Step {self.step} has no dask-ml or scikit-learn estimator: {self.reason}")


def estimator_of(value: Value, fitted: Fitted) -> Any:
    """The fitted estimator of a value's operation on its inputs, or `Refused`."""
    step, given = value.applied, value.inputs[0].type
    if lifted(step, given):
        return _of_lists(step, fitted, value.columns, given)
    if placed(step, given):
        return estimator_of_vectors(step, fitted, given)
    if given.base == "text" and _is_bytes(given.source) and not isinstance(step, Passthrough | MissingIndicator):
        return Refused(step.name, f"column {value.columns[0]!r} holds bytes ({given.source}), and they take text.")
    return MAKERS[type(step)](step, fitted, value.columns, given)


def _standard(step: StandardScale, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    scaler = StandardScaler(with_mean=step.with_mean, with_std=step.with_std)
    arrays = {name: np.array([value]) for name, value in fitted.items() if name in ("mean_", "var_", "scale_")}
    return _filled(scaler, n_features_in_=1, n_samples_seen_=fitted["n_samples_seen_"], **arrays)


def _minmax(step: MinMaxScale, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    names = ("data_min_", "data_max_", "data_range_", "scale_", "min_")
    series = {name: pd.Series([fitted[name]], index=[columns[0]]) for name in names}
    scaler = MinMaxScaler(feature_range=step.feature_range)
    return _filled(scaler, n_features_in_=1, n_samples_seen_=fitted["n_samples_seen_"], **series)


def _maxabs(step: MaxAbsScale, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    scaler = _fit(MaxAbsScaler(), columns[0], [fitted["max_abs_"]])
    return _filled(scaler, n_samples_seen_=fitted["n_samples_seen_"])


def _robust(step: RobustScale, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    scaler = RobustScaler(**step.model_dump()).set_output(transform="pandas")
    arrays = {name: np.array([fitted[name]]) if name in fitted else None for name in ("center_", "scale_")}
    return _filled(scaler, n_features_in_=1, feature_names_in_=np.array(columns, object), **arrays)


def _ranks(step: QuantileTransform, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    transformer = QuantileTransformer(**step.model_dump(), subsample=None).set_output(transform="pandas")
    quantiles = np.array(fitted["quantiles_"])
    return _filled(
        transformer,
        n_quantiles_=len(quantiles),
        quantiles_=quantiles[:, None],
        references_=np.linspace(0, 1, len(quantiles)),
        n_features_in_=1,
        feature_names_in_=np.array(columns, object),
    )


def _power(step: PowerTransform, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    transformer = PowerTransformer(standardize=step.standardize).set_output(transform="pandas")
    names = {"n_features_in_": 1, "feature_names_in_": np.array(columns, object)}
    if step.standardize:
        moments = {name: np.array([fitted[name]]) for name in ("mean_", "var_", "scale_")}
        scaler = PlainScaler(copy=False).set_output(transform="default")
        names["_scaler"] = _filled(scaler, n_features_in_=1, n_samples_seen_=fitted["n_samples_seen_"], **moments)
    return _filled(transformer, lambdas_=np.array([fitted["lambdas_"]]), **names)


def _impute(step: Impute, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    if step.strategy in ("median", "most_frequent"):
        value, missing = fitted["statistics_"], _missing(given)
        if given.base == "float":
            value = float(value)  # pandas has decimals as floats here; the state holds their digits
        if missing is None:
            value = bool(value)
        return _fit(PlainImputer(strategy=step.strategy, missing_values=missing), columns[0], [value], missing is None)
    value = step.value if step.strategy == "constant" else fitted["statistics_"]
    imputer = SimpleImputer(strategy=step.strategy, fill_value=step.value)
    return _filled(imputer, indicator_=None, n_features_in_=1, statistics_=pd.Series([value], index=[columns[0]]))


def _missing_indicator(step: MissingIndicator, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    missing = _missing(given)
    known = "" if given.base == "text" else 0.0
    return _fit(PlainIndicator(features="all", missing_values=missing), columns[0], [known], missing is None)


def _missing(given: ValueType) -> float | None:
    """Null in pandas: booleans with nulls are a column of objects, True, False and None."""
    return None if given.base == "bool" else np.nan


def _ordinal(step: OrdinalEncode, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    values = _values(fitted["vocabulary"], given)
    if step.oov_buckets or given.base != "text":
        dtype = pd.CategoricalDtype(list(values))
        return _filled(Categorizer(columns=[columns[0]]), columns_=[columns[0]], categories_={columns[0]: dtype})
    missing = {"encoded_missing_value": -1} if step.null == "id" else {}
    known = [*values, np.nan] if missing else [*values]
    encoder = OrdinalEncoder(categories=[np.array(known, object)], dtype=np.int64, **missing)
    return _fit(encoder, columns[0], [*values])


def _one_hot(step: OneHotEncode, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    if step.null != step.unseen:
        return Refused(
            step.name,
            f"OneHotEncoder treats null as it does any unseen value, and here null is {step.null!r} and unseen is "
            f"{step.unseen!r}.",
        )
    values = _values(fitted["categories_"], given)
    unknown = "ignore" if step.unseen == "zeros" else "error"
    encoder = OneHotEncoder(categories=[values], handle_unknown=unknown, sparse_output=False, dtype=np.float32)
    return _fit(encoder, columns[0], [*values])


def _hash(step: HashEncode, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return Refused(step.name, "none of their encoders computes Fingerprint64; tf.strings.to_hash_bucket_fast does.")


def _count(step: CountEncode, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return Refused(step.name, "neither has such an encoder; value_counts of pandas counts.")


def _keyed(step: Keyed, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return Refused(step.title, "their estimators learn from all rows alike; fit one on each group of a pandas groupby.")


def _cross(step: Cross, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return Refused(step.name, "none of them joins columns of text; tf.strings.join does, and + in pandas.")


def _bucketize(step: Bucketize, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    if step.boundaries is not None:
        return FunctionTransformer(_digitized, kw_args={"bins": step.boundaries})
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
        feature_names_in_=np.array([columns[0]], object),
    )


def _clip(step: Clip, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    bounds = {"lower": step.min, "upper": step.max}
    return FunctionTransformer(_clipped, kw_args=bounds)


def _log1p(step: Log1p, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return FunctionTransformer(np.log1p, inverse_func=np.expm1, check_inverse=False)


def _cast(step: Cast, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    if step.dtype.startswith("float") and (
        given.base in ("float", "int", "bool", "onehot") and not shape_of(given.source)
    ):
        return FunctionTransformer(_as_type, kw_args={"dtype": step.dtype})
    return Refused(
        step.name,
        f"a cast to {step.dtype} of a column of {given.base} checks every value, and they do not; use pandas.",
    )


def _datetime_parts(step: DatetimeParts, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return FunctionTransformer(
        _date_parts, kw_args={"part": step.extract[0], "zone": step.zone, "unit": step.unit, "wave": step.cyclic}
    )


def _passthrough(step: Passthrough, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return FunctionTransformer()


def _multi_hot(step: MultiHot, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    if step.unseen == "error" or given.element is None:
        return Refused(step.name, "CountVectorizer leaves unseen values out, and here they are errors.")
    places = step.places_of(fitted)
    known = range(places) if places is not None else fitted["categories_"].to_pylist()
    counter = CountVectorizer(analyzer=_itself, vocabulary=list(known), binary=step.mode == "binary", dtype=np.float32)
    column = str(columns[0])
    frame = pd.DataFrame({column: [[next(iter(known))]]})
    return ColumnTransformer([(column, counter, column)], sparse_threshold=0.0).fit(frame)


def _itself(words: Any) -> Any:
    return words


def _tokenize(step: Tokenize, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return Refused(step.name, "they split text only inside CountVectorizer and HashingVectorizer.")


def _text_hash(step: TextHash, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return Refused(
        step.name,
        "HashingVectorizer computes MurmurHash3, not FarmHash's Fingerprint64, and other signs and norms by default; "
        "tf.strings.to_hash_bucket_fast is the same hash.",
    )


def _of_lists(step: Operation, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    return Refused(step.name, f"column {columns[0]!r} holds lists, and their transformers take one value a row.")


def _pca(step: Pca, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    names = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_")
    plain = {name: fitted[name] for name in ("n_components_", "n_features_in_", "n_samples_", "noise_variance_")}
    pca = PCA(n_components=fitted["n_components_"], whiten=step.whiten).set_output(transform="pandas")
    arrays = {name: np.array(fitted[name]) for name in names}
    return _filled(pca, feature_names_in_=np.array(columns, object), **arrays, **plain)


def _truncated_svd(step: TruncatedSvd, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    names = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_")
    svd = TruncatedSVD(step.n_components).set_output(transform="pandas")
    arrays: dict[str, Any] = {name: np.array(fitted[name]) for name in names}
    if len(columns) == fitted["n_features_in_"]:
        arrays["feature_names_in_"] = np.array(columns, object)
    return _filled(svd, n_features_in_=fitted["n_features_in_"], **arrays)


def _polynomial(step: Polynomial, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    made = PolynomialFeatures(step.degree, interaction_only=step.interaction_only, include_bias=step.include_bias)
    return made.set_output(transform="pandas").fit(pd.DataFrame({name: [0.0] for name in columns}))


def _estimator(step: Estimator, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    found = step.restored(fitted)
    if step.by_dask or len(columns) != sum(width or 1 for width in fitted["input_widths_"]):
        return found
    return _filled(found, feature_names_in_=np.array(columns, object))


MAKERS: dict[type[Operation], Callable[..., Any]] = {
    StandardScale: _standard,
    MinMaxScale: _minmax,
    MaxAbsScale: _maxabs,
    RobustScale: _robust,
    QuantileTransform: _ranks,
    PowerTransform: _power,
    Impute: _impute,
    OrdinalEncode: _ordinal,
    LabelEncode: _ordinal,
    OneHotEncode: _one_hot,
    HashEncode: _hash,
    CountEncode: _count,
    Keyed: _keyed,
    Cross: _cross,
    Bucketize: _bucketize,
    Clip: _clip,
    Log1p: _log1p,
    Cast: _cast,
    DatetimeParts: _datetime_parts,
    Passthrough: _passthrough,
    MultiHot: _multi_hot,
    Tokenize: _tokenize,
    TextHash: _text_hash,
    **dict.fromkeys((NullAsEmpty, ListLength, First, Last, Pad, PadMask), _of_lists),
    TargetEncode: target_encoder,
    Pca: _pca,
    Polynomial: _polynomial,
    Estimator: _estimator,
    TruncatedSvd: _truncated_svd,
    MissingIndicator: _missing_indicator,
}
"""What makes the estimator of an operation: a function of it, what it learnt, its columns and their type."""


def _filled(estimator: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(estimator, name, value)
    return estimator


def _fit(estimator: Any, column: str, values: Iterable[object], objects: bool = False) -> Any:
    """Fit a scikit-learn estimator on the least data that gives the fitted numbers, private attributes included."""
    frame = pd.DataFrame({column: [*values]}, dtype=object if objects else None)
    return estimator.set_output(transform="pandas").fit(frame)


def _is_bytes(kind: pa.DataType) -> bool:
    return "binary" in str(kind)  # also of a dictionary


def _values(array: pa.Array, given: ValueType) -> npt.NDArray[Any]:
    """A vocabulary in the dtype that pandas gives such a column."""
    if given.base == "text":
        return np.array(array.to_pylist(), object)
    return np.asarray(array.to_numpy(), np.bool_ if given.base == "bool" else None)


def _clipped(frame: Any, lower: float | None, upper: float | None) -> Any:
    return frame.clip(lower, upper)


def _digitized(frame: Any, bins: tuple[float, ...]) -> Any:
    return frame.apply(np.digitize, bins=bins)


def _as_type(frame: Any, dtype: str) -> Any:
    return frame.astype(dtype)


def _date_parts(frame: Any, part: str, zone: str | None, unit: str | None, wave: bool | str) -> Any:
    """One part of each column by pandas, or its sine or cosine; floats with NaN where there are nulls."""

    def of(column: Any) -> Any:
        times = pd.to_datetime(column) if unit is None else pd.to_datetime(column, unit=unit)  # dates are objects
        if times.dt.tz is None:
            times = times.dt.tz_localize("UTC")
        if zone is not None:
            times = times.dt.tz_convert(zone)
        found = _pandas_part(times, part)
        if not wave:
            return found
        angle = 2 * np.pi * (found - PARTS[part].first) / PARTS[part].period
        return np.sin(angle) if wave == "sin" else np.cos(angle)

    return frame.apply(of)


def _pandas_part(times: Any, part: str) -> Any:
    if part == "week":
        return times.dt.isocalendar()["week"].astype("float64" if times.isna().any() else "int64")
    if part == "is_weekend":
        return (times.dt.day_of_week >= 5).astype("int64").where(times.notna())
    return getattr(times.dt, "day_of_week" if part == "weekday" else part)
