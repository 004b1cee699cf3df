"""target_encode with scikit-learn's TargetEncoder: fitted by it, and as one of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.preprocessing import TargetEncoder

from dtap_dask.features.columns.arrow import from_arrow
from dtap_dask.features.columns.column import Column, Floats, Numbers, Text
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.target import TargetEncode
from dtap_dask.features.steps.valuetype import ValueType
from dtap_dask.job.estimators.frames import Frames, Target


def target_means(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """scikit-learn's TargetEncoder on the one column, gathered by a worker, and on what each fold leaves."""
    found = []
    for target in targets:
        parts = frames.rows(target.inputs).to_delayed()
        found.append(dask.delayed(_fitted)(parts, target).compute())
    return found


def _fitted(parts: Sequence[pd.DataFrame], target: Target) -> Fitted:
    step, rows = target.step, pd.concat(parts, ignore_index=True)
    assert isinstance(step, TargetEncode)
    assert target.value.learns is not None
    statistic = target.value.learns.empty()
    kind = target.inputs[0].type
    rows["0"] = parsed(rows["0"], kind)
    others = [Sample(Numbers(rows[name].to_numpy())) for name in ("1", "2")]
    statistic.add(Sample(column_of(rows["0"], kind)), *others)
    statistic.settle()
    fitted = step.fit(statistic, target.context)  # says what cannot be learnt from
    indicators = _indicators(step, rows["1"].to_numpy(), fitted["classes_"])
    values, folds = rows[["0"]].to_numpy(), rows["2"].to_numpy()
    whole = _learnt(step, values, indicators)
    known = whole[0].categories_[0][:, None].astype(object)
    without = [_learnt(step, values[folds != fold], indicators[folds != fold]) for fold in range(step.cv)]
    means = [tuple(float(one.target_mean_) for one in part) for part in (whole, *without)]
    encodings = [np.column_stack([one.transform(known) for one in part]) for part in (whole, *without)]
    return {
        **fitted,
        "encodings_": _lists(encodings[0]),
        "fold_encodings_": _lists(np.concatenate(encodings[1:], axis=1)),
        "target_mean_": means[0],
        "fold_means_": tuple(means[1:]),
    }


def _indicators(step: TargetEncode, labels: Floats, classes: Sequence[float]) -> Floats:
    """The labels as float64 [rows, 1]; classes as indicators: of the greater of two [rows, 1], or of each
    [rows, classes]. scikit-learn would number the classes of each fold anew, and refuses two with `multiclass`."""
    if step.target_type == "continuous":
        return labels[:, None]
    return np.column_stack([labels == one for one in classes[step.target_type == "binary" :]]).astype(np.float64)


def _learnt(step: TargetEncode, values: Any, indicators: Floats) -> list[Any]:
    return [TargetEncoder(smooth=step.smooth, target_type="continuous").fit(values, one) for one in indicators.T]


def _lists(block: Any) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(block, np.float64).ravel(), block.shape[1])


def parsed(spelled: Any, kind: ValueType) -> Any:
    """The values that a column of `Frames.rows` spells: bytes or integers, and None."""
    of = _bytes if kind.base == "text" else int
    return pd.Series([None if pd.isna(one) else of(one) for one in spelled], dtype=object)


def _bytes(letters: str) -> bytes:
    return letters.encode("latin-1")


def column_of(values: Any, kind: ValueType) -> Column:
    """A column of what `parsed` gives."""
    values = values.tolist()
    if kind.base == "text":
        return Text(pa.array(values, pa.large_binary()))
    plain = pa.uint8() if kind.base == "bool" else pa.int64()
    dtype = kind.source if pa.types.is_integer(kind.source) else plain
    return from_arrow(pa.array(values, dtype))


def _as_in_pandas(categories: pa.Array, given: ValueType) -> Any:
    """The categories in the dtype of such a column: NaN is null, and None among booleans."""
    if given.base == "text":
        return np.array([np.nan if one is None else one for one in categories.to_pylist()], object)
    if given.base == "bool":
        known = [None if one is None else bool(one) for one in categories.to_pylist()]
        return np.array(known, object if categories.null_count else np.bool_)
    return np.asarray(categories.to_numpy(zero_copy_only=False))


def target_encoder(step: TargetEncode, fitted: Fitted, columns: Sequence[str], given: ValueType) -> Any:
    """The fitted TargetEncoder: its `transform` gives what rows outside the fitted part get."""
    values = _as_in_pandas(fitted["categories_"], given)
    classes = fitted["classes_"] or (0.0, 1.0)
    several = (0.0, 1.0, 2.0) if step.target_type == "multiclass" else classes  # scikit-learn refuses two
    labels = np.resize(several, max(len(values), len(several)))
    frame = pd.DataFrame({columns[0]: np.resize(values, len(labels))}, dtype=values.dtype)
    encoder = TargetEncoder(smooth=step.smooth, target_type=step.target_type, cv=step.cv)
    encoder.set_output(transform="pandas").fit(frame, labels)  # the least data that gives all attributes
    encoder.categories_ = [values]
    encoder.encodings_ = list(np.array(fitted["encodings_"].to_pylist()).T)
    if step.target_type == "multiclass":
        encoder.classes_ = np.array(classes)
    mean = np.array(fitted["target_mean_"])
    encoder.target_mean_ = mean if step.target_type == "multiclass" else mean[0]
    return encoder
