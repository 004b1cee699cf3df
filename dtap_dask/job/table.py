"""Rows as a table that fits the terminal, or as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtap_dask.features import Rows
from dtap_dask.words import terminal_width, visible

GAP = 2  # spaces between the columns of a table
LONGEST_TEXT = 500  # the most characters of a text that a table shows; JSON has all of them


def plain(value: Any) -> Any:
    """A NumPy, Arrow or bytes value as a JSON value; bytes that are not UTF-8 are escaped with backslashes."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, np.ndarray | list):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def as_records(rows: Rows) -> list[dict[str, Any]]:
    """One dict per row."""
    count = len(next(iter(rows.values()))) if rows else 0
    return [{name: plain(column[i]) for name, column in rows.items()} for i in range(count)]


def print_rows(rows: Rows, *, as_json: bool = False) -> None:
    """Print rows as JSON lines, or as tables with a line for each column and as many rows side by side as fit."""
    records = as_records(rows)
    if as_json:
        for record in records:
            print(json.dumps(record))
        return
    names = [visible(name, keep="") for name in rows]
    cells = [[_short(record[name]) for name in rows] for record in records]
    width = terminal_width()
    for number, (start, end) in enumerate(_beside(names, cells, width)):
        if number:
            print()
        _print_table(names, cells, range(start, end), width or 10_000)


def _beside(names: Sequence[str], cells: Sequence[Sequence[str]], width: int | None) -> Iterator[tuple[int, int]]:
    """The rows of each table as [start, end): one table if the width is unlimited."""
    if width is None or not cells:
        yield 0, len(cells)
        return
    left = width - max(map(cell_len, names), default=0)
    start, used = 0, 0
    for at, row in enumerate(cells):
        needed = GAP + max([len(f"row {at + 1}"), *map(cell_len, row)])
        if at > start and used + needed > left:
            yield start, at
            start, used = at, 0
        used += needed
    yield start, len(cells)


def _print_table(names: Sequence[str], cells: Sequence[Sequence[str]], shown: range, width: int) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("column", no_wrap=max(map(cell_len, names), default=0) <= width // 2, overflow="fold")
    for at in shown:
        table.add_column(f"row {at + 1}", overflow="fold")
    for number, name in enumerate(names):
        table.add_row(Text(name), *(Text(cells[at][number]) for at in shown))
    Console(width=width, highlight=False).print(table)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        shown = ", ".join(_short(one) for one in value[:8])
        return f"[{shown}, ... {len(value)} in all]" if len(value) > 8 else f"[{shown}]"
    if value is None:
        return "null"
    text = str(value)
    cut = f"... ({len(text):,} characters)" if len(text) > LONGEST_TEXT else ""
    return visible(text[:LONGEST_TEXT], keep="") + cut
