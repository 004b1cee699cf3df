"""Which reader this process is: from (index, count), an input context of tf.distribute, or TF_CONFIG."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from dtap_dask.loading.order.position import Readers

TF_CONFIG = "TF_CONFIG"
_TRAINING = ("chief", "worker")  # the tasks that train together, in the order in which TensorFlow numbers them
_CLUSTER = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


@runtime_checkable
class PipelineContext(Protocol):
    """What this package uses of a tf.distribute.InputContext: an input pipeline, and all replicas together."""

    @property
    def num_input_pipelines(self) -> int:
        """The number of input pipelines, usually one a process."""

    @property
    def input_pipeline_id(self) -> int:
        """The number of this one."""

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of replicas of all pipelines, each of which takes one batch a step."""


def readers_of(value: Any) -> Readers:
    """The readers that the argument `readers` names. ValueError, with what is wrong, for one that names none."""
    if value is None:
        return Readers()
    if isinstance(value, PipelineContext):
        return _of_context(value)
    if isinstance(value, str) and value == TF_CONFIG:
        return _of_environment()
    try:
        index, count = map(integer, value)
    except (TypeError, ValueError):
        index = count = None
    if index is None or count is None or not 0 <= index < count:
        raise ValueError(
            f"{value!r} is not (index, count) with an index from 0 to count - 1, such as (0, 4), nor a "
            f"tf.distribute.InputContext, nor {TF_CONFIG!r}"
        )
    return Readers(index, count)


def _of_context(context: PipelineContext) -> Readers:
    """A reader for each pipeline."""
    index, count, replicas = context.input_pipeline_id, context.num_input_pipelines, context.num_replicas_in_sync
    if not 0 <= index < count:
        raise ValueError(f"the input context is of pipeline {index}, but there are {count}, numbered from 0")
    if replicas < 1 or replicas % count:
        raise ValueError(
            f"the input context has {replicas} replicas for {count} input pipelines, so that these do not have equally "
            "many; give every process the same number of devices"
        )
    return Readers(index, count, replicas // count)


def _of_environment() -> Readers:
    """A reader for each task that trains, numbered as tf.distribute does: the chief, if there is one, then workers."""
    text = os.environ.get(TF_CONFIG)
    if not text:
        raise ValueError(f"the environment variable {TF_CONFIG} is not set; a cluster of two is {_CLUSTER}")
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{TF_CONFIG} is no JSON ({error}); a cluster of two is {_CLUSTER}") from None
    parts = [config.get(name) for name in ("cluster", "task")] if isinstance(config, Mapping) else [None, None]
    if not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"{TF_CONFIG} lacks a cluster or a task; a cluster of two is {_CLUSTER}")
    return _of_task(*parts)


def _of_task(cluster: Mapping[str, Any], task: Mapping[str, Any]) -> Readers:
    kind, index = task.get("type"), integer(task.get("index"))
    if "ps" in cluster:
        raise ValueError(
            f"the cluster in {TF_CONFIG} has parameter servers, whose workers get their rows from the coordinator; "
            "use tf.data service"
        )
    if kind == "evaluator":
        return Readers()  # it evaluates on its own, while the others train
    if kind not in _TRAINING:
        raise ValueError(
            f"the task in {TF_CONFIG} is of type {kind!r}, which is none of 'chief', 'worker', 'evaluator'"
        )
    tasks = {name: cluster.get(name, []) for name in _TRAINING}
    for name, addresses in tasks.items():
        if not isinstance(addresses, list):
            raise ValueError(f"the {name!r} of the cluster in {TF_CONFIG} is {addresses!r}, not a list of addresses")
    if index is None or not 0 <= index < len(tasks[kind]):
        raise ValueError(
            f"the task in {TF_CONFIG} is {kind} {task.get('index')!r}, but the cluster has {len(tasks[kind])} of that "
            "type, numbered from 0"
        )
    before = len(tasks["chief"]) if kind == "worker" else 0
    return Readers(before + index, sum(map(len, tasks.values())))


def integer(value: Any) -> int | None:
    """`value` as an int; None for anything else, booleans included."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
