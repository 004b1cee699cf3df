"""Random expressions over all types, operators, casts and functions: every row has DuckDB's value, or none."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import dtap_dask
from dtap_dask.lake.sql.types import family
from sql_differences import TITLES, known
from sql_grammar import Grammar
from sql_rows import DuckDB, Failed, Ours, make_batch, same

FLOATS = (pa.float32(), pa.float64())
QUICK, LONG, CHUNK = 400, 3_000, 1_000


def differences(seed: int, count: int) -> tuple[list[str], Counter[str]]:
    """What differs among `count` expressions, one line each, and how the comparisons ended."""
    batch = make_batch(seed)
    database, ours, grammar = DuckDB(batch), Ours(batch), Grammar(seed)
    found: list[str] = []
    tally: Counter[str] = Counter()
    for _ in range(count):
        term, expression = grammar.expression()
        mine = ours.values(expression)
        try:
            dtype, theirs = database.values(term.theirs)
        except duckdb.Error as error:
            tally[f"DuckDB refuses: {type(error).__name__}"] += 1
            continue
        wrong = [
            (row, left, right)
            for row, (left, right) in enumerate(zip(mine, theirs, strict=True))
            if not same(left, right, term.rough) and not known(term.theirs, left, right)
        ]
        tally["compared"] += 1
        tally["with values"] += any(value is not None and not isinstance(value, Failed) for value in mine)
        if wrong:
            found.append(f"{term.ours}\n    {term.theirs}\n    {expression.type} / {dtype}: {wrong[:2]}")
        elif family(expression.type) == "float" and expression.type != dtype and dtype in FLOATS:
            found.append(f"{term.ours}: {expression.type}, but DuckDB has {dtype}")
    tally["refused by us"] = grammar.refused
    return found, tally


def check(seed: int, count: int) -> None:
    found, tally = differences(seed, count)
    assert not found, f"{len(found)} of {tally}:\n" + "\n".join(found[:20])
    assert tally["compared"] > 0.7 * count
    assert tally["with values"] > 0.4 * count


@pytest.mark.parametrize("seed", range(2))
def test_every_row_has_the_value_that_duckdb_gives(seed: int) -> None:
    check(seed, QUICK // 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 100 + LONG // CHUNK))
def test_every_row_has_the_value_that_duckdb_gives_at_length(seed: int) -> None:
    check(seed, CHUNK)


def test_each_difference_that_is_left_is_documented() -> None:
    page = (Path(dtap_dask.__file__).parent / "docs/sql.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \*\*(.+?)\.?\*\*", page.partition("## Differences from DuckDB")[2], re.MULTILINE)
    assert sorted(listed) == sorted(TITLES)
