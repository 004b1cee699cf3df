"""Fewer numbers from many: the singular value decomposition, also of wide sparse vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Floats, Numbers, numbers
from dtap_dask.features.columns.onehot import is_sparse, sparse_rows
from dtap_dask.features.statistics.gram import Gram
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Inverse, Operation, StatisticSpec
from dtap_dask.features.steps.reduce import signed
from dtap_dask.features.steps.valuetype import Unfit, ValueType

MOST_DECOMPOSED = 2048  # places up to which all of the Gram matrix is decomposed; beyond by Lanczos' method
MOST_NUMBERS = 1 << 20  # in `components_`, which transform.json holds


class TruncatedSvd(Operation):
    """The first `n_components` right singular vectors of a block, as scikit-learn's TruncatedSVD: rows are not centred.

    Numbers, vectors of a fixed length and one-hot vectors, side by side; one-hot vectors and vectors of whole numbers
    of one or two bytes are never made dense. The largest entry of each component is positive. Fitted: `components_`,
    `explained_variance_`, `explained_variance_ratio_`, `singular_values_`, `n_features_in_`, `n_samples_`,
    and `input_widths_`: of each input how many places it has, 0 for a number that is no vector.
    """

    name: ClassVar[str] = "truncated_svd"
    scalar: ClassVar[str | None] = "n_components"
    on_block: ClassVar[bool] = True

    n_components: Annotated[int, Field(ge=1)] = 2

    def check_input(self, given: ValueType) -> None:
        if given.base != "onehot" and given.width is None:
            self.number_only(given)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        places = [one.width or 1 for one in (given, *others)]
        hot = any(one.base == "onehot" for one in (given, *others))
        if not hot and self.n_components > sum(places):
            raise Unfit(f"n_components is {self.n_components}, and the block has {sum(places)} columns; valid: 1 to "
                        f"{sum(places)}.")  # fmt: skip
        return given.joined(*others).become("float", source=pa.float64(), width=self.n_components)

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Gram)

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return self.n_components

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        self.refuse(statistic, context)
        values, vectors = _largest(statistic, self.n_components)
        vectors = signed(vectors.T[:, statistic.order])
        inner = vectors.T[np.argsort(statistic.order)]
        count = statistic.count
        variances = np.maximum((inner * statistic.times(inner, centred=True)).sum(axis=0), 0.0) / count
        total = statistic.variance
        return {
            "components_": tuple(map(tuple, vectors.tolist())),
            "explained_variance_": tuple(variances.tolist()),
            "explained_variance_ratio_": tuple((variances / total if total > 0 else variances).tolist()),
            "singular_values_": tuple(np.sqrt(np.maximum(values, 0.0)).tolist()),
            "n_features_in_": statistic.width,
            "n_samples_": count,
            "input_widths_": statistic.widths,
        }

    def refuse(self, statistic: Any, context: ErrorContext) -> None:
        """DataError for what cannot be decomposed."""
        kept, places = self.n_components, statistic.width
        if statistic.excess:
            raise DataError(
                f"The block of {context} has {statistic.excess}. Leave columns out, or use `ordinal_encode` with "
                "`top_k` and an embedding."
            )
        if statistic.count < kept:
            raise DataError(
                f"There are {statistic.count:,} rows without nulls to fit {context} on, and {kept} components need "
                f"{kept}. Look at `source.where` and `split.fit`."
            )
        if kept > places:
            raise DataError(f"The block of {context} has {places:,} places. Lower `n_components` from {kept} to at "
                            "most that.")  # fmt: skip
        if kept * places > MOST_NUMBERS:
            raise DataError(
                f"{kept} components of the {places:,} places of {context} are {kept * places:,} numbers, and at "
                f"most {MOST_NUMBERS:,} are possible. Lower `n_components` to {MOST_NUMBERS // places}."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            sums = [statistic.variance, *statistic.times(np.ones((places, 1)))[:, 0]]
        if not np.isfinite(sums).all():
            raise DataError(f"The squares of the values of {context} overflow float64. Scale them first.")

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        components = np.array(fitted["components_"])

        def apply(*columns: Column) -> Column:
            made, at = np.zeros((len(columns[0]), self.n_components)), 0
            for column in map(numbers, columns):
                part, places = _projected(column, components[:, at:])
                made += part
                at += places
            return Numbers(made)

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """As scikit-learn's inverse_transform: exact if as many components are kept as the block has places."""
        components, widths = np.array(fitted["components_"]), fitted["input_widths_"]

        def apply(column: Column) -> Sequence[Column]:
            block = np.einsum("nc,ck->nk", numbers(column).floats(), components)
            parts = np.split(block, np.cumsum([max(1, width) for width in widths])[:-1], axis=1)
            return [
                Numbers(np.ascontiguousarray(part if width else part[:, 0]))
                for part, width in zip(parts, widths, strict=True)
            ]

        return apply


def _projected(column: Numbers, components: Floats) -> tuple[Floats, int]:
    """The products [n, components] of a column, NaN in null rows, with the components from its place on; its places."""
    if is_sparse(column):
        rows = sparse_rows(column)
        made = np.asarray(rows @ np.ascontiguousarray(components[:, : rows.shape[1]].T))
        nulls = column.nulls()
        return (made if nulls is None else np.where(nulls[:, None], np.nan, made)), rows.shape[1]
    block = column.floats().reshape(len(column), -1)
    # einsum, not @: see Covariance
    return np.einsum("nk,ck->nc", block, components[:, : block.shape[1]]), block.shape[1]


def _largest(gram: Gram, count: int) -> tuple[Floats, Floats]:
    """The largest eigenvalues [count], falling, and their eigenvectors [k, count], in the order of `gram.order`."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import LinearOperator, eigsh

    places = gram.width
    if places <= MOST_DECOMPOSED or count >= places - 1:
        values, vectors = eigh(gram.times(np.eye(places)), subset_by_index=[places - count, places - 1])
    else:
        operator = LinearOperator(
            (places, places), matvec=lambda x: gram.times(x.reshape(-1, 1))[:, 0], dtype=np.float64
        )
        start = np.random.default_rng(0).uniform(-1, 1, places)  # always the same one
        values, vectors = eigsh(operator, k=count, v0=start)
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
    return values[::-1], vectors[:, ::-1]
