"""Batches of NumPy arrays against those of TensorFlow's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtap_dask.loading.columns import Ragged


def same(ours: Any, theirs: Any) -> None:
    """A batch of NumPy's and one of TensorFlow's."""
    if ours is None:
        assert theirs is None
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for name, value in ours.items():
            same(value, theirs[name])
    elif isinstance(ours, Ragged):
        np.testing.assert_array_equal(ours.offsets, theirs.row_splits)
        same(ours.values, theirs.values)
    elif isinstance(ours, tuple):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(ours, theirs.numpy())
        assert ours.dtype == theirs.numpy().dtype
