"""What was forecast of a run against what came of it: told at its end, and kept beside its status."""

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
from dtap_dask.storage.parse import parse_json
from dtap_dask.words import human


@dataclass(frozen=True)
class Comparison:
    """A number of a run: `what` it is ('rows', 'bytes', 'shards', 'seconds of fit'), its forecast, and what it was.

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


def expect(plan: Plan, threads: int, probing: bool, note: Callable[[str], None]) -> Forecast:
    """The forecast of a run on so many threads; after a probe its time is noted."""
    expected = forecast(plan, probe(plan) if probing else None, workers=max(1, threads))
    if expected.seconds:
        note(f"Forecast by a probe: {sum(expected.seconds.values()):,.1f} s on {threads:,} threads.")
    return expected


def compare(expected: Forecast, manifest: Manifest, stages: Sequence[Stage]) -> list[Comparison]:
    """Rows, bytes and shards; and the seconds of each stage that a probe has measured and that the run went through."""
    parts = manifest.splits.values()
    low, high = expected.bytes
    told = expected.certainty
    found = [
        Comparison("rows", told, expected.rows, expected.rows, sum(part.rows for part in parts)),
        Comparison("bytes", "about" if told == "exactly" else told, low, high, _bytes(manifest)),
        Comparison("shards", told, expected.shards, expected.shards, sum(len(part.shards) for part in parts)),
    ]
    for stage in stages:
        if stage.name in expected.seconds and stage.ended:
            seconds = expected.seconds[stage.name]
            found.append(Comparison(f"seconds of {stage.name}", "about", seconds, seconds, stage.seconds))
    return found


def _bytes(manifest: Manifest) -> int:
    return sum(shard.bytes for part in manifest.splits.values() for shard in part.shards)


def comparison_lines(found: Sequence[Comparison]) -> Iterator[str]:
    """A table for a person."""
    yield f"{'':<18}{'forecast':<34}measured"
    yield from map(str, found)


def write_comparison(store: Store, run: str, found: Sequence[Comparison]) -> None:
    """Keep it in the output folder; a run that is done does not fail by this."""
    with contextlib.suppress(OSError, StorageError):
        store.write_atomic(status_path(run, "forecast"), json.dumps([asdict(one) for one in found]).encode())


def read_comparison(store: Store, run: str) -> list[Comparison]:
    """What was kept of a run; empty where nothing was, or can be read any more."""
    try:
        return [Comparison(**one) for one in parse_json(store.read_bytes(status_path(run, "forecast")))]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _number(number: float) -> str:
    return f"{number:,.0f}"


def _seconds(number: float) -> str:
    return f"{number:,.1f} s"
