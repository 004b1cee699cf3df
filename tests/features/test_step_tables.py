"""Every step of a job file has its entry in every table that is kept by step; a new step without one fails here.

A step needs: a maker of its estimator, a fit by dask-ml or scikit-learn if it can learn, and a line in the texts that
say how each step is fitted, exported and described, and a TensorFlow twin or the reason why it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import dtap_dask
from dtap_dask import docs
from dtap_dask.features import STEPS
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.registry import OPERATIONS, parse_operation
from dtap_dask.job.estimators import oracle
from dtap_dask.job.estimators.dask_ml import MAKERS
from dtap_dask.job.estimators.fits import FITS
from dtap_dask.train.serving.twins import TWINS
from reference_tables import UNWRITTEN

# The options that each step needs, and that make it learn if it can.
NEEDED = {
    "bucketize": {"quantiles": 4},
    "cast": {"dtype": "int64"},
    "clip": {"min": 0},
    "datetime_parts": {"extract": ["hour"]},
    "estimator": {"path": "sklearn.decomposition.FastICA"},
    "first": {"count": 2},
    "hash_encode": {"buckets": 8},
    "keyed": {"step": "maxabs_scale", "options": {"by": "k"}},
    "last": {"count": 2},
    "missing_indicator": {},
    "pad": {"length": 2},
    "text_hash": {"buckets": 8},
    "pad_mask": {"length": 2},
    "pca": {"n_components": 1},
}


def example(name: str) -> Operation:
    """The operation with the options that it needs."""
    return parse_operation(name, NEEDED.get(name, {}))


def mentions(text: str | None) -> Callable[[str], bool]:
    """Whether a text has a step's name."""
    return lambda name: f"{name}" in (text or "")


PAGE = (Path(docs.__file__).parent / "steps.md").read_text()
DIFFERENCES = PAGE.partition("## Differences from dask-ml and scikit-learn")[2]
TRANSFORM = (Path(docs.__file__).parent / "transform.md").read_text()


def mentions_row(table: str) -> Callable[[str], bool]:
    """Whether a table of docs/steps.md has a row of the step, all its cells filled in."""
    rows = PAGE.partition(f"<!-- table: {table} -->")[2].partition("<!-- end -->")[0].splitlines()
    return lambda name: any(row.startswith(f"| `{name}` |") and UNWRITTEN not in row for row in rows)


TABLES: dict[str, Callable[[str], bool]] = {
    "dask_ml.MAKERS": lambda name: OPERATIONS[name] in MAKERS,
    "fits.FITS": lambda name: (OPERATIONS[name] in FITS) == (example(name).statistic is not None),
    "the table of to_dask_ml": mentions(dtap_dask.to_dask_ml.__doc__),
    "the table of oracle.py": lambda name: name == "passthrough" or name in (oracle.__doc__ or ""),
    "twins.TWINS": lambda name: (OPERATIONS[name] in TWINS) != bool(example(name).without_twin),
    "the options in docs/steps.md": mentions_row("steps"),
    "the summary in docs/steps.md": mentions_row("summary"),
    "the differences in docs/steps.md": lambda name: any(
        f"`{name}`" in line.partition(":")[0] for line in DIFFERENCES.splitlines() if line.startswith("- ")
    ),
    "docs/transform.md": lambda name: f"| `{name}` |" in TRANSFORM,
}


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_in_every_table(name: str) -> None:
    lacking = [table for table, has in TABLES.items() if not has(name)]
    assert not lacking, f"step {name} is missing in {', '.join(lacking)}"


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - STEPS.keys()))
def test_operations_that_steps_become_have_estimators(name: str) -> None:
    assert OPERATIONS[name] in MAKERS
    assert (OPERATIONS[name] in FITS) == (example(name).statistic is not None)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_what_it_is(name: str) -> None:
    operation = example(name)
    assert OPERATIONS[name] is type(operation)
    assert type(operation).__doc__
    if operation.makes_ids:
        assert type(operation).ids is not Operation.ids
    if operation.fills:
        assert type(operation).filling is not Operation.filling
    if operation.is_linear:
        assert type(operation).linear is not Operation.linear
