"""`dtap_dask.torch_rows` under PyTorch's own samplers and DataLoader."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dtap_dask
from datasets import in_memory
from dtap_dask.errors import JobError, OutputError
from dtap_dask.loading.columns import Ragged
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, PLAIN, values, write

torch = pytest.importorskip("torch")
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
ROWS = 77


@pytest.fixture(scope="module", params=["blocks", "rows"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 47], Layout(request.param, 8), PLAIN)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 47], Layout("blocks", 8), INFOS)


def test_rows_are_those_of_batches_in_the_manifests_order(path: str) -> None:
    rows = dtap_dask.torch_rows(path, kept=True)
    assert len(rows) == ROWS
    (expected,) = dtap_dask.torch_batches(path, shuffle=False, kept=True)
    found = rows[range(ROWS)]
    for one, other in ((expected.batch.features, found.batch.features), (expected.kept, found.kept)):
        assert one.keys() == other.keys()
        assert all(torch.equal(column, other[name]) for name, column in one.items())
    assert torch.equal(expected.batch.label, found.batch.label)


def test_a_row_has_the_structure_of_a_batch(everything: str) -> None:
    rows = dtap_dask.torch_rows(everything, kept=True)
    for number in (0, 7, 40, -1, np.int64(5), torch.tensor(6)):
        batch, kept = rows[number]
        row = int(number) % ROWS
        assert kept["row"].shape == ()
        columns = {**batch.features, "late": batch.label, "weight": batch.weight, "row": kept["row"]}
        assert {*columns} == {info.name for info in INFOS}
        for name, value in columns.items():
            assert (value if isinstance(value, bytes) else value.tolist()) == values(name, [row])[0], name


def test_samplers_draw_rows_and_batches(path: str) -> None:
    rows = dtap_dask.torch_rows(path, kept=True)
    shuffled = DataLoader(rows, batch_size=10, shuffle=True)  # rows, collated by PyTorch
    seen = [number for _, kept in shuffled for number in kept["row"].tolist()]
    assert sorted(seen) == list(range(ROWS)) != seen
    at_once = DataLoader(rows, batch_size=None, sampler=BatchSampler(RandomSampler(rows), 10, False))
    seen = []
    for (features, label), kept in at_once:
        numbers = kept["row"].tolist()
        assert features["sizes"].tolist() == values("sizes", numbers)
        assert label.tolist() == values("late", numbers)
        seen += numbers
    assert sorted(seen) == list(range(ROWS)) != seen
    part = DataLoader(Subset(rows, [5, 76, 4]), batch_size=2)
    assert [kept["row"].tolist() for _, kept in part] == [[5, 76], [4]]


def test_workers_read_with_files_of_their_own(everything: str) -> None:
    rows = dtap_dask.torch_rows(everything, kept=True, ids="stored")
    before = rows[[3]]
    sampler = BatchSampler(range(ROWS), 20, False)
    data = DataLoader(rows, batch_size=None, sampler=sampler, num_workers=2, multiprocessing_context="fork")
    found = [*data]
    assert [number for _, kept in found for number in kept["row"].tolist()] == list(range(ROWS))
    assert isinstance(found[0].batch.features["words"], Ragged)
    assert found[0].batch.features["company"].dtype == torch.uint16
    assert found[0].batch.features["company"].to(torch.int32).tolist() == values("company", range(20))
    again = pickle.loads(pickle.dumps(rows))[[3]]
    assert again.kept["row"].tolist() == before.kept["row"].tolist() == [3]


def test_remote_shards_are_staged(everything: str, tmp_path: Path) -> None:
    with in_memory(everything, "memory://torch_rows") as url:
        rows = dtap_dask.torch_rows(url, kept=True, storage={"cache": {"path": str(tmp_path)}})
        assert rows[[50, 2]].kept["row"].tolist() == [50, 2]


def test_what_is_no_row_is_refused(path: str) -> None:
    rows = dtap_dask.torch_rows(path)
    for wrong in (ROWS, -ROWS - 1):
        with pytest.raises(IndexError, match=rf"there is no row {wrong}; the split 'train' has 77"):
            rows[wrong]
    with pytest.raises(IndexError):
        rows[[0, ROWS]]
    for wrong in (1.5, "x", [1.5], None, [[1]], True, [True]):
        with pytest.raises(TypeError, match="is neither the number of a row nor a list of them"):
            rows[wrong]
    assert rows[[]].label.shape == (0,)
    with pytest.raises(JobError, match="no feature 'fair'. Did you mean 'fare'"):
        dtap_dask.torch_rows(path, features=["fair"])
    with pytest.raises(JobError, match="has no split 'evil'"):
        dtap_dask.torch_rows(path, "evil")


def test_damage_reaches_the_loop(tmp_path: Path) -> None:
    path = write(tmp_path, [30], Layout("blocks", 8), PLAIN)
    (shard,) = tmp_path.glob("train/*")
    data = bytearray(shard.read_bytes())
    data[-8] ^= 1
    shard.write_bytes(data)
    rows = dtap_dask.torch_rows(path)
    assert rows[0].features["fare"] == 0
    options: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "fork"}
    with pytest.raises(OutputError, match=rf"{shard.name} is damaged: the checksum of record 3"):
        [*DataLoader(rows, batch_size=10, **options)]
