"""Categories as what the label is on average: target encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array, Column, Floats, Numbers, numbers
from dtap_dask.features.statistics.labels import MOST_CLASSES, LabelCells, LabelMoments, LabelPart
from dtap_dask.features.steps.encode import Encoder, as_text, place_finder, refuse_many
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Need, Source, StatisticSpec, need_values
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe

GUESSED_CLASSES = (2, 64)


class TargetEncode(Encoder):
    """The mean of the label for each value, drawn towards the mean of all, as scikit-learn's TargetEncoder.

    The rows of the fitted part get what was learnt from the other folds, one of `cv`, so that no row sees its own
    label; all other rows get what was learnt from the whole fitted part. Null is a value of its own, and an unseen
    value gets the mean of all. Of classes it is their shares: one number for two, a vector in the order of the label's
    values for `multiclass`. Smoothing is that of Micci-Barreca, "A preprocessing scheme for high-cardinality
    categorical attributes" (2001): `auto` by the variances, or a number of rows with the mean of all.

    Fitted: `categories_`, `encodings_`, `fold_encodings_`, `target_mean_`, `fold_means_`, `classes_`.
    """

    name: ClassVar[str] = "target_encode"
    scalar: ClassVar[str | None] = "smooth"

    smooth: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "auto"
    cv: Annotated[int, Field(ge=2, le=100)] = 5
    target_type: Literal["continuous", "binary", "multiclass"] = "continuous"
    max_values: Annotated[int, Field(ge=1)] = 1_000_000

    def needs(self) -> Sequence[Need]:
        return ("label", Source.fold(self.cv))

    def check_input(self, given: ValueType) -> None:
        self.categories_only(given)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.categories_only(given)
        if others:  # without them it is of new rows
            self._check_label(others[0])
        width = 0 if self.target_type == "multiclass" else None
        return given.become("float", source=pa.float64(), nulls=frozenset(), width=width)

    def _check_label(self, label: ValueType) -> None:
        if not label.is_number:
            raise Unfit(
                f"{self.name} learns from a label that is one number a row, and it is {describe(label)}. Leave the "
                "feature out, or encode a label of classes with `ordinal_encode`."
            )
        if label.ids and self.target_type == "continuous":
            raise Unfit(
                f"{self.name} would take the mean of the label's ids, which are classes; valid: target_type binary or "
                "multiclass."
            )

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(LabelMoments, (self.cv, self.target_type != "continuous"))

    @property
    def keeps_nulls(self) -> bool:
        return False

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context)
        if statistic.inexact:
            raise DataError(
                f"The label that {context} learns from has values beyond 2^53, which float64 does not tell apart. Give "
                "the label `ordinal_encode`."
            )
        part = statistic.by_value()
        self._refuse(part, context)
        cells = part.cells
        if self.target_type == "binary":
            cells = cells.take((slice(None), slice(None), 1))
        if cells.count.ndim == 2:
            cells = cells.take((slice(None), slice(None), None))
        others = [
            _encoded(cells.take((slice(None), np.arange(self.cv) != fold)), self.smooth) for fold in range(self.cv)
        ]
        whole, mean = _encoded(cells, self.smooth)
        folds = np.concatenate([one for one, _ in others], axis=1)
        return {
            "categories_": as_text(part.values),
            "encodings_": pa.FixedSizeListArray.from_arrays(whole.ravel(), whole.shape[1]),
            "fold_encodings_": pa.FixedSizeListArray.from_arrays(folds.ravel(), folds.shape[1]),
            "target_mean_": tuple(mean.tolist()),
            "fold_means_": tuple(tuple(one.tolist()) for _, one in others),
            "classes_": tuple(part.labels.tolist()),
            "n_samples_seen_": statistic.count,
        }

    def _refuse(self, part: LabelPart, context: ErrorContext) -> None:
        refuse_many(
            part.values, self.max_values, context, "hash_encode or ordinal_encode with `top_k` and an embedding"
        )
        cells = part.cells.count
        rows = (cells if cells.ndim == 2 else cells[..., 0]).sum(0)
        if (rows == 0).any():
            raise DataError(
                f"{int((rows == 0).sum())} of the {self.cv} folds of {context}, have no row: there are "
                f"{int(rows.sum()):,} fitted rows. Lower `cv`, or look at `source.where`, `split.fit` and `split.key`."
            )
        classes = len(part.labels)
        if self.target_type != "continuous" and classes == 1:
            raise DataError(
                f"The label that {context} learns from has one value in the fitted rows, and target_type "
                f"{self.target_type} needs two. Look at `source.where` and `split.fit`, or leave the feature out."
            )
        if self.target_type == "binary" and classes != 2:
            raise DataError(
                f"The label that {context} learns from has {classes:,} values, and target_type binary needs 2. "
                "Use target_type continuous or multiclass."
            )
        if self.target_type == "multiclass" and classes > MOST_CLASSES:
            raise DataError(
                f"The label that {context} learns from has more than {MOST_CLASSES:,} values, which is the most "
                "for target_type multiclass. Use target_type continuous."
            )
        if not np.isfinite(part.cells.together(1).together(0).squares).all():
            raise DataError(f"The squares of the label that {context} learns from overflow float64. Scale the label.")

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return len(fitted["target_mean_"])

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        least, most = GUESSED_CLASSES if self.target_type == "multiclass" else (1, 1)
        return {"target_mean_": (0.0,) * least}, {"target_mean_": (0.0,) * most}

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        table = table_of(fitted)
        find = places_of(fitted["categories_"])
        whole = self.cv

        def apply(column: Column, label: Column | None = None, fold: Column | None = None) -> Column:
            folds: Any = whole
            if fold is not None:
                given = numbers(fold).values
                folds = np.where(given < 0, whole, given)
            found = table[find(column), folds]
            return Numbers(found if self.target_type == "multiclass" else found[:, 0])

        return apply


def table_of(fitted: Fitted) -> Floats:
    """The encodings as [values + 1, folds + 1, classes]: of the values, then of all others; without each fold, then of
    the whole fitted part."""
    mean, means = np.array(fitted["target_mean_"]), np.array(fitted["fold_means_"])
    size, classes = len(fitted["categories_"]), len(mean)
    table = np.empty((size + 1, len(means) + 1, classes))
    table[:size, :-1] = fitted["fold_encodings_"].flatten().to_numpy().reshape(size, len(means), classes)
    table[:size, -1] = fitted["encodings_"].flatten().to_numpy().reshape(size, classes)
    table[size, :-1], table[size, -1] = means, mean
    return table


def places_of(categories: pa.Array) -> Callable[[Column], Array]:
    """The place of each value among some, null being the last of these or none; their number for all others."""
    size = len(categories)
    return place_finder(categories.drop_null(), null=size - 1 if categories.null_count else size, unseen=size)


def _encoded(cells: LabelCells, smooth: float | str) -> tuple[Floats, Floats]:
    """The encodings [values, classes] from cells [values, folds, classes], and the mean of all [classes]."""
    of = cells.together(1)
    whole = of.together(0)
    if smooth != "auto":
        rows = of.count + float(smooth)
        sums = of.count * of.mean + float(smooth) * whole.mean
        return np.where(rows > 0, sums / np.where(rows > 0, rows, 1), whole.mean), whole.mean
    between = whole.squares / np.maximum(whole.count, 1) * of.count
    within = of.squares / np.maximum(of.count, 1)
    known = (of.count > 0) & (between + within > 0)
    share = np.where(known, between / np.where(known, between + within, 1), 0.0)
    return share * of.mean + (1 - share) * whole.mean, whole.mean
