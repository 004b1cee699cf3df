"""Loading: ours from both layouts, and the two pipelines people write, in turns, at every batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import loading
from results import Figure, Ratio, Section, at_least

BATCHES = (1024, 4096)


def measure(folder: Path, rounds: int, most: int) -> Section:
    """Time each over up to `most` rows of the datasets `blocks` and `rows` in `folder`, the slower ones over fewer."""
    section = Section("Loading", ["Shuffled, into the process that trains; the number is the batch size."])
    tasks: list[tuple[Figure, Callable[[], Any], int]] = []
    for batch in BATCHES:
        tasks += _contenders(section, folder, batch, most)
    for _ in range(rounds):
        for figure, build, rows in tasks:
            figure.add(*loading.seconds_of(build, rows))
    section.figures += [figure for figure, _, _ in tasks]
    return section


def ours(section: Section, batch: int) -> Figure:
    """Our figure from blocks at a batch size."""
    return next(figure for figure in section.figures if figure.name == _name(batch))


def _name(batch: int) -> str:
    return f"load {batch}: ours, blocks"


def _contenders(section: Section, folder: Path, batch: int, most: int) -> list[tuple[Figure, Callable[[], Any], int]]:
    blocks, rows = folder / "blocks", folder / "rows"
    mine, mine_rows = Figure(_name(batch)), Figure(f"load {batch}: ours, rows")
    together, each = Figure(f"load {batch}: batch + parse_example"), Figure(f"load {batch}: map(parse_single_example)")
    section.ratios += [
        Ratio(mine, together, "x as fast", at_least(15)),
        Ratio(mine, each, "x as fast", at_least(100)),
        Ratio(mine_rows, together, "x as fast"),
    ]
    return [
        (mine, lambda: loading.ours(blocks, batch), most),
        (mine_rows, lambda: loading.ours(rows, batch), most // 5),
        (together, lambda: loading.parse_batch(rows, batch), most // 5),
        (each, lambda: loading.parse_each(rows, batch), most // 20),
    ]
