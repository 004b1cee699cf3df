"""The command: make the lakes, warm everybody up, measure, print the table."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from distributed import Client

import compare
import lake
import machine
import measure
from table import table

WARM_UP_ROWS = 20_000


def main() -> None:
    """Parse the arguments, measure, print."""
    options = _arguments()
    print(machine.description(), flush=True)
    if options.folder is not None:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        lakes = _lakes(folder, options)
        cold = measure.cold(folder / "cold", lakes.small)
        with measure.workers() as ours, measure.workers() as theirs:
            held = _warm_up(ours, theirs, lakes.small, folder / "warm")
            results = measure.whole_job(ours, theirs, lakes, folder, options.repeat)
        results += measure.loads(folder, options.repeat, options.load_rows)
    print(_introduction(options, cold), flush=True)
    print(table(results))
    if options.json:
        found = {"held": held, "results": [vars(result) for result in results]}
        options.json.write_text(json.dumps(found, indent=2))


def _lakes(folder: Path, options: argparse.Namespace) -> measure.Lakes:
    whole = lake.write_lake(folder / "lake", options.rows)
    small = lake.write_lake(folder / "small", min(options.rows, WARM_UP_ROWS))
    if options.rows <= options.hand_rows:
        return measure.Lakes(whole, whole, small)
    return measure.Lakes(whole, lake.write_lake(folder / "by-hand-lake", options.hand_rows), small)


def _warm_up(ours: Client, theirs: Client, small: Path, folder: Path) -> dict[str, compare.Summary]:
    """Run everybody once on the small lake; returns what each dataset holds, or raises where the numbers differ."""
    measure.run_by_hand(theirs, small, folder / "by_hand")
    for layout in measure.LAYOUTS:
        measure.run_ours(ours, small, folder / layout, layout)
    held = {
        "by hand": compare.summary_of_records(folder / "by_hand"),
        "blocks": compare.summary_of_loaded(folder / "blocks"),
        "rows": compare.summary_of_records(folder / "rows"),
        "rows, loaded": compare.summary_of_loaded(folder / "rows"),
    }
    for name, summary in held.items():
        wrong = compare.difference(summary, held["by hand"])
        if wrong:
            raise SystemExit(f"{name} does not hold the numbers that the job by hand wrote. {wrong}")
    return held


def _introduction(options: argparse.Namespace, cold: dict[str, float]) -> str:
    scaled = options.rows > options.hand_rows
    return "\n".join(
        [
            f"The job: fill and z-score {len(lake.NUMBERS)} numbers, vocabulary-encode {len(lake.CATEGORIES)} string"
            f" columns, write TFRecords; {options.rows:,} rows; LocalCluster of 2 processes of 1 thread.",
            "Loading: shuffled, into the process that trains; the number is the batch size.",
            f"Medians of {options.repeat} rounds, in which all take turns.",
            *[f"By hand works on {options.hand_rows:,} rows only, as it is slow; its rows/s stands for more."] * scaled,
            "Before the clock: by hand, blocks and rows held equal numbers.",
            "Cold: " + "; ".join(f"{what} {seconds:.2f} s" for what, seconds in cold.items()) + ".",
            "",
        ]
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/run.py", description="Measure the whole job and the loading."
    )
    parser.add_argument("--rows", type=int, default=400_000, help="rows of the lake")
    parser.add_argument("--hand-rows", type=int, default=400_000, help="rows of the job by hand, at most")
    parser.add_argument("--load-rows", type=int, default=2_000_000, help="rows a loading is timed over, at most")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--folder", type=Path, help="where the lakes and datasets go for the time being")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args()
