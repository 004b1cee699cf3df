"""Sections as aligned Markdown: a table of figures each, and one of everything that is aimed at or compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from results import Aim, Figure, Ratio, Section

FIGURES = ("what", "rows", "median", "least - most", "remarks")
AIMS = ("against each other", "measured", "aim", "")


def figures(section: Section) -> str:
    """The section's title, notes and figures."""
    lines = [FIGURES, *map(_figure, section.figures)]
    return "\n".join([f"### {section.title}", "", *section.notes, "", _aligned(lines, "lrrrl")])


def aims(sections: Sequence[Section]) -> str:
    """Every ratio and every figure with an aim, of all sections: measured, aimed at, met or missed."""
    return _aligned([AIMS, *(line for section in sections for line in _aims(section))], "llll")


def _figure(figure: Figure) -> tuple[str, ...]:
    rows = "" if figure.rows is None else f"{figure.rows:,}"
    if not figure.values:
        return figure.name, rows, "none", "", figure.note
    spread = f"{_number(min(figure.values))} - {_number(max(figure.values))}" if len(figure.values) > 1 else ""
    return figure.name, rows, f"{_number(figure.median)} {figure.unit}", spread, figure.note


def _aims(section: Section) -> Iterator[tuple[str, ...]]:
    for figure in section.figures:
        if figure.aim is not None:
            value = figure.median if figure.values else None
            yield figure.name, *_verdict(value, figure.aim, figure.unit)
    for ratio in section.ratios:
        yield _names(ratio), *_verdict(ratio.value, ratio.aim, ratio.words)


def _names(ratio: Ratio) -> str:
    """Both names, without the section of the second and without what stands in brackets."""
    return f"{ratio.of.name} / {ratio.to.name.partition(': ')[2].partition(' (')[0]}"


def _verdict(value: float | None, aim: Aim | None, unit: str) -> tuple[str, str, str]:
    aimed = f"{aim.kind} {aim.bound:g}" if aim else ""
    if value is None:
        return "not measured", aimed, ""
    return f"{_number(value)} {unit}", aimed, ("met" if aim.met(value) else "missed") if aim else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _aligned(lines: Sequence[Sequence[str]], sides: str) -> str:
    """Markdown of the lines, the first of them the head; a column of side `r` is set to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = [
        [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, sides, strict=True)
        ]
        for line in lines
    ]
    head, *rest = ("| " + " | ".join(line) + " |" for line in cells)
    rule = [
        ("-" * (width + 1) + ":") if side == "r" else "-" * (width + 2)
        for width, side in zip(widths, sides, strict=True)
    ]
    return "\n".join([head, "|" + "|".join(rule) + "|", *rest])
