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
    from dtap_dask.train.feed_rate import FeedRate
    from dtap_dask.train.feed_warning import FeedWarning
    from dtap_dask.train.inputs import inputs
    from dtap_dask.train.load import load
    from dtap_dask.train.pytorch.datasets import torch_batches, torch_rows
    from dtap_dask.train.serving.layer import serving

__version__ = "0.1.0"

# Each public name is in three lists, for Python, for type checkers and for `import *`; a test compares them.
_MODULES = {
    "Backup": "dtap_dask.train.backup",
    "ClusterOptions": "dtap_dask.job.cluster.client",
    "Component": "dtap_dask.loading.mixture.component",
    "DtapError": "dtap_dask.errors",
    "FeedRate": "dtap_dask.train.feed_rate",
    "FeedWarning": "dtap_dask.train.feed_warning",
    "FittedState": "dtap_dask.features",
    "Job": "dtap_dask.job.jobfile.spec",
    "Manifest": "dtap_dask.records.manifest",
    "Mixture": "dtap_dask.loading.mixture.component",
    "Plan": "dtap_dask.job.planning.plan",
    "allow_estimators": "dtap_dask.features.steps.transformers",
    "batches": "dtap_dask.loading.batches",
    "inputs": "dtap_dask.train.inputs",
    "inverse": "dtap_dask.apply.inverse",
    "load": "dtap_dask.train.load",
    "plan": "dtap_dask.job.planning.describe",
    "read": "dtap_dask.job.read",
    "read_records": "dtap_dask.job.read_records",
    "run": "dtap_dask.job.running.run",
    "saved_state": "dtap_dask.train.backup",
    "serving": "dtap_dask.train.serving.layer",
    "submit": "dtap_dask.job.running.submit",
    "to_dask_ml": "dtap_dask.job.estimators.interop",
    "torch_batches": "dtap_dask.train.pytorch.datasets",
    "torch_rows": "dtap_dask.train.pytorch.datasets",
    "transform": "dtap_dask.apply.transform",
    "vocabulary": "dtap_dask.apply.vocabulary",
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
    if name not in _MODULES:
        raise AttributeError(f"module 'dtap_dask' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
