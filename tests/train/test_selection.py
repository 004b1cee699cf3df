"""`load` chooses the rows that `batches` does, resumes among them, and says where it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from dtap_dask.errors import JobError
from dtap_dask.loading.batches import batches
from dtap_dask.records.example import Layout
from dtap_dask.train.load import load
from numbered_rows import PLAIN, write
from same_batches import same

SHARDS = [30, 0, 1, 47]
CHOICE: dict[str, Any] = {"skip": 4, "take": 70, "where": '"row" % 7 <> 2', "resample": {True: 2.5, False: 0.6}}


@pytest.mark.parametrize(
    ("kind", "compression", "options"),
    [
        ("blocks", "none", {**CHOICE, "class_weights": "balanced", "kept": True}),
        ("rows", "gzip", {**CHOICE, "class_weights": {True: 0.1}, "readers": (1, 3)}),
        ("rows", "none", {"skip": 40, "features": ["words", "fare"], "kept": True}),
        ("blocks", "gzip", {"resample": "balanced", "features": ["fare"], "label": False, "as_vectors": True}),
        ("blocks", "none", {**CHOICE, "features": ["note"], "class_weights": {1: 3}, "remainder": "pad"}),
    ],
)
def test_load_gives_what_batches_gives(tmp_path: Path, kind: Any, compression: Any, options: dict[str, Any]) -> None:
    """In two epochs, of rows with a weight of their own, and texts and lists."""
    path = write(tmp_path, SHARDS, Layout(kind, 8, compression))
    ours, theirs = (make(path, batch_size=13, **options) for make in (batches, load))
    assert len(ours) == len(theirs)
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), SHARDS, Layout("blocks", 8), PLAIN)


def test_matrices_are_weighted_too(path: str) -> None:
    """Of rows without a weight, texts and lists, in whole matrices."""
    for options in ({"class_weights": "balanced"}, {**CHOICE, "class_weights": {1: 0.3}, "as_vectors": True}):
        ours, theirs = (list(make(path, batch_size=13, kept=True, **options)) for make in (batches, load))
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)


def test_states_and_checkpoints_continue(path: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {**CHOICE, "batch_size": 13, "kept": True}

    def rows_of(data: Any) -> list[int]:
        return [int(row) for _, kept in data for row in kept["row"]]

    whole = rows_of(batches(path, **options))
    iterator = iter(load(path, **options))
    taken = rows_of(next(iterator) for _ in range(2))
    state = json.loads(json.dumps(iterator.state()))
    assert taken + rows_of(load(path, state=state, **options)) == whole
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    again = iter(load(path, **options))
    tf.train.Checkpoint(iterator=again).restore(saved)
    assert taken + rows_of(again) == whole
    with pytest.raises(JobError, match=r"state\.skip: the state is of 4, but this is 0; give the same `skip`"):
        load(path, state=state)


def test_the_service_does_not_choose_rows(path: str) -> None:
    service = tf.data.experimental.service.distribute("distributed_epoch", "grpc://localhost:1")
    with pytest.raises(JobError) as caught:
        load(path, class_weights={1: 2}, **CHOICE).apply(service)
    for name in ("skip", "take", "where", "resample", "class_weights"):
        assert f"{name}: the workers of tf.data service read whole shards" in str(caught.value)
