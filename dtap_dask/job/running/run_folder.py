"""What stands in a job's output folder before it runs (a dataset, an unfinished run, nothing), and what follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dtap_dask.errors import JobError, OutputError
from dtap_dask.records.commit import finish_commit
from dtap_dask.records.folder import (
    MANIFEST,
    RUNS,
    SOURCES,
    TRANSFORM,
    VOCABULARIES,
    RunPaths,
    is_run,
    is_sidecar,
    run_of,
)
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.manifest_build import versions
from dtap_dask.records.manifest_read import present_manifest, read_manifest
from dtap_dask.records.shard import TaskShards
from dtap_dask.records.verify import quick_problems
from dtap_dask.storage import Store
from dtap_dask.storage.parse import parse_json


@dataclass(frozen=True)
class _Sealed:
    """plan.json: the shards as planned, the software that planned them, and the id of the run as a user sees it."""

    shards: tuple[TaskShards, ...]
    software: dict[str, str]
    begun_by: str


@dataclass(frozen=True)
class RunFolder:
    """The output folder of one run. A run is unfinished while its plan.json is there."""

    store: Store
    run_id: str

    @property
    def paths(self) -> RunPaths:
        """The run's own paths in it."""
        return RunPaths(self.run_id)

    def admit(self, fingerprint: str, overwrite: bool, resume: bool) -> Manifest | None:
        """Refuse what stands in the way; the manifest, where a run to be resumed has finished after all."""
        if overwrite and resume:
            raise JobError(
                "--overwrite (in Python overwrite=True) begins anew, --resume (resume=True) goes on: give one of the "
                "two."
            )
        if overwrite or resume:  # a run that is refused changes nothing
            finish_commit(self.store)
        unfinished = self.unfinished()
        mine, others = self.run_id in unfinished, [one for one in unfinished if one != self.run_id]
        goes_on = resume and (mine or self._is_overwriting())
        manifest = self._standing(overwrite or goes_on)
        if resume and not goes_on and manifest is not None and manifest.fingerprint == fingerprint:
            return self._whole(manifest)
        if manifest is not None and not overwrite and not goes_on:
            raise JobError(
                f"{self.store.url} holds a dataset already. Replace it with --overwrite (in Python overwrite=True; it "
                "stays until the new one is complete), or write to another folder: another output.path."
            )
        if mine and not resume and not overwrite:
            raise JobError(
                f"{self.store.url} holds an unfinished run of this job. Go on with it: --resume (in Python "
                "resume=True); or begin anew: --overwrite (overwrite=True)."
            )
        if others and not mine and not overwrite:
            raise JobError(
                f"{self.store.url} holds an unfinished run ({', '.join(others)}) of another job or of other source "
                f"files: this one is {self.run_id}. Go on with that job as it was (--resume, in Python resume=True), "
                "or begin anew (--overwrite, overwrite=True)."
            )
        if not unfinished:
            self._refuse_foreign(manifest)
        return None

    def _standing(self, replaced: bool) -> Manifest | None:
        if replaced:
            return present_manifest(self.store)  # a damaged one is there to be replaced
        return read_manifest(self.store) if self.store.is_file(MANIFEST) else None

    def _whole(self, manifest: Manifest) -> Manifest:
        problems = quick_problems(self.store, manifest)
        if problems:
            more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise OutputError(
                f"The run is finished, but the dataset in {self.store.url} has been damaged since: "
                f"{'; '.join(problems[:3])}{more}. Write it again with --overwrite (in Python overwrite=True)."
            )
        return manifest

    def _refuse_foreign(self, manifest: Manifest | None) -> None:
        """JobError where somebody else's files have names that the dataset will need."""
        if manifest is None and self.store.is_file(MANIFEST):
            return  # a damaged dataset is overwritten, and nothing tells which files are its own
        known = manifest.files if manifest else frozenset()
        names = [TRANSFORM, SOURCES, *(file.path for file in self.store.list_files(VOCABULARIES))]
        foreign = [name for name in names if is_sidecar(name) and name not in known and self.store.exists(name)]
        if foreign:
            raise JobError(
                f"{self.store.url} holds {', '.join(foreign)}, which no dataset there owns, and which this job would "
                "replace. Move what is yours elsewhere, or write to another folder: another output.path."
            )

    def unfinished(self) -> list[str]:
        """The runs that planned their shards and did not commit them."""
        return [run_id for run_id in self._runs() if self.store.is_file(RunPaths(run_id).plan)]

    def _runs(self) -> list[str]:
        """Every run that has left something, by its id."""
        found = {run_of(file.path) for file in self.store.list_files(RUNS, follow=False)}
        return sorted(run for run in found if run and is_run(run))

    def _is_overwriting(self) -> bool:
        return self.store.is_file(self.paths.overwrite)

    def seal(self, fingerprint: str, shards: Sequence[TaskShards], begun_by: str = "") -> None:
        """Keep the shards as planned: from now on the run can be resumed. `begun_by` is the id that a user sees."""
        planned = [one.to_json() for one in shards]
        who = {"fingerprint": fingerprint, "begun_by": begun_by}
        document = {"format": 1, **who, "software": versions(), "shards": planned}
        self.store.write_atomic(self.paths.plan, json.dumps(document).encode())

    def sealed(self) -> list[TaskShards] | None:
        """The shards as an interrupted run planned them, if it came so far.

        JobError if other software planned them, OutputError if the plan was damaged.
        """
        plan = self._plan()
        if plan is None:
            return None
        changed = [
            f"{name} {then}, now {versions().get(name)}"
            for name, then in plan.software.items()
            if versions().get(name) != then
        ]
        if changed:
            raise JobError(
                f"The unfinished run in {self.store.url} was begun with other software ({'; '.join(changed)}), which "
                "may give other bytes. Install those versions and go on with --resume (in Python resume=True), or "
                "begin anew: --overwrite (overwrite=True)."
            )
        return list(plan.shards)

    def begun_by(self) -> str | None:
        """The id of the run that planned the shards; None where none has."""
        try:
            plan = self._plan()
        except OutputError:
            return None
        return plan.begun_by if plan else None

    def _plan(self) -> _Sealed | None:
        path = self.paths.plan
        try:
            found = parse_json(self.store.read_bytes(path))
            shards = tuple(map(TaskShards.from_json, found["shards"]))
            if not all(self.paths.is_shard(one) for task in shards for paths in task.shards for one in paths):
                raise ValueError("it names other files than shards of this run")
            return _Sealed(shards, dict(found["software"]), str(found.get("begun_by")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{self.store.url}/{path}, the plan of the unfinished run, was damaged: nobody can go on with it. "
                "Begin anew: --overwrite (in Python overwrite=True)."
            ) from error

    def begin_anew(self) -> None:
        """Leave nothing of unfinished runs that could count as done, or lie beside the new shards."""
        standing = present_manifest(self.store)
        keep = standing.files if standing else frozenset[str]()
        runs = self._runs()
        files = [file.path for file in self.store.list_files(follow=False)] if runs else []
        for run_id in runs:
            paths = RunPaths(run_id)
            gone = [path for path in files if paths.is_shard(path) and path not in keep]
            self.store.delete_all(gone)
            self.store.sync_folders({path.rpartition("/")[0] for path in gone})  # before nothing knows of them any more
            self.store.delete_tree(paths.folder)
        self.mark_overwrite()

    def mark_overwrite(self) -> None:
        """Note that this run is to replace the dataset that stands, so that `--resume` goes on with just that."""
        if self.store.is_file(MANIFEST):
            self.store.write_atomic(self.paths.overwrite, b"{}\n")
