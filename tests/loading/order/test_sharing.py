"""The argument `readers`: input contexts of tf.distribute and TF_CONFIG, and the batches of several replicas."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.loading.order.position import Readers
from dtap_dask.loading.order.sharing import readers_of
from dtap_dask.records.example import Layout
from numbered_rows import PLAIN, write
from property_tests import examples


@dataclass
class Context:
    """A tf.distribute.InputContext without TensorFlow, which tests/train/test_several_workers.py uses."""

    num_input_pipelines: int
    input_pipeline_id: int
    num_replicas_in_sync: int


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 0, 1, 17], Layout("blocks", 8), PLAIN)


def rows_of(data: Any) -> list[list[int]]:
    return [kept["row"][batch[2] > 0].tolist() if len(batch) == 3 else kept["row"].tolist() for batch, kept in data]


@given(
    shards=st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any),
    pipelines=st.integers(1, 4),
    replicas=st.integers(1, 3),
    size=st.integers(1, 9),
    remainder=st.sampled_from([None, "pad", "repeat", "drop"]),
    taken=st.integers(0, 9),
)
@examples(0.3)
def test_replicas_have_equally_many_batches_and_each_row_once(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shards: list[int],
    pipelines: int,
    replicas: int,
    size: int,
    remainder: Any,
    taken: int,
) -> None:
    """Also where a state is continued after any batch; fewer rows and shards than readers included."""
    path, rows = write(tmp_path_factory.mktemp("data"), shards, Layout("blocks", 4), PLAIN), sum(shards)
    if remainder == "drop" and rows // pipelines < size * replicas:
        return
    found = []
    for index in range(pipelines):
        context = Context(pipelines, index, pipelines * replicas)
        options: dict[str, Any] = {"batch_size": size, "kept": True, "readers": context, "remainder": remainder}
        data = batches(path, **options)
        whole = rows_of(data)
        assert len(whole) == len(data)
        found.append(whole)
        iterator = iter(batches(path, **options))
        for _ in range(min(taken, len(whole))):
            next(iterator)
        again = batches(path, state=iterator.state(), **options)
        assert rows_of(again)[: len(whole)] == (whole[taken:] or rows_of(data))
    assert len({len(each) for each in found}) == 1
    if replicas > 1 or pipelines > 1 or remainder:
        assert len(found[0]) % replicas == 0
    every = sorted(row for each in found for batch in each for row in batch)
    if remainder == "repeat":
        assert {*every} == {*range(rows)}
    elif remainder == "drop":
        assert len({*every}) == len(every) == rows // pipelines // (size * replicas) * size * replicas * pipelines
    else:
        assert every == [*range(rows)]


@given(
    sessions=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), st.integers(0, 3)), min_size=2, max_size=4
    ),
    mixed=st.booleans(),
    remainder=st.sampled_from(["pad", "repeat", "drop"]),
)
@examples(0.5)
def test_steps_are_whole_for_other_replicas_and_batch_sizes_too(
    path: str, *, sessions: list[tuple[int, int, int, int]], mixed: bool, remainder: Any
) -> None:
    """Each session has pipelines, replicas of each, a batch size, and steps after which the next one continues."""
    data = Mixture({"one": Component(path), "other": Component(path, weight=2)}) if mixed else path
    state = None
    for pipelines, replicas, size, steps in sessions:
        left, states = set[int](), list[Any]()
        for index in range(pipelines):
            readers: Any = Context(pipelines, index, pipelines * replicas)
            options: dict[str, Any] = {"batch_size": size, "readers": readers, "remainder": remainder, "state": state}
            try:
                left.add(sum(1 for _ in batches(data, **options)))
            except DataError:
                assert remainder == "drop"
                return
            iterator = iter(batches(data, **options))
            for _ in itertools.islice(iterator, steps * replicas):
                pass
            states.append(iterator.state())
        (number,) = left
        assert number % replicas == 0
        state = states[0]
        assert "step" not in state
        assert states == [state] * pipelines


HOSTS = ["a:1", "b:1", "c:1"]


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "expected"),
    [
        ({"worker": HOSTS}, "worker", 2, Readers(2, 3)),
        ({"worker": HOSTS, "chief": ["d:1"]}, "chief", 0, Readers(0, 4)),
        ({"worker": HOSTS, "chief": ["d:1"]}, "worker", 0, Readers(1, 4)),
        ({"worker": HOSTS, "evaluator": ["d:1"]}, "evaluator", 0, Readers(0, 1)),
        ({"chief": ["d:1"]}, "chief", 0, Readers(0, 1)),
    ],
)
def test_tasks_of_tf_config(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, kind: str, index: int, expected: Readers
) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    assert readers_of("TF_CONFIG") == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "readers: the environment variable TF_CONFIG is not set"),
        ("{", "TF_CONFIG is no JSON"),
        ("[]", "TF_CONFIG lacks a cluster or a task; a cluster of two is"),
        ({"cluster": {"worker": HOSTS}}, "lacks a cluster or a task"),
        ({"cluster": {"worker": HOSTS}, "task": {"type": "worker", "index": 3}}, "is worker 3, but the cluster has 3"),
        ({"cluster": {"worker": HOSTS}, "task": {"type": "worker", "index": "0"}}, "is worker '0', but"),
        ({"cluster": {"worker": HOSTS}, "task": {"type": "chief", "index": 0}}, "is chief 0, but the cluster has 0"),
        ({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}, "is 'a:1', not a list of addresses"),
        ({"cluster": {"worker": HOSTS}, "task": {"type": "master", "index": 0}}, "is of type 'master', which is none"),
        ({"cluster": {"worker": HOSTS, "ps": HOSTS}, "task": {"type": "worker", "index": 0}}, "has parameter servers"),
    ],
)
def test_a_wrong_tf_config_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any, message: str
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(JobError, match=message):
        batches(tmp_path, readers="TF_CONFIG")


@pytest.mark.parametrize(
    ("readers", "message"),
    [
        (Context(2, 2, 2), "the input context is of pipeline 2, but there are 2"),
        (Context(2, 0, 3), "the input context has 3 replicas for 2 input pipelines"),
        ("tf_config", "'tf_config' is not .*, nor a tf.distribute.InputContext, nor 'TF_CONFIG'"),
    ],
)
def test_wrong_readers_are_refused(tmp_path: Path, readers: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        batches(tmp_path, readers=readers)


def test_too_few_rows_for_a_batch_of_each_replica_are_refused_where_they_would_be_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, [7], Layout("blocks", 4), PLAIN)
    with pytest.raises(DataError, match="incomplete batches of 8 rows drops them all"):
        batches(path, batch_size=4, readers=Context(1, 0, 2), remainder="drop")
