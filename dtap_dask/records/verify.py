"""Verification of a finished dataset: every file, record and row against the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from dtap_dask.errors import OutputError, VerificationError, did_you_mean
from dtap_dask.features.engine.transform import Rows
from dtap_dask.records import columns
from dtap_dask.records.commit import sidecar_path
from dtap_dask.records.example import decode_records
from dtap_dask.records.folder import MANIFEST, RUNS, SUCCESS
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.shard import ShardInfo
from dtap_dask.records.tfrecord import OVERHEAD, file_crc32c, read_records
from dtap_dask.storage import Store
from dtap_dask.words import count

_BATCH_BYTES = 4 << 20  # records decoded at once


@dataclass(frozen=True)
class Verified:
    """The amounts read and found right. `notes`: harmless findings, such as files that belong to no dataset."""

    shards: int
    records: int
    rows: int
    bytes: int
    notes: tuple[str, ...] = ()


def verify_dataset(store: Store, manifest: Manifest) -> Verified:
    """Read every shard again. Raises VerificationError with every problem found."""
    problems = [problem for shard in manifest.shards for problem in verify_shard(store, manifest, shard)]
    problems += [*_sidecar_problems(store, manifest), *_sum_problems(manifest)]
    if problems:
        raise VerificationError(
            f"The dataset in {store.url} is not what its manifest says: {'; '.join(problems)}. Copy it again, or write "
            "it again with `dtap-dask run JOB --overwrite`."
        )
    shards = manifest.shards
    return Verified(
        shards=len(shards),
        records=sum(shard.records for shard in shards),
        rows=sum(shard.rows for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        notes=_notes(store, manifest),
    )


def verify_shard(store: Store, manifest: Manifest, shard: ShardInfo) -> list[str]:
    """The first problem of one shard, if any: size, checksum, records, rows, record lengths, and decoding."""
    try:
        problem = _size_problem(shard, store.size(shard.path))
    except FileNotFoundError:
        problem = _size_problem(shard, None)
    if problem:
        return [problem]
    if file_crc32c(store, shard.path) != shard.crc32c:
        return [f"{shard.path} has another checksum"]
    lengths: list[int] = []
    rows = 0
    try:
        for batch in _batches(read_records(store, shard.path, manifest.compression)):
            lengths += [len(record) + OVERHEAD for record in batch]
            rows += columns.row_count(decode_records(manifest.infos, manifest.layout, batch))
    except OutputError as error:
        return [f"{shard.path}: {error}"]
    if (len(lengths), rows) != (shard.records, shard.rows):
        found = f"{count(len(lengths), 'record')} and {count(rows, 'row')}"
        return [f"{shard.path} has {found} instead of {shard.records:,} and {shard.rows:,}"]
    return [] if _lengths_match(shard, lengths) else [f"{shard.path} has records at other offsets"]


def quick_problems(store: Store, manifest: Manifest) -> list[str]:
    """The problems that names and sizes show: shards that are missing or of another size, and damaged sidecars.

    Shards are not read, which would take as long as writing them. Sidecars are, and their checksums are compared.
    """
    folders = sorted({shard.path.rpartition("/")[0] for shard in manifest.shards})
    sizes = {file.path: file.size for folder in folders for file in store.list_files(folder)}
    problems = [_size_problem(shard, sizes.get(shard.path)) for shard in manifest.shards]
    return [*filter(None, problems), *_sidecar_problems(store, manifest)]


def _size_problem(shard: ShardInfo, size: int | None) -> str | None:
    if size is None:
        return f"{shard.path} is missing"
    return None if size == shard.bytes else f"{shard.path} has {size:,} bytes instead of {shard.bytes:,}"


def _lengths_match(shard: ShardInfo, lengths: list[int]) -> bool:
    if shard.record_bytes is not None:
        return all(length == shard.record_bytes for length in lengths[:-1]) and lengths[-1] <= shard.record_bytes
    if shard.offsets is None:
        return True
    at = 0
    for offset, length in zip(shard.offsets, lengths, strict=True):
        if offset != at:
            return False
        at += length
    return True


def _batches(records: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sidecar_problems(store: Store, manifest: Manifest) -> list[str]:
    problems = []
    for sidecar in manifest.sidecars:
        try:
            sidecar_path(store, manifest, sidecar.path)
        except OutputError as error:
            problems.append(str(error))
    return problems


def _sum_problems(manifest: Manifest) -> list[str]:
    return [
        f"{MANIFEST}: the shards of {name!r} do not add up to its rows and records"
        for name, split in manifest.splits.items()
        if split.rows != sum(shard.rows for shard in split.shards)
        or split.records != sum(shard.records for shard in split.shards)
    ]


def _notes(store: Store, manifest: Manifest) -> tuple[str, ...]:
    known = {MANIFEST, SUCCESS, *manifest.files}
    others = [file.path for file in store.list_files(follow=False) if file.path not in known]
    notes = [f"{path} does not belong to the dataset" for path in others if not path.startswith(f"{RUNS}/")]
    staged = any("/commit/" in path for path in others)
    return (*notes, *(["an interrupted commit has files left to move: run the job again"] if staged else []))


def first_rows(store: Store, manifest: Manifest, split: str, rows: int) -> Rows:
    """The first `rows` rows of a split, columns in their stored dtypes. OutputError for an unknown split."""
    if split not in manifest.splits:
        raise OutputError(f"The dataset in {store.url} has no split {split!r}.{did_you_mean(split, manifest.splits)}")
    records = (
        record
        for shard in manifest.splits[split].shards
        for record in read_records(store, shard.path, manifest.compression)
    )
    at_once = rows if manifest.layout.kind == "rows" else -(-rows // manifest.layout.rows_per_record)
    parts = [decode_records(manifest.infos, manifest.layout, list(islice(records, at_once)))]
    while sum(map(columns.row_count, parts)) < rows and (more := list(islice(records, at_once))):
        parts.append(decode_records(manifest.infos, manifest.layout, more))  # the last block of a shard is not full
    return columns.cut(columns.join(parts), 0, rows)
