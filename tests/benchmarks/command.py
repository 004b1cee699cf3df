"""The command: make the lakes, measure section by section on what is warm, print the table."""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from distributed import Client

import arguments
import by_hand
import compare
import encoders
import growth
import jobs
import loads
import machine
import ours
import starts
import table
import transformed
from lake import lake_of
from others import Others, held_against
from ours import LAYOUTS
from results import Section, at_least

WARM_UP_ROWS = 20_000


def main() -> None:
    """Parse the arguments, measure, print."""
    options = arguments.parse()
    print(machine.description(), flush=True)
    print(f"Medians of {options.repeat} rounds, in which all take turns; other tools once.", flush=True)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, others = Path(name), _others(options)
        held, job = _jobs(folder, options, others)
        sections = []
        for section in itertools.chain(job, _sections(folder, options, others)):
            print("", table.figures(section), sep="\n", flush=True)
            sections.append(section)
    print("", table.aims(sections), sep="\n")
    if options.json:
        found = {"machine": machine.description(), "held": held, "sections": list(map(asdict, sections))}
        options.json.write_text(json.dumps(found, indent=2))


def _jobs(
    folder: Path, options: argparse.Namespace, others: Others
) -> tuple[dict[str, compare.Summary], Sequence[Section]]:
    """What each dataset of a small job holds, and the section of the whole job where it is wanted.

    The small job warms the clusters up. Encoding and loading need the datasets that the whole jobs leave.
    """
    with ours.workers() as mine, ours.workers() as theirs:
        held = _agreed(mine, theirs, folder, others.warm_up)
        if "job" in options.only:
            section = jobs.measure(mine, theirs, folder, options.rows, options.hand_rows, options.repeat)
        elif {"encode", "load"} & set(options.only):
            for layout in LAYOUTS:
                ours.run(mine, lake_of(folder, options.rows), folder / layout, layout)
    if "job" not in options.only:
        return held, ()
    held_against(section, others.jobs(folder), section.figures[: len(LAYOUTS)])
    return held, (section,)


def _agreed(mine: Client, theirs: Client, folder: Path, rows: int) -> dict[str, compare.Summary]:
    """Do a small job in every way; returns what each dataset holds, or stops where the numbers differ."""
    small, folder = lake_of(folder, rows), folder / "agreed"
    with theirs.as_current():
        by_hand.run(small, folder / "by_hand")
    for layout in LAYOUTS:
        ours.run(mine, small, folder / layout, layout)
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


def _sections(folder: Path, options: argparse.Namespace, others: Others) -> Iterator[Section]:
    """The others, one after the other, as each is done."""
    if {"encode", "load"} & set(options.only):
        parquet = transformed.write(folder / "blocks", folder / "transformed")
    if "encode" in options.only:
        yield encoders.measure(folder, parquet, options.repeat, others)
    if "load" in options.only:
        section = loads.measure(folder, options.repeat, options.load_rows)
        for batch, figure in others.loaders(parquet, loads.BATCHES):
            held_against(section, [(figure, at_least(1))], [loads.ours(section, batch)])
        yield section
    if "start" in options.only:
        yield starts.measure(folder, options.repeat)
    if "growth" in options.only:
        yield growth.measure(folder, options.sizes, options.counts, options.repeat)


def _others(options: argparse.Namespace) -> Others:
    return Others(
        peers=options.peers,
        rows=options.other_rows,
        slow_rows=options.slow_rows,
        larger=options.larger_rows,
        warm_up=min(options.rows, WARM_UP_ROWS),
        cache=options.cache,
    )
