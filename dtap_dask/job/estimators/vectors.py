"""Steps of vectors: fitted by what fits them on a column for each place, and as scikit-learn's transformers of arrays.

An estimator here takes and gives arrays [n, k], k being the places of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from sklearn.impute import MissingIndicator as PlainIndicator
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from dtap_dask.features.columns.column import Column, Numbers, numbers
from dtap_dask.features.graph.output import width_of
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.bucketize import Bucketize
from dtap_dask.features.steps.distribution import RobustScale
from dtap_dask.features.steps.elementwise import Clip, Log1p
from dtap_dask.features.steps.impute import Impute, MissingIndicator
from dtap_dask.features.steps.keyed import KEY_OPTIONS
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation
from dtap_dask.features.steps.places import at_place, place_type, placed, together
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.features.steps.valuetype import ValueType
from dtap_dask.job.estimators.frames import Frames, Target

FitColumns = Callable[[Frames, Sequence[Target], int], list[Fitted]]


class VectorPlace(Operation):
    """The number in one place of a vector."""

    name: ClassVar[str] = "place"

    at: int

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return place_type(given)

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            given = numbers(column)
            return Numbers(np.ascontiguousarray(given.values[:, self.at]), given.valid)

        return apply


def of_places(target: Target) -> bool:
    """Whether a target learns from each place of vectors."""
    return placed(target.step, target.inputs[0].type)


def by_place(fit: FitColumns, frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """What `fit` learns from each place of vectors, as from columns side by side; for each target."""
    return [together(fit(frames, _places(frames, target), rows)) for target in targets]


def _places(frames: Frames, target: Target) -> list[Target]:
    """A target for each place of the vectors that a target learns from."""
    [vector] = target.inputs
    kind, made = place_type(vector.type), []
    for at in range(width_of(vector, frames.learnt)):
        value = Value(target.step, (Value(VectorPlace(at=at), (vector,), kind),), kind)
        made.append(replace(target, value=value, context=at_place(target.context, at)))
    return made


def estimator_of_vectors(step: Operation, fitted: Fitted, given: ValueType) -> Any:
    """The fitted transformer of scikit-learn for a step of each place of vectors."""
    if isinstance(step, Bucketize):
        return FunctionTransformer(np.digitize, kw_args={"bins": step.boundaries})
    if isinstance(step, Clip):
        return FunctionTransformer(np.clip, kw_args={"a_min": step.min, "a_max": step.max})
    if isinstance(step, Log1p):
        return FunctionTransformer(np.log1p, inverse_func=np.expm1, check_inverse=False)
    if isinstance(step, MissingIndicator):
        return PlainIndicator(features="all").fit(np.zeros((1, given.width or 0)))
    if isinstance(step, Impute):
        value = [step.value] * (given.width or 0) if step.strategy == "constant" else fitted["statistics_"]
        return SimpleImputer(strategy=step.strategy, fill_value=step.value).fit(np.array([value], np.float64))
    return _scaler(step, fitted)


def _scaler(step: Operation, fitted: Fitted) -> Any:
    made = SCALERS[type(step)](**step.model_dump(exclude=set(KEY_OPTIONS)))
    arrays = {name: np.array(value) for name, value in fitted.items()}
    left_out = dict.fromkeys(("mean_", "var_", "scale_", "center_"))  # None where an option leaves them out
    for name, value in {**left_out, **arrays, "n_features_in_": len(arrays["n_samples_seen_"])}.items():
        setattr(made, name, value)
    return made


SCALERS: dict[type[Operation], Any] = {
    StandardScale: StandardScaler,
    MinMaxScale: MinMaxScaler,
    MaxAbsScale: MaxAbsScaler,
    RobustScale: RobustScaler,
}
