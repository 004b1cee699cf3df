"""One name for one thing, one place for each path, and the field's own words."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dtap_dask"
# Each had a meaning of its own in this code, which no reader from elsewhere could know.
DIALECT = re.compile(
    r"\b(tellers?|noticeboard|(go|goes|going|gone) on with|so many|in turns|the house)\b", re.IGNORECASE
)


def types_in(tree: ast.Module) -> Iterator[str]:
    """The classes at any depth of a module, and its type aliases: assignments to one name in CamelCase."""
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.lstrip("_")[:1].isupper() and not name.isupper():
                yield name


def test_a_class_name_stands_for_one_thing() -> None:
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in types_in(ast.parse(path.read_text(encoding="utf-8"))):
            places[name].append(str(path.relative_to(PACKAGE)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_paths_below_the_run_folder_are_spelt_in_one_file() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
        if any(isinstance(node.value, str) and re.search(r"(^|/)_run(/|$)", node.value) for node in texts):
            found.add(str(path.relative_to(PACKAGE)))
    assert found == {"records/folder.py"}


def test_the_private_dialect_does_not_come_back() -> None:
    files = [path for pattern in ("*.py", "*.md") for path in PACKAGE.rglob(pattern)]
    files += [ROOT / "README.md", *(ROOT / "docker").rglob("*.md"), *(ROOT / "jobs").iterdir()]
    lines = [(path, line) for path in files if path.is_file() for line in path.read_text(encoding="utf-8").split("\n")]
    assert [f"{path.relative_to(ROOT)}: {line.strip()}" for path, line in lines if DIALECT.search(line)] == []
