"""From attempts to a dataset: shards are published one by one, then one atomic rename of the manifest commits them all.

In this order, in the paths of folder.py:

1. Each task writes its shards into the folder of an attempt, moves every one to its final path (no manifest lists it
   yet), and records the task as finished, with the shards' sizes and checksums.
2. Sidecars are written into the commit folder, and commit.json beside them: the checksum of the new manifest, and the
   files of the old dataset to delete.
3. The manifest is renamed to manifest.json: THE COMMIT.
4. Sidecars and _SUCCESS are moved beside it, files of the old dataset are deleted, and the run's folder is.

A crash before 3 leaves the old dataset whole. A crash after it leaves steps that `finish_commit` repeats; until then
`sidecar_path` finds every sidecar of the new manifest.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c

from dtap_dask.errors import OutputError, StorageError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.first_rows import NotedRows, RowRecorder
from dtap_dask.records.folder import MANIFEST, RUNS, SUCCESS, RunPaths, may_be_of_dataset, run_of
from dtap_dask.records.manifest import Manifest, Sidecar
from dtap_dask.records.manifest_read import present_manifest
from dtap_dask.records.shard import WINDOW_ROWS, AssignedRows, ShardInfo, Shuffle, TaskShards, write_shards
from dtap_dask.records.tfrecord import file_crc32c
from dtap_dask.storage import Store
from dtap_dask.storage.safe_json import parse_json
from dtap_dask.words import count


def run_write_task(
    store: Store,
    run_id: str,
    plan: TaskShards,
    batches: Iterable[AssignedRows],
    *,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    shuffle: Shuffle = "mixed",
    seed: int = 0,
    window: int = WINDOW_ROWS,
    recorder: RowRecorder | None = None,
) -> tuple[ShardInfo, ...]:
    """Write one task's shards under their final names, unless they are there already; running it twice is harmless.

    `batches` is read only if there is something to do; what `recorder` notes then is kept for `noted_rows`. Raises
    what `write_shards` raises, and OutputError where the present dataset has a shard of the same name with other
    bytes.
    """
    done = completed_task(store, run_id, plan)
    if done is not None:
        return done
    attempt = RunPaths(run_id).new_attempt(plan.task)
    try:
        shards = write_shards(
            store,
            attempt,
            plan,
            batches,
            infos=infos,
            layout=layout,
            shuffle=shuffle,
            seed=seed,
            window=window,
            recorder=recorder,
        )
        for shard in shards:
            _publish(store, attempt, shard)
    finally:
        with contextlib.suppress(
            OSError, StorageError
        ):  # the first error matters more; `sweep` and the commit remove it
            store.delete_tree(attempt)
    record = {"shards": [shard.to_json() for shard in shards], "first": first_to_json(recorder)}
    store.write_atomic(RunPaths(run_id).task(plan.task), json.dumps(record).encode())
    return shards


def completed_task(store: Store, run_id: str, plan: TaskShards) -> tuple[ShardInfo, ...] | None:
    """The shards of a task that an earlier attempt finished, their checksums verified; None if the task must run.

    A task whose record is damaged must run again.
    """
    try:
        record = parse_json(store.read_bytes(RunPaths(run_id).task(plan.task)))
        shards = tuple(map(ShardInfo.from_json, record["shards"]))
        _noted(record)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    planned = [
        (path, name, rows)
        for split, name in enumerate(plan.splits)
        for path, rows in zip(plan.shards[split], plan.rows_per_shard(split), strict=True)
    ]
    same = [(shard.path, shard.split, shard.rows) for shard in shards] == planned
    return shards if same and all(is_intact(store, shard) for shard in shards) else None


def first_to_json(recorder: RowRecorder | None) -> dict[str, Any] | None:
    """What a recorder has noted, as a task's record has it."""
    return recorder.noted.to_json() if recorder is not None and recorder.noted is not None else None


def _noted(record: Mapping[str, Any]) -> NotedRows | None:
    return NotedRows.from_json(record["first"]) if record["first"] is not None else None


def noted_rows(store: Store, record: str) -> NotedRows | None:
    """What the record of a finished task has of its first rows; None where nothing was noted."""
    return _noted(parse_json(store.read_bytes(record)))


