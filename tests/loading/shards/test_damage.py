"""`on_bad_record`: damaged records as errors with their place, or as padding, up to a bound."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from dtap_dask.errors import JobError, OutputError
from dtap_dask.loading.batches import batches
from dtap_dask.records.example import Layout
from dtap_dask.records.tfrecord import mask
from numbered_rows import INFOS, PLAIN, values, write

SHARDS = [30, 0, 1, 47]


def damaged(folder: Path, layout: Layout, infos: Any = PLAIN, *, foreign: bool = False) -> tuple[str, Path, set[int]]:
    """A dataset, a shard of it in which record 1 is damaged, and the numbers of that record's rows."""
    path = write(folder, SHARDS, layout, infos)
    shard = max(Path(path).glob("train/*.tfrecord"))
    _replace(shard, 1, foreign)
    rows = 8 if layout.kind == "blocks" else 1
    return path, shard, {31 + rows + row for row in range(rows)}


def _replace(shard: Path, record: int, foreign: bool) -> None:
    """Damage a byte of a record, or give it the right checksum around bytes that are no Example."""
    data, at = bytearray(shard.read_bytes()), 0
    for _ in range(record):
        at += 16 + struct.unpack_from("<Q", data, at)[0]
    (length,) = struct.unpack_from("<Q", data, at)
    if foreign:
        data[at + 12 : at + 12 + length] = b"\xff" * length
        struct.pack_into("<I", data, at + 12 + length, mask(google_crc32c.value(b"\xff" * length)))
    else:
        data[at + 12 + length // 2] ^= 1
    shard.write_bytes(data)


def skipping(path: str, **options: Any) -> Any:
    return batches(path, kept=True, batch_size=13, on_bad_record="skip", **options)


def rows_of(data: Any) -> list[int]:
    return [int(row) for (*_, weight), kept in data for row in kept["row"][weight > 0]]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*left out")
        yield


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("infos", [PLAIN, INFOS])
@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_all_other_rows_come_once_with_their_values(
    tmp_path: Path, *, foreign: bool, infos: Any, kind: Any, shuffle: bool
) -> None:
    path, _, lost = damaged(tmp_path, Layout(kind, 8), infos, foreign=foreign)
    data = skipping(path, shuffle=shuffle)
    for epoch in range(1, 3):
        found = list(data)
        assert sorted(rows_of(found)) == sorted({*range(78)} - lost)
        assert [len(kept["row"]) for _, kept in found] == [13] * 6
        for (features, _, weight), kept in found:
            sound = weight > 0
            assert features["fare"][sound].tolist() == values("fare", kept["row"][sound].tolist())
            assert not features["fare"][~sound].any()
            if infos is PLAIN:
                assert set(weight.tolist()) <= {0.0, 1.0}
        assert data.stats()["skipped_records"] == epoch


def test_rows_are_where_they_are_without_damage(tmp_path: Path) -> None:
    """The order, positions and sound rows are those of the whole dataset."""
    whole = write(tmp_path / "whole", SHARDS, Layout("blocks", 8), PLAIN)
    path, _, lost = damaged(tmp_path / "damaged", Layout("blocks", 8))
    before = [kept["row"] for _, kept in batches(whole, kept=True, batch_size=13, seed=3)]
    after = [kept["row"] for _, kept in skipping(path, seed=3)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.where(np.isin(one, list(lost)), 0, one), other)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("remainder", ["pad", "repeat", "drop"])
def test_readers_have_equal_numbers_of_batches(tmp_path: Path, count: int, remainder: str) -> None:
    path, _, lost = damaged(tmp_path, Layout("blocks", 8))
    each = [list(skipping(path, readers=(index, count), remainder=remainder)) for index in range(count)]
    assert len({len(found) for found in each}) == 1
    assert {len(kept["row"]) for found in each for _, kept in found} == {13}
    rows = [row for found in each for row in rows_of(found)]
    assert not lost & {*rows}
    if remainder == "pad":
        assert sorted(rows) == sorted({*range(78)} - lost)


def test_continues_from_every_state(tmp_path: Path) -> None:
    path, _, _ = damaged(tmp_path, Layout("blocks", 8))
    iterator = iter(skipping(path, seed=5))
    states, found = [], list[list[int]]()
    for _, kept in iterator:
        found.append(kept["row"].tolist())
        states.append(json.loads(json.dumps(iterator.state())))
    for number, state in enumerate(states[:-1], 1):
        rest = [kept["row"].tolist() for _, kept in skipping(path, seed=5, state=state)]
        assert rest == found[number:]


def test_one_warning_names_the_first(tmp_path: Path) -> None:
    path, shard, _ = damaged(tmp_path, Layout("rows"))
    _replace(shard, 5, False)
    data = skipping(path)
    with pytest.warns(UserWarning, match="are left out") as caught:
        assert len(list(data)) == len(list(data)) == 6
    (warning,) = caught
    assert f"{shard.name} is damaged: the checksum of record 1, at byte" in str(warning.message)
    assert "padding of weight 0, as are those of up to 100 damaged records" in str(warning.message)
    assert data.stats()["skipped_records"] == 4


def test_the_bound_counts_the_records_of_an_epoch(tmp_path: Path) -> None:
    path, shard, lost = damaged(tmp_path, Layout("rows"))
    _replace(shard, 5, False)
    data = batches(path, kept=True, on_bad_record={"skip": 2})
    for _ in range(2):
        assert sorted(rows_of(data)) == sorted({*range(78)} - lost - {36})
    with pytest.raises(OutputError, match=r"checksum of record 5, at byte .*allows 1 damaged records"):
        list(batches(path, on_bad_record={"skip": 1}))


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_by_default_the_error_names_shard_record_and_byte(tmp_path: Path, kind: Any, foreign: bool) -> None:
    path, shard, _ = damaged(tmp_path, Layout(kind, 8), foreign=foreign)
    why = "A record does not hold the columns" if foreign else "is wrong"
    with pytest.raises(OutputError, match=rf"{shard.name}.* record 1, at byte \d+.*{why}"):
        list(batches(path, shuffle=False))


def test_all_records_of_a_shard_that_cannot_be_decompressed_count(tmp_path: Path) -> None:
    path = write(tmp_path, SHARDS, Layout("blocks", 8, "gzip"), PLAIN)
    shard = max(Path(path).glob("train/*"))
    data = bytearray(shard.read_bytes())
    data[:2] = b"xx"
    shard.write_bytes(data)
    loader = skipping(path)
    assert sorted(rows_of(loader)) == list(range(31))
    assert loader.stats()["skipped_records"] == 6
    with pytest.raises(OutputError, match=f"{shard.name} is damaged: it cannot be decompressed.*allows 5"):
        list(batches(path, on_bad_record={"skip": 5}))


def test_a_missing_shard_is_always_an_error(tmp_path: Path) -> None:
    path, shard, _ = damaged(tmp_path, Layout("blocks", 8))
    data = skipping(path)
    shutil.move(shard, tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=f"{shard.name} cannot be opened"):
        list(data)


@pytest.mark.parametrize("wrong", ["ignore", None, {"skip": 0}, {"skip": "all"}, {"skip": True}, {"keep": 3}, 5])
def test_other_choices_are_refused(tmp_path: Path, wrong: Any) -> None:
    path = write(tmp_path, SHARDS, Layout("blocks", 8), PLAIN)
    with pytest.raises(JobError, match=r"on_bad_record: .* is not 'error', 'skip' or a number of records in an epoch"):
        batches(path, on_bad_record=wrong)
