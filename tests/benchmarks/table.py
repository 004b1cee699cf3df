"""The one table: medians, their spread over the rounds, and ratios of medians of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from measure import Measurement

HEAD = ("contender", "rows", "rows/s (median)", "least - most", "ratios")


def table(results: Sequence[Measurement]) -> str:
    """The results as aligned Markdown."""
    medians = {result.name: median(result.rates) for result in results}
    lines = [HEAD, *(_line(result, medians) for result in results)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    printed = ["| " + " | ".join(map(_aligned, line, widths, range(len(HEAD)))) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([printed[0], rule, *printed[1:]])


def _line(result: Measurement, medians: dict[str, float]) -> tuple[str, ...]:
    ratios = [_ratio(medians[result.name], medians[other], other) for other in result.against]
    return (
        result.name,
        f"{result.rows:,}",
        f"{medians[result.name]:,.0f}",
        f"{min(result.rates):,.0f} - {max(result.rates):,.0f}",
        "; ".join(ratios),
    )


def _ratio(own: float, other: float, name: str) -> str:
    """Against the floor by time taken, against anything else by speed."""
    short = name.partition(": ")[2].partition(" (")[0]
    if short.startswith("floor"):
        return f"{other / own:.1f} x the time of the {short}"
    return f"{own / other:.2f} x as fast as {short}" if own < 10 * other else f"{own / other:.0f} x as fast as {short}"


def _aligned(cell: str, width: int, place: int) -> str:
    """Names and ratios to the left, numbers to the right."""
    return cell.ljust(width) if place in (0, len(HEAD) - 1) else cell.rjust(width)
