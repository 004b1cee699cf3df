"""A run's forecast compared with its outcome: shown at its end, and kept beside its status."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from dtap_dask.errors import StorageError
from dtap_dask.job.planning.forecast import Forecast, forecast
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.planning.probe import probe
from dtap_dask.job.status.snapshot import Stage
from dtap_dask.records.folder import status_path
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage import Store
from dtap_dask.storage.safe_json import parse_json
from dtap_dask.words import human


@dataclass(frozen=True)
class ForecastComparison:
    """A number of a run: `what` it is ('rows', 'bytes', 'shards', 'seconds of fit'), its forecast, and its outcome.

    The forecast is 'exactly', 'about' or 'at most' a number from `low` to `high`.
    """

    what: str
    certainty: str
    low: float
    high: float
    measured: float

    def __str__(self) -> str:
        shown = human if self.what == "bytes" else _seconds if self.what.startswith("seconds") else _number
        low, high = shown(self.low), shown(self.high)
        forecast = f"{self.certainty} {low if low == high else f'{low} to {high}'}"
        return f"{self.what:<18}{forecast:<34}{shown(self.measured)}"


def forecast_run(plan: Plan, threads: int, probing: bool, note: Callable[[str], None]) -> Forecast:
    """The forecast of a run on `threads` threads; after a probe its time is noted."""
    expected = forecast(plan, probe(plan) if probing else None, workers=max(1, threads))
    if expected.seconds:
        note(f"Forecast by a probe: {sum(expected.seconds.values()):,.1f} s on {threads:,} threads.")
    return expected


def compare(expected: Forecast, manifest: Manifest, stages: Sequence[Stage]) -> list[ForecastComparison]:
    """Rows, bytes and shards; and the seconds of each stage that a probe has measured and that the run went through."""
    splits = manifest.splits.values()
    sizes = [shard.bytes for split in splits for shard in split.shards]
    low, high = expected.bytes
    certainty = expected.certainty
    found = [
        ForecastComparison("rows", certainty, expected.rows, expected.rows, sum(split.rows for split in splits)),
        ForecastComparison("bytes", "about" if certainty == "exactly" else certainty, low, high, sum(sizes)),
        ForecastComparison("shards", certainty, expected.shards, expected.shards, len(sizes)),
    ]
    for stage in stages:
        if stage.name in expected.seconds and stage.ended:
            seconds = expected.seconds[stage.name]
            found.append(ForecastComparison(f"seconds of {stage.name}", "about", seconds, seconds, stage.seconds))
    return found


def comparison_lines(comparisons: Sequence[ForecastComparison]) -> Iterator[str]:
    """A table for a person; nothing where nothing was compared."""
    if comparisons:
        yield f"{'':<18}{'forecast':<34}measured"
        yield from map(str, comparisons)


def write_comparisons(store: Store, run: str, comparisons: Sequence[ForecastComparison]) -> None:
    """Keep them in the output folder; a finished run does not fail by this."""
    with contextlib.suppress(OSError, StorageError):
        data = json.dumps([asdict(comparison) for comparison in comparisons]).encode()
        store.write_atomic(status_path(run, "forecast"), data)


def read_comparisons(store: Store, run: str) -> list[ForecastComparison]:
    """Those of a run; empty where none were kept, or none can be read any more."""
    try:
        return [ForecastComparison(**values) for values in parse_json(store.read_bytes(status_path(run, "forecast")))]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _number(number: float) -> str:
    return f"{number:,.0f}"


def _seconds(number: float) -> str:
    return f"{number:,.1f} s"
