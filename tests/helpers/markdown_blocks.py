"""Fenced blocks of Markdown pages. `python markdown_blocks.py PAGE...` runs the Python blocks of pages.

A block whose fence says `python notest` needs what no test has, and is left out; one with `python torch` needs PyTorch,
and is left out where that is not installed.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import textwrap
from pathlib import Path

_BLOCK = re.compile(r"^( *)```(\w+)( notest| torch)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_WITHOUT_TORCH = importlib.util.find_spec("torch") is None


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The blocks of a language that can be run, each with the line that it begins in."""
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start(4)) + 1, textwrap.dedent(match[4]))
        for match in _BLOCK.finditer(text)
        if match[2] == language and match[3] != " notest" and not (match[3] == " torch" and _WITHOUT_TORCH)
    ]


def _run(page: Path) -> None:
    """Run the blocks of a page, one after the other, with the same names."""
    names = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(argument)
        _run(Path(argument))
