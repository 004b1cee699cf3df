"""Transformers that the step `estimator` refuses, each for its own reason, and one that it takes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

__version__ = "1.2.3"
CLOCK = time


class Doubling(TransformerMixin, BaseEstimator):
    """Twice the numbers, and in `seen_` what nobody else knows."""

    def fit(self, rows: Any, label: Any = None) -> Doubling:
        self.seen_ = {"largest": [float("inf"), None, True, (np.float32(1.5), np.dtype("i4"), float)], 3: rows.max(0)}
        return self

    def transform(self, rows: Any) -> Any:
        return rows * 2


class Drawing(Doubling):
    """Another factor at each fit."""

    def fit(self, rows: Any, label: Any = None) -> Drawing:
        self.factor_ = np.random.default_rng().random()
        return self

    def transform(self, rows: Any) -> Any:
        return rows * self.factor_


class Centring(Doubling):
    """A row depends on those beside it."""

    def transform(self, rows: Any) -> Any:
        return rows - rows.mean(axis=0)


class Holding(Doubling):
    """Learns an object of a class of its own."""

    def fit(self, rows: Any, label: Any = None) -> Holding:
        self.held_ = CLOCK
        return self


class Forgetful(Doubling):
    """Its result depends on what is not among its attributes."""

    learnt: Any = 1.0

    def fit(self, rows: Any, label: Any = None) -> Forgetful:
        self.rng_ = np.random.default_rng(0)
        return self

    def transform(self, rows: Any) -> Any:
        return rows * (2 if hasattr(self, "rng_") else 3)


class Labelled(Doubling):
    """Cannot do without a label."""

    def fit(self, rows: Any, label: Any) -> Labelled:
        return self


class Spelling(Doubling):
    """Makes text."""

    def transform(self, rows: Any) -> Any:
        return rows.astype(str)


class Missing(Doubling):
    """Makes NaN of what is small."""

    def transform(self, rows: Any) -> Any:
        return np.where(rows < -100, np.nan, rows)


class Untransforming(BaseEstimator):
    """Only fits."""

    def fit(self, rows: Any) -> Untransforming:
        return self


def function() -> None:
    """No class."""
