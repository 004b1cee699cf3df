"""Loading: ours from both layouts, and the two pipelines people write, in turns, at every batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import loading
from results import Figure, Ratio, Section, at_least, at_most

BATCHES = (1024, 4096)
STEPS = (1, 16)  # of one call of a compiled function within fit


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
    _within_fit(section, folder / "blocks", rounds, most)
    return section


def _within_fit(section: Section, dataset: Path, rounds: int, most: int) -> None:
    """What reaches the model of Keras's `fit`, and how soon it does in the middle of an epoch."""
    middle = Figure("load 1024: first batch from the middle of an epoch", "s", aim=at_most(0.1))
    for batch in BATCHES:
        for steps in STEPS:
            figure = Figure(f"load {batch}: ours, in fit, {steps} steps per execution")
            section.figures.append(figure)
            aim = at_least(0.6) if steps > 1 else None
            section.ratios.append(Ratio(figure, ours(section, batch), "x as fast", aim))
            for _ in range(rounds):
                figure.add(*loading.fit_seconds(loading.ours(dataset, batch), loading.Empty(), steps, most))
        _dlrm(section, dataset, batch, rounds, most // 5)
    for _ in range(rounds):
        middle.values.append(loading.seconds_from_the_middle(dataset, 1024))
    section.figures.append(middle)


def _dlrm(section: Section, dataset: Path, batch: int, rounds: int, most: int) -> None:
    """What a small model trains, and what it would train if it waited for nothing."""
    loaded = Figure(f"load {batch}: ours, in fit of a small DLRM, as_vectors, int32")
    repeated = Figure(f"load {batch}: one batch repeated, in fit of a small DLRM")
    section.figures += [loaded, repeated]
    section.ratios.append(Ratio(loaded, repeated, "x as fast"))
    for _ in range(rounds):
        data, model = loading.packed(dataset, batch), loading.SmallDlrm(dataset)
        loaded.add(*loading.fit_seconds(data, model, STEPS[-1], most))
        repeated.add(*loading.fit_seconds(loading.one_batch(data), model, STEPS[-1], most))


def ours(section: Section, batch: int) -> Figure:
    """Our figure from blocks at a batch size."""
    return next(figure for figure in section.figures if figure.name == _name(batch))


def _name(batch: int) -> str:
    return f"load {batch}: ours, blocks"


def _contenders(section: Section, folder: Path, batch: int, most: int) -> list[tuple[Figure, Callable[[], Any], int]]:
    blocks, rows = folder / "blocks", folder / "rows"
    mine, mine_rows = Figure(_name(batch)), Figure(f"load {batch}: ours, rows")
    together, each = Figure(f"load {batch}: batch + parse_example"), Figure(f"load {batch}: map(parse_single_example)")
    wide, plain = Figure(f"load {batch}: ours, as_vectors, int32"), Figure(f"load {batch}: ours, batches (NumPy)")
    mixed = Figure(f"load {batch}: ours, a mixture of two")
    kept, raw = Figure(f"load {batch}: tf.data save and load"), Figure(f"load {batch}: NumPy memmap")
    loading.save(blocks, folder, batch)
    loading.write_raw(blocks, folder)
    section.ratios += [
        Ratio(wide, mine, "x as fast", at_least(1.8)),
        Ratio(plain, mine, "x as fast", at_least(1)),
        Ratio(mixed, mine, "x as fast", at_least(0.7)),
        Ratio(mine, kept, "x as fast"),
        Ratio(plain, raw, "x as fast"),
        Ratio(mine, together, "x as fast", at_least(15)),
        Ratio(mine, each, "x as fast", at_least(100)),
        Ratio(mine_rows, together, "x as fast"),
    ]
    return [
        (mine, lambda: loading.ours(blocks, batch), most),
        (mine_rows, lambda: loading.ours(rows, batch), most // 5),
        (wide, lambda: loading.packed(blocks, batch), most),
        (plain, lambda: loading.arrays(blocks, batch), most),
        (mixed, lambda: loading.mixed(blocks, batch), most),
        (kept, lambda: loading.saved(folder, batch), most),
        (raw, lambda: loading.Mapped(folder, batch), most),
        (together, lambda: loading.parse_batch(rows, batch), most // 5),
        (each, lambda: loading.parse_each(rows, batch), most // 20),
    ]
