"""`dtap-dask docs`: the pages of this folder by topic, as plain Markdown or rendered for a terminal."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dtap_dask.errors import JobError, did_you_mean

_FOLDER = Path(__file__).parent
_COMMENT = re.compile(r"<!--.*?-->\n*", re.DOTALL)  # marks generated parts


def topics() -> dict[str, str]:
    """Every topic with its summary: the first sentence of its page."""
    return {path.stem: _summary(page(path.stem)) for path in sorted(_FOLDER.glob("*.md"))}


def page(topic: str) -> str:
    """The Markdown of a page. JobError for a topic that does not exist."""
    path = _FOLDER / f"{topic}.md"
    known = sorted(found.stem for found in _FOLDER.glob("*.md"))
    if topic not in known:
        raise JobError(f"There is no topic {topic!r}.{did_you_mean(topic, known)}")
    return _COMMENT.sub("", path.read_text(encoding="utf-8"))


def print_docs(topic: str | None) -> None:
    """Print a page, or all topics; rendered if standard output is a terminal."""
    text = _contents() if topic is None else page(topic)
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text, hyperlinks=False))


def _contents() -> str:
    lines = [f"- `{topic}`: {summary}\n" for topic, summary in topics().items()]
    return "".join(["# Documentation\n\n`dtap-dask docs TOPIC` shows one of these pages:\n\n", *lines])


def _summary(text: str) -> str:
    """The first sentence below the title, on one line."""
    paragraph = " ".join(text.split("\n\n")[1].split())
    return re.split(r"(?<=\.) (?=[A-Z`])", paragraph, maxsplit=1)[0]
