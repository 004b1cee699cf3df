"""Commands, options and scripts that README and pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dtap_dask import errors
from dtap_dask.cli import tfrecords

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", TOP / "docker/README.md", *sorted((TOP / "dtap_dask/docs").glob("*.md"))]
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
COMMAND = re.compile(r"dtap-dask ([a-z]+)\b([^`#\n]*)")
SCRIPT = re.compile(r"python ([\w./]+\.py)\b")


def commands(page: Path) -> list[tuple[str, str]]:
    """Each command in the code of a page, and what follows it."""
    return [found for code in CODE.findall(page.read_text()) for found in COMMAND.findall(code)]


def options(name: str) -> set[str]:
    found = {option for part in tfrecords.commands[name].params for option in part.opts}
    return {*found, "--help", *(option for part in tfrecords.params for option in part.opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_commands_and_their_options_exist(page: Path) -> None:
    for name, rest in commands(page):
        assert isinstance(tfrecords.commands.get(name), click.Command), name
        unknown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest.partition("   ")[0])) - options(name)
        assert not unknown, f"dtap-dask {name}{rest}"


def test_the_check_finds_commands() -> None:
    assert len(commands(TOP / "README.md")) > 10


def test_exit_codes_of_errors_are_listed() -> None:
    page = (TOP / "dtap_dask/docs/commands.md").read_text()
    listed = {int(code) for code in re.findall(r"^\| (\d+) \| ", page, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DtapError)]
    assert listed == {0, 130, *(kind.exit_code for kind in kinds)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_scripts_exist(page: Path) -> None:
    for script in SCRIPT.findall(page.read_text()):
        assert (TOP / script).is_file(), script
