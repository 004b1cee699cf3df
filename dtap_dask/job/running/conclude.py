"""What is said at the end of a run: what there is now, and how much was read for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from dtap_dask.job.dataset import summary
from dtap_dask.job.planning.counted import Reading
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.status.comparison import ForecastComparison, comparison_lines
from dtap_dask.job.status.hints import load_call, output_command
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage import Store
from dtap_dask.words import count, human


def conclude(
    plan: Plan,
    report: RunReporter,
    store: Store,
    manifest: Manifest,
    readings: Sequence[Reading],
    *,
    compared: Sequence[ForecastComparison],
    seconds: float,
) -> None:
    """Tell the dataset's main numbers and the run's, and what may be done next."""
    url = plan.job.output.path.rstrip("/") or "/"
    for line in manifest.in_words(url).splitlines():
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
    columns, footers = sum(one.columns for one in readings), sum(one.footers for one in readings)
    times = count(len(plan.stages), "pass")
    report.note(
        f"Read {human(columns)}, {columns / max(1, needed):.2f} times the {human(needed)} of the needed columns "
        f"({times}), and {human(footers)} of footers"
    )
    job, split = plan.job, "train" if "train" in manifest.splits else next(iter(manifest.splits))
    report.note(
        f"Next: look at it, `{output_command('show', store, job.storage, job.secrets)}`, and in Python train on it, "
        f"`model.fit({load_call(store, job.storage, job.secrets, split)})`"
    )
    done = {"path": url, "seconds": round(seconds, 3), "source_rows": rows, "stages": stages}
    read = {"bytes_needed": needed, "bytes_read": columns, "footer_bytes_read": footers}
    report.succeed({**done, **read, **summary(manifest), "forecast": [asdict(one) for one in compared]})


def _nothing_in(splits: Sequence[str]) -> str:
    """A warning of splits without rows."""
    names = " and ".join(map(repr, splits))
    them = "it" if len(splits) == 1 else "them"
    return (
        f"Warning: the split{'' if len(splits) == 1 else 's'} {names} got no rows, and `load` refuses {them}. Check "
        "`split` and `source.where` of the job: a share may be too small for so few keys, or a condition never true."
    )


def _spent(stages: Mapping[str, float], seconds: float) -> str:
    """How the seconds of a run were spent: on its stages, and on the rest, such as starting workers."""
    if not stages:
        return ""
    told = [f"{name} {spent:.1f} s" for name, spent in stages.items()]
    return f" ({', '.join(told)}, all else {max(0.0, seconds - sum(stages.values())):.1f} s)"
