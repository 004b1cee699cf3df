"""Fewer numbers from many: principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Floats, Numbers, numbers
from dtap_dask.features.statistics.statistic import Covariance
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation, StatisticSpec
from dtap_dask.features.steps.valuetype import Unfit, ValueType


class Pca(Operation):
    """The first `n_components` principal components of a whole vector block, as scikit-learn's PCA.

    The largest entry of each component is positive (the first of several equally large). Fitted: `components_`,
    `explained_variance_`, `explained_variance_ratio_`, `singular_values_`, `mean_`, `n_components_`,
    `n_features_in_`, `n_samples_`, `noise_variance_`.
    """

    name: ClassVar[str] = "pca"
    scalar: ClassVar[str | None] = "n_components"
    on_block: ClassVar[bool] = True

    n_components: Annotated[int, Field(ge=1)]

    def check_input(self, given: ValueType) -> None:
        self.number_only(given)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        count = 1 + len(others)
        if self.n_components > count:
            raise Unfit(f"n_components is {self.n_components}, and the block has {count} columns; valid: 1 to {count}.")
        return given.joined(*others).become("float", source=pa.float64(), width=self.n_components)

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Covariance)

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return self.n_components

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        count = statistic.count
        if count < max(2, self.n_components):
            raise DataError(
                f"There are {count:,} rows without nulls to fit {context} on, and {self.n_components} components need "
                f"{max(2, self.n_components)}. Look at `source.where` and `split.fit`."
            )
        matrix = statistic.products / (count - 1)
        if not np.isfinite(matrix).all():
            raise DataError(f"The squares of the values of {context} overflow float64. Scale them first.")
        values, vectors = np.linalg.eigh(matrix)
        values = np.maximum(values[::-1], 0.0)
        vectors = vectors[:, ::-1].T
        vectors = vectors[: self.n_components]
        sizes = np.abs(vectors)
        # two scaled columns always give entries of one size: rounding must not choose between them
        first = (sizes >= sizes.max(axis=1, keepdims=True) * (1 - 1e-6)).argmax(axis=1)
        vectors = vectors * np.where(vectors[np.arange(len(vectors)), first] < 0, -1.0, 1.0)[:, None]
        return _named(values, vectors, statistic, self.n_components)

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        components, means = np.array(fitted["components_"]), np.array(fitted["mean_"])

        def apply(*columns: Column) -> Column:
            centred = np.column_stack([numbers(column).floats() for column in columns]) - means
            return Numbers(np.einsum("nk,ck->nc", centred, components))  # einsum, not @: see Covariance

        return apply


def _named(values: Floats, vectors: Floats, covariance: Covariance, kept: int) -> dict[str, Any]:
    total = float(values.sum())
    rest = values[kept : min(len(values), covariance.count)]
    variances = values[:kept]
    return {
        "components_": tuple(tuple(row) for row in vectors.tolist()),
        "explained_variance_": tuple(variances.tolist()),
        "explained_variance_ratio_": tuple((variances / total if total else variances).tolist()),
        "singular_values_": tuple(np.sqrt(variances * (covariance.count - 1)).tolist()),
        "mean_": tuple(covariance.means.tolist()),
        "n_components_": kept,
        "n_features_in_": len(covariance.means),
        "n_samples_": covariance.count,
        "noise_variance_": float(rest.mean()) if len(rest) else 0.0,
    }
