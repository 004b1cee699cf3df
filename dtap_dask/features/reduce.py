"""Fewer numbers from many: principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from dtap_dask.errors import DataError
from dtap_dask.features.column import Floats
from dtap_dask.features.statistic import Covariance
from dtap_dask.features.step import Bound, ErrorContext, Fitted, Step, Unfit, ValueType


class Pca(Step):
    """The first `n_components` principal components of a whole vector block, as scikit-learn's PCA.

    The largest entry of each component is positive (the first of several equally large). Fitted: `components_`,
    `explained_variance_`, `explained_variance_ratio_`, `singular_values_`, `mean_`, `n_components_`,
    `n_features_in_`, `n_samples_`, `noise_variance_`.
    """

    name: ClassVar[str] = "pca"
    scalar: ClassVar[str | None] = "n_components"

    n_components: Annotated[int, Field(ge=1)]

    def kind(self, given: ValueType, index: int) -> ValueType:
        self.number_only(given)
        return given.become("float")

    def check_width(self, width: int) -> None:
        """Refuse more components than columns."""
        if self.n_components > width:
            raise Unfit(f"n_components is {self.n_components}, and the block has {width} columns; valid: 1 to {width}.")

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        raise NotImplementedError("pca works on a block: see project")

    def fit_block(self, covariance: Covariance, context: ErrorContext) -> Fitted:
        """Components from the block's covariance, float64. DataError with fewer than two rows."""
        count = covariance.count
        if count < max(2, self.n_components):
            raise DataError(
                f"There are {count:,} rows without nulls to fit {context} on, and {self.n_components} components need "
                f"{max(2, self.n_components)}. Look at `source.where` and `split.fit`."
            )
        matrix = covariance.products / (count - 1)
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
        return _named(values, vectors, covariance, self.n_components)

    @staticmethod
    def project(fitted: Fitted, block: Floats) -> Floats:
        """Rows [n, k] onto the components: [n, n_components], float64."""
        components = np.array(fitted["components_"])
        centred = block - np.array(fitted["mean_"])
        return np.asarray(np.einsum("nk,ck->nc", centred, components))  # einsum, not @: see Covariance


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


def stack(columns: Sequence[Floats]) -> Floats:
    """Columns of [n] or [n, k] side by side, [n, total]."""
    return np.column_stack(columns) if columns else np.empty((0, 0))
