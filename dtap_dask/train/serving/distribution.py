"""The twins of steps that scale by a column's distribution."""

from __future__ import annotations

from dtap_dask.features.graph.graph import Value
from dtap_dask.features.steps.distribution import RobustScale
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.train.serving.tensors import NumberTensor, TensorBound, fixed, floats


def robust_scale(step: RobustScale, fitted: Fitted, value: Value) -> TensorBound:
    """(x - center_) / scale_."""
    center, scale = fitted.get("center_", 0.0), fitted.get("scale_", 1.0)
    return lambda column: NumberTensor((floats(column) - fixed(center)) / fixed(scale))
