"""From a Parquet lake on DataTap or HDFS to a TensorFlow training loop, in one Dask job.

Names are loaded when they are first used, so that importing this package imports neither Dask nor TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtap_dask.apply.inverse import inverse
    from dtap_dask.apply.transform import transform
    from dtap_dask.apply.vocabulary import vocabulary
    from dtap_dask.errors import DtapError
    from dtap_dask.features import FittedState
    from dtap_dask.features.steps.transformers import allow_estimators
    from dtap_dask.job.cluster.client import ClusterOptions
    from dtap_dask.job.estimators.interop import to_dask_ml
    from dtap_dask.job.jobfile.spec import Job
    from dtap_dask.job.planning.describe import plan
    from dtap_dask.job.planning.plan import Plan
    from dtap_dask.job.read import read
    from dtap_dask.job.read_records import read_records
    from dtap_dask.job.running.run import run
    from dtap_dask.job.running.submit import submit
    from dtap_dask.loading.batches import batches
    from dtap_dask.loading.mixture.component import Component, Mixture
    from dtap_dask.records.manifest import Manifest
    from dtap_dask.train.backup import Backup, saved_state
    from dtap_dask.train.feed_rate import FeedRate, FeedWarning
    from dtap_dask.train.inputs import inputs
    from dtap_dask.train.load import load
    from dtap_dask.train.pytorch.datasets import torch_batches, torch_rows
    from dtap_dask.train.serving.layer import serving

__version__ = "0.1.0"

_HOMES = {
    "Backup": ("dtap_dask.train.backup", "Backup"),
    "ClusterOptions": ("dtap_dask.job.cluster.client", "ClusterOptions"),
    "Component": ("dtap_dask.loading.mixture.component", "Component"),
    "DtapError": ("dtap_dask.errors", "DtapError"),
    "FeedRate": ("dtap_dask.train.feed_rate", "FeedRate"),
    "FeedWarning": ("dtap_dask.train.feed_rate", "FeedWarning"),
    "FittedState": ("dtap_dask.features", "FittedState"),
    "Job": ("dtap_dask.job.jobfile.spec", "Job"),
    "Manifest": ("dtap_dask.records.manifest", "Manifest"),
    "Mixture": ("dtap_dask.loading.mixture.component", "Mixture"),
    "Plan": ("dtap_dask.job.planning.plan", "Plan"),
    "allow_estimators": ("dtap_dask.features.steps.transformers", "allow_estimators"),
    "batches": ("dtap_dask.loading.batches", "batches"),
    "inverse": ("dtap_dask.apply.inverse", "inverse"),
    "inputs": ("dtap_dask.train.inputs", "inputs"),
    "load": ("dtap_dask.train.load", "load"),
    "plan": ("dtap_dask.job.planning.describe", "plan"),
    "read": ("dtap_dask.job.read", "read"),
    "read_records": ("dtap_dask.job.read_records", "read_records"),
    "run": ("dtap_dask.job.running.run", "run"),
    "saved_state": ("dtap_dask.train.backup", "saved_state"),
    "serving": ("dtap_dask.train.serving.layer", "serving"),
    "submit": ("dtap_dask.job.running.submit", "submit"),
    "to_dask_ml": ("dtap_dask.job.estimators.interop", "to_dask_ml"),
    "torch_batches": ("dtap_dask.train.pytorch.datasets", "torch_batches"),
    "torch_rows": ("dtap_dask.train.pytorch.datasets", "torch_rows"),
    "transform": ("dtap_dask.apply.transform", "transform"),
    "vocabulary": ("dtap_dask.apply.vocabulary", "vocabulary"),
}

__all__ = [
    "Backup",
    "ClusterOptions",
    "Component",
    "DtapError",
    "FeedRate",
    "FeedWarning",
    "FittedState",
    "Job",
    "Manifest",
    "Mixture",
    "Plan",
    "allow_estimators",
    "batches",
    "inputs",
    "inverse",
    "load",
    "plan",
    "read",
    "read_records",
    "run",
    "saved_state",
    "serving",
    "submit",
    "to_dask_ml",
    "torch_batches",
    "torch_rows",
    "transform",
    "vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dtap_dask' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
