"""The commit of a run: its shards, fitted state and sources become the dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dtap_dask.errors import OutputError, Superseded
from dtap_dask.features import FittedState
from dtap_dask.job.execution.context import TaskContext
from dtap_dask.job.execution.parity import Compared
from dtap_dask.job.execution.tasks import Written, with_retries
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.running.sources import write_sources
from dtap_dask.job.running.stages import Stages
from dtap_dask.lake.scan import raw_columns
from dtap_dask.records.commit import begin_commit, commit_dataset, finish_commit
from dtap_dask.records.folder import SOURCES
from dtap_dask.records.lock import HeldLock
from dtap_dask.records.manifest import Manifest, ParityEntry, RawEntry
from dtap_dask.records.manifest_build import build_manifest
from dtap_dask.storage import Store
from dtap_dask.words import count


def commit(
    stages: Stages,
    store: Store,
    lock: HeldLock,
    *,
    written: Sequence[Written],
    pairs: Sequence[int],
    compare: Callable[[], Compared],
) -> Manifest:
    """Make what was written the dataset; where the storage fails for a moment, again from the start.

    `pairs` is that of the plan of shards. `compare` is called in each attempt, while files are staged. Superseded where
    another run has taken over the lock.
    """

    def attempt() -> Manifest:
        finish_commit(store)  # of an attempt that failed after its manifest
        manifest = _stage(stages.plan, stages.context, store, written=written, pairs=pairs, compare=compare)
        stages.report.flush()  # a driver that is started again after its commit must know of it
        if not lock.is_mine():
            raise Superseded(f"Another run has taken over {store.url} from this one.")
        return commit_dataset(store, stages.plan.run_id, manifest)

    return with_retries(attempt)


def _stage(
    plan: Plan,
    context: TaskContext,
    store: Store,
    *,
    written: Sequence[Written],
    pairs: Sequence[int],
    compare: Callable[[], Compared],
) -> Manifest:
    """Put all files of the dataset but the shards where the commit takes them from; returns the manifest."""
    state = context.state(plan.checked.graph.passes)
    folder = begin_commit(store, plan.run_id)
    with ThreadPoolExecutor(max_workers=1) as pool:  # the executor is used in this thread, which Ctrl-C interrupts
        saved = pool.submit(_save, state, store, folder, plan)
        compared = compare()
        saved.result()
    return build_manifest(
        job=plan.job.document,
        fingerprint=plan.fingerprint,
        source=plan.totals,
        infos=state.infos,
        layout=context.layout,
        splits=plan.job.split_names,
        shards=[shard for one in written for shard in one.shards],
        pairs=pairs,
        raw=RawEntry.of(raw_columns(context.scan), plan.derive),
        fitted_from=plan.origin.noted if plan.origin else None,
        parity=ParityEntry(rows=compared.rows, differing=compared.differing),
    )


def _save(state: FittedState, store: Store, folder: str, plan: Plan) -> None:
    state.save(store, folder)
    write_sources(store, f"{folder}/{SOURCES}", plan)


def refuse_differing(manifest: Manifest, store: Store, features: Sequence[str] = ()) -> None:
    """OutputError where rows of a committed dataset differ from what `dtap_dask.transform` gives; `features` are those
    in which they do, where they are known."""
    found = manifest.parity
    if found is None or not found.differing:
        return
    names = f", in {', '.join(map(repr, features))}" if features else ""
    raise OutputError(
        f"{found.differing:,} of {count(found.rows, 'row')} of the source that were compared have other features in "
        f"the records of {store.url} than dtap_dask.transform gives them{names}; the run's notes describe some. The "
        "dataset is complete, but a model that is trained on it would be served other values: do not use it with "
        "dtap_dask.transform, dtap_dask.serving or `dtap-dask export`. Please report this with the job file."
    )