class WrittenFile(Protocol):
    """A file with its size and its CRC32C."""

    @property
    def path(self) -> str:
        """Where it is."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def crc32c(self) -> int:
        """The CRC32C of the whole file."""


def is_intact(store: Store, file: WrittenFile) -> bool:
    """Whether a file exists with the right size and checksum."""
    try:
        return store.size(file.path) == file.bytes and file_crc32c(store, file.path) == file.crc32c
    except FileNotFoundError:
        return False


def _publish(store: Store, attempt: str, shard: ShardInfo) -> None:
    draft = f"{attempt}/{shard.path}"
    try:
        store.publish(draft, shard.path)
    except FileExistsError:
        if is_intact(store, shard):
            return
        old = present_manifest(store)
        listed = {listed.path: (listed.bytes, listed.crc32c) for listed in old.shards} if old else {}
        if listed.get(shard.path, (shard.bytes, shard.crc32c)) != (shard.bytes, shard.crc32c):
            raise OutputError(
                f"{store.url}/{shard.path} belongs to the present dataset, and the same job over the same files now "
                "gives other bytes: the software, the kind of processor or the source's contents differ. Write to "
                "another output.path, or remove this dataset first."
            ) from None
        store.replace(draft, shard.path)


def sweep(store: Store, run_id: str) -> None:
    """Remove what unfinished attempts left. Call it only under the run's lock, before its first task."""
    store.delete_tree(RunPaths(run_id).attempts)


def begin_commit(store: Store, run_id: str) -> str:
    """Empty the folder for sidecars, each under the name it will have beside the manifest; returns its path.

    Call `finish_commit` first: the folder may hold what an interrupted commit still needs.
    """
    folder = RunPaths(run_id).commit
    store.delete_tree(folder)
    return folder


def commit_dataset(store: Store, run_id: str, manifest: Manifest) -> Manifest:
    """Make the published shards and the staged sidecars the dataset. Returns the committed manifest.

    Raises OutputError, and commits nothing, where a shard is missing or differs in size from what the manifest states.
    """
    paths = RunPaths(run_id)
    _check_shards(store, manifest)
    own = {paths.commit_steps, paths.staged(MANIFEST), paths.staged(SUCCESS)}
    staged = [file.path for file in store.list_files(paths.commit, follow=False) if file.path not in own]
    names = [path.removeprefix(paths.staged("")) for path in staged]
    sidecars = store.at_once(lambda name: _sidecar(store, paths, name), [name for name in names if name[0] != "."])
    complete = manifest.model_copy(update={"sidecars": tuple(sidecars)})
    data = complete.to_bytes()
    present = present_manifest(store)
    old = present.files if present else frozenset()
    steps = {"manifest": google_crc32c.value(data), "remove": sorted(old - complete.files)}
    with store.create(paths.commit_steps) as file:
        file.write(json.dumps(steps).encode())
    with store.create(paths.staged(MANIFEST)) as file:
        file.write(data)
    store.sync_folders(_not_durable(paths, complete))  # before the manifest refers to what is in them
    store.replace(paths.staged(MANIFEST), MANIFEST)
    finish_commit(store)
    return complete


def _not_durable(paths: RunPaths, manifest: Manifest) -> set[str]:
    """The folders with entries that were not flushed yet: of staged files, and of the folders of published shards."""
    staged = [paths.commit_steps, *(paths.staged(sidecar.path) for sidecar in manifest.sidecars)]
    published = {shard.path.rpartition("/")[0] for shard in manifest.shards}
    return {folder for path in (*staged, *published) for folder in _folders_of(path)}


def _folders_of(path: str) -> Iterator[str]:
    """Every folder on the way to a path, the dataset's own ("") first."""
    parts = path.split("/")
    return ("/".join(parts[:depth]) for depth in range(len(parts)))


def _sidecar(store: Store, paths: RunPaths, name: str) -> Sidecar:
    staged = paths.staged(name)
    return Sidecar(path=name, bytes=store.size(staged), crc32c=file_crc32c(store, staged))


def _check_shards(store: Store, manifest: Manifest) -> None:
    found = {file.path: file.size for file in store.list_files(follow=False)}
    wrong = [shard.path for shard in manifest.shards if found.get(shard.path) != shard.bytes]
    if wrong:
        raise OutputError(
            f"Shards in {store.url} are missing or differ in size from when they were written: "
            f"{count(len(wrong), 'file')}, the first is {wrong[0]}. Something else changed the folder; write them "
            "again with `dtap-dask run JOB --resume`."
        )


