"""Numbers and foreign text as a person sees them."""

from __future__ import annotations

import pytest

from dtap_dask.errors import DtapError, JobError, Problem
from dtap_dask.words import count, duration, human, visible


def test_time_spans() -> None:
    spans = [duration(seconds) for seconds in (-1, 0.4, 59.4, 59.6, 185, 7_640)]
    assert spans == ["0 s", "0 s", "59 s", "1 min 00 s", "3 min 05 s", "2 h 07 min"]


def test_sizes_and_counts() -> None:
    assert [human(size) for size in (0, 1023, 1536, 3 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
    assert [count(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert count(2, "worker process") == "2 worker processes"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zürich, 東京 👍", "Zürich, 東京 👍"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("nul\0 tab\t cr\r", "nul\\x00 tab\\t cr\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("line\u2028 mark\ufeff half\ud800", "line\\u2028 mark\\ufeff half\\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(visible(text)) == shown


def test_newlines_stay_unless_they_are_not_wanted() -> None:
    assert visible("a\nb") == "a\nb"
    assert visible("a\nb", keep="") == "a\\nb"


def test_errors_cannot_control_a_terminal() -> None:
    assert str(DtapError("column \x1b[2J is odd.\nNext line.")) == "column \\x1b[2J is odd.\nNext line."
    problem = JobError([Problem("features[0]", "a\x07b"), Problem("keep", "two\nlines")])
    assert str(problem) == "features[0]: a\\x07b\nkeep: two\nlines"
