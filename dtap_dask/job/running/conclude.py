"""What is said at the end of a run: what there is now, and how much was read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from dtap_dask.job.planning.describe import passes
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.running.compared import Compared, in_lines
from dtap_dask.job.running.tasks import Reading
from dtap_dask.job.table import summary
from dtap_dask.job.telling.progress import Reporter
from dtap_dask.records.manifest import Manifest
from dtap_dask.words import human


def conclude(
    plan: Plan,
    report: Reporter,
    manifest: Manifest,
    readings: Sequence[Reading],
    *,
    compared: Sequence[Compared],
    seconds: float,
) -> None:
    """Tell the dataset's main numbers and the run's."""
    url = plan.job.output.path.rstrip("/") or "/"
    for line in manifest.in_words(url).splitlines():
        report.note(line)
    for line in in_lines(compared):
        report.note(line)
    rows, needed = plan.totals.read.rows, plan.totals.read.bytes
    report.note(f"{rows:,} source rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s")
    columns, footers = sum(one.columns for one in readings), sum(one.footers for one in readings)
    times = f"{passes(plan)} pass{'es' if passes(plan) > 1 else ''}"
    report.note(
        f"Read {human(columns)}, {columns / max(1, needed):.2f} times the {human(needed)} of the needed columns "
        f"({times}), and {human(footers)} of footers"
    )
    done = {"path": url, "seconds": round(seconds, 3), "source_rows": rows}
    read = {"bytes_needed": needed, "bytes_read": columns, "footer_bytes_read": footers}
    report.result({**done, **read, **summary(manifest), "forecast": [asdict(one) for one in compared]})