def finish_commit(store: Store) -> None:
    """Complete a commit that was interrupted after its manifest was renamed; does nothing where there is none.

    Where its commit.json is damaged, the sidecars that the manifest needs are moved all the same; anything else that
    the commit left is removed by the next `--overwrite`.
    """
    for run_id in _runs(store):
        paths = RunPaths(run_id)
        steps = _steps(store, paths)
        manifest = present_manifest(store)
        if steps is None or manifest is None:
            continue
        if steps.manifest is None:
            missing = [sidecar for sidecar in manifest.sidecars if not is_intact(store, sidecar)]
            _finish(store, paths, [one.path for one in missing if is_intact(store, _staged(paths, one))], ())
        elif steps.manifest == google_crc32c.value(store.read_bytes(MANIFEST)):
            if not store.is_file(SUCCESS):
                with store.create(paths.staged(SUCCESS)):
                    pass
            old = [path for path in steps.remove if path not in manifest.files]
            _finish(store, paths, [*(one.path for one in manifest.sidecars), SUCCESS], old)
            _clean(store, paths)


def _finish(store: Store, paths: RunPaths, staged: Iterable[str], old: Iterable[str]) -> None:
    """Move staged files beside the manifest, delete old ones, and make both durable."""
    moves, removed = {paths.staged(name): name for name in staged}, tuple(old)
    store.move_all(moves)  # those that were moved already, or by another process just now, are skipped
    store.delete_all(removed)
    changed = {folder for name in moves.values() for folder in _folders_of(name)}  # including new folders
    store.sync_folders(changed | {path.rpartition("/")[0] for path in removed})


def _staged(paths: RunPaths, sidecar: Sidecar) -> Sidecar:
    return sidecar.model_copy(update={"path": paths.staged(sidecar.path)})


def _runs(store: Store) -> list[str]:
    return sorted({run for file in store.list_files(RUNS, follow=False) if (run := run_of(file.path))})


@dataclass(frozen=True)
class _CommitSteps:
    """commit.json: the CRC32C of the manifest that it belongs to, and the files to delete once that is in place.

    `manifest` is None where the file is damaged.
    """

    manifest: int | None
    remove: tuple[str, ...] = ()


def _steps(store: Store, paths: RunPaths) -> _CommitSteps | None:
    try:
        found = parse_json(store.read_bytes(paths.commit_steps))
        steps = _CommitSteps(int(found["manifest"]), tuple(map(str, found["remove"])))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return _CommitSteps(None)
    return steps if all(map(may_be_of_dataset, steps.remove)) else _CommitSteps(None)


def _clean(store: Store, paths: RunPaths) -> None:
    """Delete the folder of a finished run; commit.json last, because it says that this is still to be done."""
    found = {paths.child(file.path) for file in store.list_files(paths.folder, follow=False)}
    for path in sorted({*found, paths.attempts, paths.tasks} - {paths.commit}):
        store.delete_tree(path)
    store.sync_folders([paths.folder])
    store.delete_tree(paths.folder)


def sidecar_path(store: Store, manifest: Manifest, name: str) -> str:
    """The path of a sidecar of the manifest: its own, or a staged one where a commit was interrupted.

    OutputError where the manifest has no such sidecar, and where no such file has the bytes that it states.
    """
    for candidate in _candidates(store, manifest, name):
        if is_intact(store, candidate):
            return candidate.path
    raise _lost(store, name)


def read_sidecar(store: Store, manifest: Manifest, name: str) -> bytes:
    """The bytes of a sidecar of the manifest, wherever `sidecar_path` finds it; read once. OutputError as there."""
    for candidate in _candidates(store, manifest, name):
        with contextlib.suppress(FileNotFoundError):
            data = store.read_bytes(candidate.path)
            if len(data) == candidate.bytes and google_crc32c.value(data) == candidate.crc32c:
                return data
    raise _lost(store, name)


def _candidates(store: Store, manifest: Manifest, name: str) -> Iterator[Sidecar]:
    """A sidecar of the manifest in each place where a commit may have left it."""
    sidecar = next((found for found in manifest.sidecars if found.path == name), None)
    if sidecar is None:
        raise OutputError(
            f"The dataset in {store.url} has no {name}; it has {[one.path for one in manifest.sidecars]}."
        )
    yield sidecar
    for run in _runs(store):
        yield _staged(RunPaths(run), sidecar)


def _lost(store: Store, name: str) -> OutputError:
    return OutputError(
        f"{store.url}/{name} is missing or is not the file that {MANIFEST} states. Copy the whole folder again, or "
        "write the dataset again with `dtap-dask run JOB --overwrite`."
    )
