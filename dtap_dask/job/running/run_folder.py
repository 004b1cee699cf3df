"""The output folder as a run finds it: whether the run may start there, and what an earlier attempt has planned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dtap_dask.errors import JobError, OutputError
from dtap_dask.job.running.options import Intent
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
from dtap_dask.records.shard_plan import ShardPlan
from dtap_dask.records.verify import quick_problems
from dtap_dask.storage import Store
from dtap_dask.storage.safe_json import parse_json

_DATASET = (
    "{url} holds a dataset already. Replace it with --overwrite (in Python overwrite=True; it is kept until the new "
    "one is complete), or write to another folder: another output.path."
)
_OWN_RUN = (
    "{url} holds an unfinished run of this job. Continue it with --resume (in Python resume=True), or start over with "
    "--overwrite (overwrite=True)."
)
_OTHER_RUN = (
    "{url} holds an unfinished run ({others}) of another job, of other source files or with another fitted state: this "
    "one is {run}. Continue that job as it was (--resume, in Python resume=True), or start over (--overwrite, "
    "overwrite=True)."
)
_START, _FINISHED = "start", "finished"
Content = Literal["nothing", "same dataset", "other dataset", "own run", "own overwrite", "other run"]
# By what the folder holds and what the run is to do about it: start, nothing (it is finished), or a refusal.
_ADMISSION: Mapping[Content, Mapping[Intent, str]] = {
    "nothing": {"new": _START, "overwrite": _START, "resume": _START},
    "same dataset": {"new": _DATASET, "overwrite": _START, "resume": _FINISHED},
    "other dataset": {"new": _DATASET, "overwrite": _START, "resume": _DATASET},
    "own run": {"new": _OWN_RUN, "overwrite": _START, "resume": _START},
    "own overwrite": {"new": _DATASET, "overwrite": _START, "resume": _START},
    "other run": {"new": _OTHER_RUN, "overwrite": _START, "resume": _OTHER_RUN},
}


@dataclass(frozen=True)
class _PlannedRun:
    """plan.json: the planned shards, the software that planned them, and the user's id of the run that did."""

    shards: ShardPlan
    software: dict[str, str]
    planned_by: str


