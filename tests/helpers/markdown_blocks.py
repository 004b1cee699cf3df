"""Fenced blocks of Markdown pages. `python markdown_blocks.py FLAVOR PAGE...` runs the Python blocks of pages.

A block whose fence says `python notest` needs what no test has, and is left out. Those with `python torch` are the
flavor `torch`, all others the flavor `plain`: a process that has imported TensorFlow 2.21 crashes where it imports the
compiler of PyTorch 2.14.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

_BLOCK = re.compile(r"^( *)```(\w+)( notest| torch)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str, flavor: str = "plain") -> list[tuple[int, str]]:
    """The blocks of a language and flavor that can be run, each with the line that it begins in."""
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start(4)) + 1, textwrap.dedent(match[4]))
        for match in _BLOCK.finditer(text)
        if match[2] == language and (match[3] or " plain") == f" {flavor}"
    ]


def _run(page: Path, flavor: str) -> None:
    """Run the blocks of a page, one after the other, with the same names."""
    names = {"__name__": "__main__"}
    for line, code in blocks(page, "python", flavor):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        print(argument)
        _run(Path(argument), sys.argv[1])
