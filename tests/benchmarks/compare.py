"""The same numbers before the same clock: what a dataset holds, in a form that does not depend on order or ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import dtap_dask
from lake import CATEGORIES, NUMBERS
from loading import SPEC

Summary = dict[str, Any]


def summary_of_loaded(dataset: Path) -> Summary:
    """The summary of a dataset of ours, through dtap_dask.load."""
    batches = dtap_dask.load(dataset, split="train", batch_size=4096, shuffle=False)
    return _summary([{**features, "label": label} for features, label in batches])


def summary_of_records(dataset: Path) -> Summary:
    """The summary of any folder of one-feature-a-column records, through TensorFlow alone."""
    files = sorted(map(str, dataset.rglob("*.tfrecord")))
    batches = tf.data.TFRecordDataset(files).batch(4096).map(lambda records: tf.io.parse_example(records, SPEC))
    return _summary(list(batches))


def difference(ours: Summary, theirs: Summary) -> str | None:
    """The first value in which two summaries differ by more than float32's rounding; None if there is none."""
    for name, value in theirs.items():
        if not np.allclose(ours[name], value, rtol=1e-4, atol=1e-4):
            return f"{name}: {ours[name]} against {value}"
    return None


def _summary(batches: list[dict[str, Any]]) -> Summary:
    """Rows and positive labels; mean, deviation, least and greatest of each number; how often each id of a category
    occurs, rarest first, so that two encoders may number the values as they like.
    """
    columns = {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in SPEC}
    found: Summary = {"rows": len(columns["label"]), "positive": float(columns["label"].sum())}
    for name in NUMBERS:
        values = columns[name].astype(np.float64)
        found[name] = [float(f(values)) for f in (np.mean, np.std, np.min, np.max)]
    for name in CATEGORIES:
        found[f"{name}_values"] = len(np.unique(columns[name]))
        found[f"{name}_counts"] = np.sort(np.unique(columns[name], return_counts=True)[1]).tolist()
    return found
