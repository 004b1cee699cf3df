"""The whole job (scan, fit, transform, encode, write): ours in both layouts, the floor of each, and by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from distributed import Client

import by_hand
import floor
import ours
from lake import CATEGORIES, NUMBERS, lake_of
from ours import LAYOUTS, cleared, timed
from results import Figure, Ratio, Section, at_least, at_most

FLOORS = {"blocks": at_most(1.6), "rows": at_most(2.5)}
BY_HAND = at_least(60)
SHUFFLED = at_most(1.6)


def measure(mine: Client, theirs: Client, folder: Path, rows: int, hand_rows: int, rounds: int) -> Section:
    """All in turns, on warm clusters, by hand on `hand_rows` at most; leaves our datasets as `blocks` and `rows`."""
    lake, hand_lake = lake_of(folder, rows), lake_of(folder, min(rows, hand_rows))
    hand = Figure("job: by hand (dask.dataframe, dask-ml, tf.train.Example)")
    jobs = {layout: Figure(f"job: ours, {layout}") for layout in LAYOUTS}
    floors = {layout: Figure(f"job: floor of {layout} (read twice, write as many bytes)") for layout in LAYOUTS}
    shuffled = Figure("job: ours, blocks, global shuffle")
    for _ in range(rounds):
        for layout in LAYOUTS:
            out = cleared(folder / layout)
            jobs[layout].add(rows, ours.run(mine, lake, out, layout))
            size = sum(file.stat().st_size for file in out.rglob("*.tfrecord"))
            floors[layout].add(rows, timed(partial(floor.run, mine, lake, cleared(folder / "floor"), size)))
        shuffled.add(rows, ours.run(mine, lake, cleared(folder / "shuffled"), "blocks", "global"))
        with theirs.as_current():
            hand.add(min(rows, hand_rows), timed(partial(by_hand.run, hand_lake, cleared(folder / "by_hand"))))
    notes = [
        f"Fill and z-score {len(NUMBERS)} numbers, encode {len(CATEGORIES)} texts by vocabulary, write TFRecords.",
        "Ours and by hand on warm LocalClusters of 2 processes of 1 thread; before the clock they held equal numbers.",
    ]
    ratios = [
        Ratio(shuffled, jobs["blocks"], "x the time", SHUFFLED),
        *(Ratio(jobs[layout], floors[layout], "x the time", FLOORS[layout]) for layout in LAYOUTS),
        *(Ratio(jobs[layout], hand, "x as fast", BY_HAND) for layout in LAYOUTS),
    ]
    return Section("The whole job", notes, [*jobs.values(), shuffled, *floors.values(), hand], ratios)
