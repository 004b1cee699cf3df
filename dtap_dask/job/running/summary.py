"""The summary of a finished run: its dataset, what was forecast and measured, and how much was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from dtap_dask.job.dataset import summary
from dtap_dask.job.running.stages import Stages
from dtap_dask.job.status.comparison import ForecastComparison, comparison_lines
from dtap_dask.job.status.hints import load_call, output_command
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage import Store
from dtap_dask.words import count, human


def report_summary(
    run: Stages, store: Store, manifest: Manifest, compared: Sequence[ForecastComparison], seconds: float
) -> None:
    """Report the main numbers of the dataset and of the run, and what may be done next; the run is done then."""
    plan, report = run.plan, run.report
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
    done = {"path": url, "seconds": round(seconds, 3), "source_rows": rows, "stages": stages}
    read = {"bytes_needed": needed, "bytes_read": columns, "footer_bytes_read": footers}
    report.succeed({**done, **read, **summary(manifest), "forecast": [asdict(one) for one in compared]})


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
