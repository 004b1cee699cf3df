"""The summary of a finished run: its dataset, what was forecast and measured, and how much was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dtap_dask.job.dataset import summary
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.running.stages import Stages
from dtap_dask.job.status.comparison import ForecastComparison, comparison_lines
from dtap_dask.job.status.hints import load_call, output_command
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage import Store
from dtap_dask.words import count, human


def report_summary(
    run: Stages, store: Store, manifest: Manifest, compared: Sequence[ForecastComparison], seconds: float
) -> None:
    """Report the main numbers of the dataset and of the run, and what may be done next; the run is done then."""
    plan, report = run.plan, run.report
    for line in manifest.in_words(_path(plan.job)).splitlines():
        report.note(line)
    for line in comparison_lines(compared):
        report.note(line)
    empty = [name for name, part in manifest.splits.items() if not part.rows]
    if empty:
        report.note(_nothing_in(empty))
    rows, needed = plan.totals.rows.read, plan.totals.bytes.read
    stages = {stage.name: stage.seconds for stage in report.snapshot.stages if stage.ended}
    report.note(
        f"{count(rows, 'source row')} in {seconds:.1f} s, {rows / seconds:,.0f} rows/s{_spent(stages, seconds)}"
    )
    columns, footers = sum(one.columns for one in run.readings), sum(one.footers for one in run.readings)
    times = count(plan.passes, "pass")
    report.note(
        f"Read {human(columns)}, {columns / max(1, needed):.2f} times the {human(needed)} of the needed columns "
        f"({times}), and {human(footers)} of footers"
    )
    job, split = plan.job, "train" if "train" in manifest.splits else next(iter(manifest.splits))
    report.note(
        f"Next: look at it, `{output_command('show', store, job.storage, job.secrets)}`, and in Python train on it, "
        f"`model.fit({load_call(store, job.storage, job.secrets, split)})`"
    )
    done = {"source_rows": rows, "stages": stages, "forecast": [asdict(one) for one in compared]}
    read = {"bytes_needed": needed, "bytes_read": columns, "footer_bytes_read": footers}
    report.succeed({**_outcome(job, manifest, seconds), **done, **read})


def report_finished(report: RunReporter, job: Job, manifest: Manifest, store: Store, seconds: float) -> None:
    """Report that an earlier run has written the dataset already; the run is done then."""
    report.note(f"{store.url} is finished already; nothing was left to do.")
    report.succeed(_outcome(job, manifest, seconds))


def _outcome(job: Job, manifest: Manifest, seconds: float) -> dict[str, Any]:
    """The outcome of a run for programs, in which nothing was read or written."""
    read = {"source_rows": 0, "stages": {}, "bytes_needed": 0, "bytes_read": 0, "footer_bytes_read": 0}
    return {"path": _path(job), "seconds": round(seconds, 3), **read, **summary(manifest), "forecast": []}


def _path(job: Job) -> str:
    return job.output.path.rstrip("/") or "/"


def _nothing_in(splits: Sequence[str]) -> str:
    """A warning about splits without rows."""
    names = " and ".join(map(repr, splits))
    them = "it" if len(splits) == 1 else "them"
    return (
        f"Warning: the split{'' if len(splits) == 1 else 's'} {names} got no rows, and `load` refuses {them}. Check "
        "`split` and `source.where` of the job: a share may be too small for so few keys, or a condition never true."
    )


def _spent(stages: Mapping[str, float], seconds: float) -> str:
    """The seconds that each stage of a run took, and those of everything else, such as starting workers."""
    if not stages:
        return ""
    each = [f"{name} {spent:.1f} s" for name, spent in stages.items()]
    return f" ({', '.join(each)}, the rest {max(0.0, seconds - sum(stages.values())):.1f} s)"
