"""The straight line through cost against size, what is off it, and a drawing of both for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HEIGHT, WIDTH = 12, 60


@dataclass(frozen=True)
class Line:
    """cost = start + each * size."""

    start: float
    each: float

    def at(self, size: float) -> float:
        """The cost on the line."""
        return self.start + self.each * size


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Line:
    """The line of least relative squares: a tenth off counts alike at every size. Two sizes or more are needed."""
    each, start = np.polyfit(sizes, costs, 1, w=1 / np.asarray(costs))
    return Line(float(start), float(each))


def residuals(line: Line, sizes: Sequence[float], costs: Sequence[float]) -> list[float]:
    """How far each cost lies above (or, negative, below) the line, as a fraction of the line."""
    return [cost / line.at(size) - 1 for size, cost in zip(sizes, costs, strict=True)]


def drawing(line: Line, sizes: Sequence[float], costs: Sequence[float], what: str = "rows") -> str:
    """Costs (o) and their line (.) in 60 by 12 characters, both axes from 0; `what` is counted along the lower one."""
    most_size, most_cost = max(sizes), max(*costs, line.at(max(sizes)))
    canvas = [[" "] * WIDTH for _ in range(HEIGHT)]

    def put(mark: str, size: float, cost: float) -> None:
        place = round(cost / most_cost * (HEIGHT - 1))
        canvas[HEIGHT - 1 - place][round(size / most_size * (WIDTH - 1))] = mark

    for column in range(WIDTH):
        size = column / (WIDTH - 1) * most_size
        put(".", size, max(line.at(size), 0.0))
    for size, cost in zip(sizes, costs, strict=True):
        put("o", size, cost)
    edge = [f"{most_cost:8.2f} s |", *["           |"] * (HEIGHT - 2), "    0.00 s |"]
    drawn = [(left + "".join(row)).rstrip() for left, row in zip(edge, canvas, strict=True)]
    return "\n".join(
        [*drawn, "           +" + "-" * WIDTH, " " * 12 + "0" + f"{most_size:,.0f} {what}".rjust(WIDTH - 1)]
    )
