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
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Inverse, Operation, StatisticSpec
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe

NO_VARIANCE = 1e-12  # of the largest variance: what rounding makes of none


class Pca(Operation):
    """The first `n_components` principal components of a whole vector block, as scikit-learn's PCA.

    `whiten` divides each component by the square root of its variance. The largest entry of each component is positive
    (the first of several equally large). Fitted: `components_`, `explained_variance_`, `explained_variance_ratio_`,
    `singular_values_`, `mean_`, `n_components_`, `n_features_in_`, `n_samples_`, `noise_variance_`.
    """

    name: ClassVar[str] = "pca"
    scalar: ClassVar[str | None] = "n_components"
    on_block: ClassVar[bool] = True

    n_components: Annotated[int, Field(ge=1)]
    whiten: bool = False

    def check_input(self, given: ValueType) -> None:
        if given.width is not None and given.base in ("float", "int", "bool"):
            raise Unfit(
                f"pca needs one number a row of each column, and the column is {describe(given)}. Use `standard_scale: "
                "{with_std: false}` and `truncated_svd`, which find the same components of a vector."
            )
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
        if self.whiten:
            self.refuse_flat(values, context)
        vectors = signed(vectors[:, ::-1].T[: self.n_components])
        return _named(values, vectors, statistic, self.n_components)

    def refuse_flat(self, values: Floats, context: ErrorContext) -> None:
        """DataError for components without variance, which whitening would divide by rounding errors."""
        varying = int(np.count_nonzero(values[: self.n_components] > values[0] * NO_VARIANCE))
        if varying < self.n_components:
            remedy = f"Lower `n_components` to {varying}" if varying else "Leave the block out"
            raise DataError(
                f"`whiten` divides by the variance of each component, and only {varying} of the {self.n_components} "
                f"components of {context} have more than {NO_VARIANCE:g} of the largest variance. {remedy}, or leave "
                "out `whiten`."
            )

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        components, means = self.projection(fitted), np.array(fitted["mean_"])

        def apply(*columns: Column) -> Column:
            centred = np.column_stack([numbers(column).floats() for column in columns]) - means
            return Numbers(np.einsum("nk,ck->nc", centred, components))  # einsum, not @: see Covariance

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """As scikit-learn's inverse_transform: exact if all components are kept."""
        components, means = np.array(fitted["components_"]), np.array(fitted["mean_"])
        if self.whiten:
            components = components * np.sqrt(fitted["explained_variance_"])[:, None]

        def apply(column: Column) -> Sequence[Column]:
            block = np.einsum("nc,ck->nk", numbers(column).floats(), components) + means
            return [Numbers(np.ascontiguousarray(values)) for values in block.T]

        return apply

    def projection(self, fitted: Fitted) -> Floats:
        """What centred rows are multiplied by, shape [components, columns]: the components, whitened if asked."""
        components = np.array(fitted["components_"])
        return components / np.sqrt(fitted["explained_variance_"])[:, None] if self.whiten else components


def signed(vectors: Floats) -> Floats:
    """Components, shape [components, columns], with the largest entry of each positive."""
    sizes = np.abs(vectors)
    # two scaled columns always give entries of one size: rounding must not choose between them
    first = (sizes >= sizes.max(axis=1, keepdims=True) * (1 - 1e-6)).argmax(axis=1)
    return np.asarray(vectors * np.where(vectors[np.arange(len(vectors)), first] < 0, -1.0, 1.0)[:, None])


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