@dataclass(frozen=True)
class RunFolder:
    """The output folder of one run (see records/folder.py). A run is unfinished while its plan.json is there."""

    store: Store
    run_id: str

    @property
    def paths(self) -> RunPaths:
        """The paths of this run."""
        return RunPaths(self.run_id)

    def admit(self, fingerprint: str, intent: Intent) -> Manifest | None:
        """JobError where the run must not start here; the manifest where a resumed run has finished already."""
        if intent != "new":  # a run that is refused changes nothing
            finish_commit(self.store)
        unfinished = self.unfinished()
        content, manifest = self._content(fingerprint, intent, unfinished)
        action = _ADMISSION[content][intent]
        if action == _FINISHED and manifest is not None:
            return self._undamaged(manifest)
        if action != _START:
            raise JobError(action.format(url=self.store.url, run=self.run_id, others=", ".join(unfinished)))
        if not unfinished:
            self._refuse_foreign(manifest)
        return None

    def _content(self, fingerprint: str, intent: Intent, unfinished: Sequence[str]) -> tuple[Content, Manifest | None]:
        """What the folder holds. OutputError for a damaged manifest, unless it is to be replaced."""
        own = self.run_id in unfinished or self.store.is_file(self.paths.overwrite)
        replaced = intent == "overwrite" or (intent == "resume" and own)
        manifest = present_manifest(self.store) if replaced else _read_if_there(self.store)
        if manifest is not None:
            same: Content = "same dataset" if manifest.fingerprint == fingerprint else "other dataset"
            return ("own overwrite" if own else same), manifest
        return ("own run" if own else "other run" if unfinished else "nothing"), None

    def _undamaged(self, manifest: Manifest) -> Manifest:
        problems = quick_problems(self.store, manifest)
        if problems:
            more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise OutputError(
                f"The run is finished, but the dataset in {self.store.url} has been damaged since: "
                f"{'; '.join(problems[:3])}{more}. Write it again with --overwrite (in Python overwrite=True)."
            )
        return manifest

    def _refuse_foreign(self, manifest: Manifest | None) -> None:
        """JobError where files of somebody else have names that the dataset will need."""
        if manifest is None and self.store.is_file(MANIFEST):
            return  # a damaged dataset is replaced, and nothing tells which files are its own
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
        return [run for run in self._runs() if self.store.is_file(RunPaths(run).plan)]

    def _runs(self) -> list[str]:
        """Every run that has left something."""
        names = {run_of(file.path) for file in self.store.list_files(RUNS, follow=False)}
        return sorted(name for name in names if name is not None and is_run(name))

    def save_plan(self, fingerprint: str, shards: ShardPlan, planned_by: str = "") -> None:
        """Keep the planned shards: from now on the run can be resumed. `planned_by` is the id that a user sees."""
        document = {
            "format": 1,
            "fingerprint": fingerprint,
            "planned_by": planned_by,
            "software": versions(),
            **shards.to_json(),
        }
        self.store.write_atomic(self.paths.plan, json.dumps(document).encode())

    def planned_shards(self) -> ShardPlan | None:
        """The shards that an interrupted run planned, if it got that far.

        JobError if other software planned them, OutputError if the plan was damaged.
        """
        plan = self._planned_run()
        if plan is None:
            return None
        changed = [
            f"{name} {then}, now {versions().get(name)}"
            for name, then in plan.software.items()
            if versions().get(name) != then
        ]
        if changed:
            raise JobError(
                f"The unfinished run in {self.store.url} was started with other software ({'; '.join(changed)}), which "
                "may give other bytes. Install those versions and continue with --resume (in Python resume=True), or "
                "start over with --overwrite (overwrite=True)."
            )
        return plan.shards

    def planned_by(self) -> str | None:
        """The user's id of the run that planned the shards; None where none has."""
        try:
            plan = self._planned_run()
        except OutputError:
            return None
        return plan.planned_by if plan else None

    def _planned_run(self) -> _PlannedRun | None:
        path = self.paths.plan
        try:
            found = parse_json(self.store.read_bytes(path))
            shards = ShardPlan.from_json(found)
            if not all(self.paths.is_shard(one) for paths in shards.paths for one in paths):
                raise ValueError("it names other files than shards of this run")
            return _PlannedRun(shards, dict(found["software"]), str(found.get("planned_by")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{self.store.url}/{path}, the plan of the unfinished run, was damaged: the run cannot be continued. "
                "Start over with --overwrite (in Python overwrite=True)."
            ) from error

    def delete_unfinished(self) -> None:
        """Delete leftovers of unfinished runs, so that none is taken for finished or mixed with the new shards."""
        current = present_manifest(self.store)
        keep = current.files if current else frozenset[str]()
        runs = self._runs()
        files = [file.path for file in self.store.list_files(follow=False)] if runs else []
        for paths in map(RunPaths, runs):
            leftovers = [path for path in files if paths.is_shard(path) and path not in keep]
            self.store.delete_all(leftovers)
            # While the run's folder still shows that there was one:
            self.store.sync_folders({path.rpartition("/")[0] for path in leftovers})
            self.store.delete_tree(paths.folder)
        self.mark_overwrite()

    def mark_overwrite(self) -> None:
        """Note that this run is to replace the present dataset, so that `--resume` can continue just that."""
        if self.store.is_file(MANIFEST):
            self.store.write_atomic(self.paths.overwrite, b"{}\n")


def _read_if_there(store: Store) -> Manifest | None:
    """The manifest, if there is one. OutputError where it is damaged."""
    return read_manifest(store) if store.is_file(MANIFEST) else None


def refuse_dataset(store: Store, intent: Intent) -> None:
    """JobError where the folder holds a dataset that a run must not touch: this needs no plan."""
    if intent == "new" and _read_if_there(store) is not None:
        raise JobError(_DATASET.format(url=store.url))
