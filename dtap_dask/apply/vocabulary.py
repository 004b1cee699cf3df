"""`dtap_dask.vocabulary`: what the ids of a feature, or the classes of a label, stand for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dtap_dask.apply.dataset import FittedFeatures, open_features
from dtap_dask.errors import JobError, Problem, did_you_mean
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.encode import OneHotEncode
from dtap_dask.features.steps.multihot import MultiHot
from dtap_dask.features.steps.operation import Fitted, Source
from dtap_dask.features.steps.ordinal import OrdinalEncode

_LISTS = ("vocabulary", "categories_")
_ENCODERS = (OrdinalEncode, OneHotEncode, MultiHot)


def vocabulary(path: str | os.PathLike[str], feature: str, *, storage: Mapping[str, Any] | None = None) -> pa.Table:
    """The values of a feature or label that holds ids, one-hot or multi-hot vectors, or classes, in the order of ids.

    An Arrow Table with the columns `id` (int64: the id, or the place in the vector), `value` (text, bytes or
    integers as in the lake) and, where they were counted, `count` (int64: how often each occurs in the fitted part).
    Ids below the first one are that of null (0) and those of values outside the vocabulary. `storage` is the job's
    `storage` section.

    Raises OutputError where there is no finished dataset, JobError for a name that is not there or holds no such ids.
    """
    opened = open_features(path, storage)
    output = find_output(opened, feature)
    found = [value for value in output.values if encoder_of(value, opened)]
    if len(found) != 1 or len(output.values) != 1:
        raise JobError(
            Problem("feature", f"{feature!r} has no vocabulary: only the ids and vectors that "
                    f"{', '.join(one.name for one in _ENCODERS)} learn from one column have one.")
        )  # fmt: skip
    [encoder] = [encoder_of(value, opened) for value in found]
    assert encoder is not None
    return _table(encoder, opened.state.fitted[encoder])


def find_output(opened: FittedFeatures, name: str) -> Output:
    """The output of that name. JobError where there is none."""
    outputs = {output.name: output for output in opened.state.graph.outputs}
    if name not in outputs:
        raise JobError(Problem("feature", f"the dataset has no column {name!r}.{did_you_mean(name, outputs)}"))
    return outputs[name]


def encoder_of(value: Value, opened: FittedFeatures) -> Value | None:
    """The value whose ids or places these still are; None where there is none."""
    while not isinstance(value.operation, Source):
        learnt = opened.state.fitted.get(value, {})
        if isinstance(value.operation, _ENCODERS) and any(name in learnt for name in _LISTS):
            return value
        has_ids_as_places = isinstance(value.operation, MultiHot) and value.operation.places is not None
        if not (value.operation.keeps_ids or has_ids_as_places):
            return None
        [value] = value.inputs
    return None


def _table(encoder: Value, fitted: Fitted) -> pa.Table:
    words = next(fitted[name] for name in _LISTS if name in fitted)
    first = getattr(encoder.operation, "first_id", 0)
    table = pa.table({"id": pa.array(range(first, first + len(words)), pa.int64()), "value": words})
    return table.append_column("count", fitted["counts"]) if "counts" in fitted else table
