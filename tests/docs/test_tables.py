"""The tables of the reference pages are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_tables import MARKED, PAGES, SCHEMA, TABLES, UNWRITTEN, manifest_schema, renewed

PATHS = sorted(PAGES.glob("*.md"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_tables_are_those_of_the_code(path: Path) -> None:
    page = path.read_text()
    assert page == renewed(page), "run `python tests/helpers/reference_tables.py`"
    assert UNWRITTEN not in page
    assert page.count("<!-- table:") == len(MARKED.findall(page))


def test_every_table_is_in_one_page() -> None:
    found = [name for path in PATHS for _, name, _, _ in MARKED.findall(path.read_text())]
    assert sorted(found) == sorted(TABLES)


def test_the_manifest_s_schema_is_that_of_the_code() -> None:
    assert SCHEMA.read_text() == manifest_schema(), "run `python tests/helpers/reference_tables.py`"
