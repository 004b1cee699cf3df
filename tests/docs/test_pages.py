"""`dtap-dask docs`: which pages there are, and how they look in a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import dtap_dask
import warm
from dtap_dask.cli import tfrecords
from dtap_dask.docs.pages import page, topics

FOLDER = Path(dtap_dask.__file__).parent / "docs"
README = Path(__file__).parents[2] / "README.md"
PAGES = sorted(FOLDER.glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_without_a_topic_every_page_is_listed_with_a_line() -> None:
    result = CliRunner().invoke(tfrecords, ["docs"])
    assert result.exit_code == 0
    listed = dict(re.findall(r"^- `(\w+)`: (.+)$", result.stdout, re.MULTILINE))
    assert listed == topics()
    assert sorted(listed) == [path.stem for path in PAGES]
    assert all(len(line) < 200 and line.endswith(".") for line in listed.values()), listed


def test_a_pipe_gets_the_plain_page() -> None:
    result = CliRunner().invoke(tfrecords, ["docs", "lakes"])
    assert result.exit_code == 0
    assert result.stdout == (FOLDER / "lakes.md").read_text()


def test_marks_of_generated_parts_are_not_shown() -> None:
    assert "<!--" in (FOLDER / "sql.md").read_text()
    assert "<!--" not in page("sql")


def test_an_unknown_topic_is_an_error_with_the_nearest_one() -> None:
    result = CliRunner().invoke(tfrecords, ["docs", "lodaing"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: There is no topic 'lodaing'. Did you mean 'loading'?\n"


def test_a_terminal_gets_a_rendered_page() -> None:
    ours, theirs = pty.openpty()
    command = [warm.python(), "-m", "dtap_dask", "docs", "sql"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # Linux: the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "## Functions" not in text
    assert "Functions" in text


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text()):
        if "://" in target:
            continue
        file = path.parent / target if target else path
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), f"{target}#{anchor}"
