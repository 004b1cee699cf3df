"""README's section for contributors names files and classes that exist, and does not outgrow its readers."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text()
CONTRIBUTING = README.partition("## Contributing\n")[2]
NAMED = re.compile(r"`([\w./-]+(?:/|\.py|\.md|\.toml))`")
PRODUCT = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| .+ \| `([\w/]+)\.py` \| .+ \|$", re.MULTILINE)


def test_every_path_that_contributors_are_pointed_to_exists() -> None:
    named = set(NAMED.findall(CONTRIBUTING))
    assert len(named) > 40
    missing = [name for name in sorted(named) if not ((TOP / "dtap_dask" / name).exists() or (TOP / name).exists())]
    assert missing == []


def test_the_picture_s_paths_exist() -> None:
    picture = CONTRIBUTING.partition("```\n")[2].partition("```")[0]
    paths = set(re.findall(r"\b(?:cli|job|lake|features|records|train)[\w./]*[/\w]", picture))
    assert {"job/jobfile", "job/planning", "lake/scan.py", "records/commit.py"} <= paths
    missing = [path for path in sorted(paths) if "/" in path and not (TOP / "dtap_dask" / path).exists()]
    assert missing == []


def test_products_are_defined_where_the_table_says() -> None:
    rows = PRODUCT.findall(CONTRIBUTING)
    assert [names for names, _ in rows][:3] == ["`Job`", "`Plan`", "`ScanTask`"]
    for names, path in rows:
        module = f"dtap_dask.{path.replace('/', '.')}"
        for name in re.findall(r"\w+", names):
            assert getattr(importlib.import_module(module), name).__module__ == module


def test_it_stays_short() -> None:
    assert README.count("\n") <= 265
