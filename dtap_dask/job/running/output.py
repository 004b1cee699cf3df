"""What stands in a job's output folder before it runs (a dataset, an unfinished run, nothing), and what follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dtap_dask.errors import JobError
from dtap_dask.records.manifest import MANIFEST, Manifest, read_manifest, standing_manifest, versions
from dtap_dask.records.shard import TaskShards
from dtap_dask.storage import Store

_PLAN = "plan.json"


@dataclass(frozen=True)
class Output:
    """The output folder of one run. A run is unfinished while its `_run/<id>/plan.json` is there."""

    store: Store
    run_id: str

    def admit(self, fingerprint: str, overwrite: bool, resume: bool) -> Manifest | None:
        """Refuse what stands in the way; the manifest, where a run to be resumed has finished after all."""
        unfinished = self.unfinished()
        mine, others = self.run_id in unfinished, [one for one in unfinished if one != self.run_id]
        manifest = self._standing(overwrite)
        if overwrite and resume:
            raise JobError(
                "--overwrite (in Python overwrite=True) begins anew, --resume (resume=True) goes on: give one of the "
                "two."
            )
        if resume and manifest is not None and manifest.fingerprint == fingerprint:
            return manifest
        if manifest is not None and not overwrite and not (resume and mine):
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
        return None

    def _standing(self, overwrite: bool) -> Manifest | None:
        if overwrite:
            return standing_manifest(self.store)  # a damaged one is there to be replaced
        return read_manifest(self.store) if self.store.is_file(MANIFEST) else None

    def unfinished(self) -> list[str]:
        """The runs that planned their shards and did not commit them."""
        paths = [info.path.split("/") for info in self.store.list_files("_run")]
        return sorted({parts[1] for parts in paths if parts[2:] == [_PLAN]})

    def seal(self, fingerprint: str, shards: Sequence[TaskShards], begun_by: str = "") -> None:
        """Keep the shards as planned: from now on the run can be resumed. `begun_by` is the id that a user sees."""
        planned = [one.to_json() for one in shards]
        who = {"fingerprint": fingerprint, "begun_by": begun_by}
        document = {"format": 1, **who, "software": versions(), "shards": planned}
        self.store.write_atomic(f"_run/{self.run_id}/{_PLAN}", json.dumps(document).encode())

    def sealed(self) -> list[TaskShards] | None:
        """The shards as an interrupted run planned them, if it came so far. JobError if other software planned them."""
        if self.run_id not in self.unfinished():
            return None
        document = self._plan(self.run_id)
        changed = [
            f"{name} {then}, now {versions().get(name)}"
            for name, then in document["software"].items()
            if versions().get(name) != then
        ]
        if changed:
            raise JobError(
                f"The unfinished run in {self.store.url} was begun with other software ({'; '.join(changed)}), which "
                "may give other bytes. Install those versions and go on with --resume (in Python resume=True), or "
                "begin anew: --overwrite (overwrite=True)."
            )
        return [TaskShards.from_json(one) for one in document["shards"]]

    def begun_by(self) -> str | None:
        """The id of the run that planned the shards; None where none has."""
        return self._plan(self.run_id).get("begun_by") if self.run_id in self.unfinished() else None

    def _plan(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.read_bytes(f"_run/{run_id}/{_PLAN}"))
        return found

    def forget(self, run_id: str, keep: frozenset[str]) -> None:
        """Remove what an unfinished run has left, but for the files in `keep`."""
        if run_id in self.unfinished():
            for task in self._plan(run_id)["shards"]:
                for paths in TaskShards.from_json(task).shards:
                    for path in paths:
                        if path not in keep:
                            self.store.delete(path)
        self.store.delete_tree(f"_run/{run_id}")
