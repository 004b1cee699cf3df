"""Categories as how often they occur."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dtap_dask.features.columns.column import Array, Numbers
from dtap_dask.features.steps.encode import VocabularyEncoder, as_text, place_finder, refuse_many
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, need_values
from dtap_dask.features.steps.valuetype import ValueType


class CountEncode(VocabularyEncoder):
    """How often the value occurs in the fitted rows, or with `normalize` in which share of them.

    Null is a value of its own; values that do not occur give 0. Fitted: `categories_`, `counts_`, `null_count_`,
    `n_samples_seen_`, the number of fitted rows.
    """

    name: ClassVar[str] = "count_encode"
    scalar: ClassVar[str | None] = "normalize"

    normalize: bool = False
    max_values: Annotated[int, Field(ge=1)] = 1_000_000

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.categories_only(given)
        if self.normalize:
            return given.become("float", source=pa.float64(), nulls=frozenset())
        return given.become("int", source=pa.int64(), nulls=frozenset())

    @property
    def keeps_nulls(self) -> bool:
        return False

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context)
        values, counts = statistic.by_value()
        refuse_many(values, self.max_values, context, "hash_encode or ordinal_encode with `top_k` and an embedding")
        return {
            "categories_": as_text(values),
            "counts_": pa.array(counts, pa.int64()),
            "null_count_": statistic.nulls,
            "n_samples_seen_": statistic.count + statistic.nulls,
        }

    def table(self, fitted: Fitted) -> Array:
        """What each category gives, then null, then all others: [categories + 2]."""
        counts = np.append(fitted["counts_"].to_numpy(), [fitted["null_count_"], 0])
        return counts / max(1, fitted["n_samples_seen_"]) if self.normalize else counts

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        table, size = self.table(fitted), len(fitted["categories_"])
        find = place_finder(fitted["categories_"], null=size, unseen=size + 1)
        return lambda column: Numbers(table[find(column)])
