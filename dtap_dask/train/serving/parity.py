"""Rows through a SavedModel and through dtap_dask.transform, compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from dtap_dask.apply.dataset import FittedFeatures
from dtap_dask.apply.parity import same_numbers
from dtap_dask.apply.rows import as_batch
from dtap_dask.errors import DataError, DtapError
from dtap_dask.features import Rows
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.info import FeatureInfo
from dtap_dask.train.serving.rows import made_up

ROWS = 32  # of the source

SourceRows = Callable[[Mapping[str, Any], Sequence[str], int], pa.Table]
"""(a job's document, columns, count) -> at most that many rows of the job's source."""


def parity(
    features: FittedFeatures, served: Callable[[pa.RecordBatch], Mapping[str, Any]], source: SourceRows | None
) -> dict[str, Any]:
    """How many rows differ between `served` and dtap_dask.transform, one by one.

    They are rows of the source, where `source` is given and can read it, and made-up rows. `refused` counts those that
    both refuse; a row that only one of them refuses differs.
    """
    taken, why = _taken(features, source)
    invented = list(made_up(features.raw.schema, features.features))
    wrong = [_wrong(features, served, row) for row in [*taken, *invented]]
    return {
        "rows": len(wrong),
        "of_source": len(taken),
        "made_up": len(invented),
        "source_not_read": why,
        "refused": sum(one is None for one in wrong),
        "differing": sum(bool(one) for one in wrong),
        "features": list(dict.fromkeys(name for names in wrong for name in names or ())),
    }


def _taken(features: FittedFeatures, source: SourceRows | None) -> tuple[list[pa.RecordBatch], str | None]:
    """Rows of the source, each by itself, or why there are none."""
    if source is None:
        return [], "not asked for"
    schema = features.raw.schema
    try:
        rows = as_batch(source(features.manifest.job, schema.names, ROWS), schema)
    except (DtapError, OSError) as error:
        return [], str(error)
    return [rows.slice(row, 1) for row in range(rows.num_rows)], None if rows.num_rows else "no rows pass source.where"


def _wrong(
    features: FittedFeatures, served: Callable[[pa.RecordBatch], Mapping[str, Any]], row: pa.RecordBatch
) -> list[str] | None:
    """The features that differ; None where both refuse the row."""
    wanted, made = _or_none(lambda: features.together.apply(row)), _or_none(lambda: served(row))
    if wanted is None and made is None:
        return None
    if wanted is None or made is None:
        return ["a refusal"]
    pairs = zip(features.infos, features.features.graph.outputs, strict=True)
    return [info.name for info, output in pairs if not _same(made, wanted, info, output)]


def _or_none(make: Callable[[], Any]) -> Any:
    """What is made, or None where rows are refused."""
    try:
        return make()
    except (DataError, OverflowError, tf.errors.InvalidArgumentError):
        return None


def _same(made: Mapping[str, Any], wanted: Rows, info: FeatureInfo, output: Output) -> bool:
    found, values = made[info.name].numpy(), wanted[info.name]
    if isinstance(values, pa.Array):
        plain = values.flatten() if info.shape == (None,) else values
        values = np.array(plain.to_pylist(), object if info.dtype == "bytes" else info.dtype)
    if info.dtype == "bytes" or np.dtype(info.dtype).kind != "f":
        return bool(np.array_equal(found, values))
    return found.shape == values.shape and bool(same_numbers(found.reshape(1, -1), values.reshape(1, -1), info, output))


def in_words(found: Mapping[str, Any]) -> str:
    """What `parity` has found, where nothing differs."""
    kinds = [f"{found['of_source']} rows of the source"] * bool(found["of_source"])
    rows = " and ".join([*kinds, f"{found['made_up']} made-up rows"])
    text = f"{rows} give what dtap_dask.transform gives ({found['refused']} are refused by both)."
    if found["source_not_read"]:
        text += f" Rows of the source were not compared: {found['source_not_read'].rstrip('.')}."
    return text
