"""What a user waits for before anything is warm: whole processes, from the command to its end, in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ours import timed
from results import Figure, Section, at_most

COMMAND = str(Path(sys.executable).with_name("dtap-dask"))
JOB = str(Path(__file__).parents[2] / "jobs" / "taxi.yaml")
SAMPLE_ROWS, TINY_ROWS = 200_000, 2_000


def measure(folder: Path, rounds: int) -> Section:
    """--help; plan of the README's job on the sample lake; run of it on a tiny lake, with its cluster."""
    places = {rows: folder / f"sample-{rows}" for rows in (SAMPLE_ROWS, TINY_ROWS)}
    for rows, place in places.items():
        place.mkdir()
        _command(place, "sample", "lake", "--rows", str(rows))
    asked = [
        ("dtap-dask --help", ("--help",), TINY_ROWS, 0.3),
        (f"dtap-dask plan, {SAMPLE_ROWS:,} rows", ("plan", JOB), SAMPLE_ROWS, 2),
        (f"dtap-dask run, {TINY_ROWS:,} rows, cluster and all", ("run", JOB, "--overwrite"), TINY_ROWS, 10),
    ]
    figures = [Figure(name, "s", aim=at_most(seconds)) for name, _, _, seconds in asked]
    for _ in range(rounds):
        for figure, (_, arguments, rows, _) in zip(figures, asked, strict=True):
            figure.values.append(timed(lambda: _command(places[rows], *arguments)))  # noqa: B023 - called at once
    return Section("Start-up", ["Whole processes, files in the page cache."], figures)


def _command(place: Path, *arguments: str) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [COMMAND, *arguments], cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
