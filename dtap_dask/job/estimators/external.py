"""Fits the step `estimator`: transformers of dask-ml on Dask arrays of all rows, others on the sample that `fused`
takes, too."""

from __future__ import annotations

from collections.abc import Sequence

import dask
import dask.array as da
import numpy as np
import pandas as pd

from dtap_dask.features.columns.column import Floats
from dtap_dask.features.engine.checks import infinite, is_testable
from dtap_dask.features.statistics.rows import RowSample
from dtap_dask.features.steps.estimator import Estimator
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.transformers import transformer
from dtap_dask.job.estimators.frames import Frames, Target, places_by_input


def transformers(frames: Frames, targets: Sequence[Target], rows: int) -> list[Fitted]:
    """The transformer itself; where it is of dask-ml on a Dask array with known chunks, of the rows without nulls."""
    return [_transformer(frames, target) for target in targets]


def _transformer(frames: Frames, target: Target) -> Fitted:
    step, context = target.step, target.context
    assert isinstance(step, Estimator)
    assert target.value.learns is not None
    parts = frames.floats(target.inputs).to_delayed()
    empty = target.value.learns.empty()
    samples = [dask.delayed(_sampled)(part, empty) for part in parts]
    sample: RowSample = dask.delayed(RowSample.merged)(samples).compute()
    if sample.infinities:
        testable = is_testable(target.value)
        raise infinite(sample.infinities, context.column, context.feature, step.name, testable=testable)
    if not step.by_dask or not sample.count:
        return step.fit(sample, context)
    blocks = [dask.delayed(_block)(part) for part in parts]
    shapes = dask.compute([dask.delayed(np.shape)(block) for block in blocks])[0]
    pairs = [(block, shape) for block, shape in zip(blocks, shapes, strict=True) if shape[0]]
    array = da.concatenate([da.from_delayed(block, shape, np.float64) for block, shape in pairs])
    with step.refusing(context, "be fitted"):
        found = transformer(step.path, step.parameters).fit(array)
    return step.learnt(found, sample, context)


def _sampled(frame: pd.DataFrame, empty: RowSample) -> RowSample:
    """The sample of a part, whose last column is the hash of each row."""
    sample = empty.empty()
    sample.widths = places_by_input(frame.columns[:-1])
    values = frame.to_numpy(np.float64)
    sample.add_rows(values[:, :-1] + 0.0, values[:, -1].astype(np.int64))
    return sample


def _block(frame: pd.DataFrame) -> Floats:
    """The rows of a part without nulls, without their hashes."""
    block: Floats = frame.iloc[:, :-1].dropna().to_numpy(np.float64)
    return block
