"""The lowest versions of the direct dependencies that pyproject.toml allows, as constraints for pip.

python tests/helpers/lowest.py > constraints.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

LOWEST = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\w.]+)(,.*)?")


def constraints(text: str) -> list[str]:
    """`name==version` for each dependency in the text of a pyproject.toml; each must have a lower bound."""
    found = []
    for requirement in tomllib.loads(text)["project"]["dependencies"]:
        match = LOWEST.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound that is tested")
        found.append(f"{match['name']}=={match['version']}")
    return found


if __name__ == "__main__":
    print(*constraints((Path(__file__).parents[2] / "pyproject.toml").read_text()), sep="\n")
