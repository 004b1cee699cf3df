"""What the job with the lowest versions installs."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lowest import constraints

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_each_direct_dependency_at_its_lowest_version() -> None:
    found = [Requirement(line) for line in constraints(PROJECT.read_text())]
    assert {"dask", "pyarrow", "tensorflow", "numpy", "hdfs-native"} <= {one.name for one in found}
    assert all([spec.operator for spec in one.specifier] == ["=="] for one in found)
    text = '[project]\ndependencies = ["a[x,y]>=1.2", "b.c-d>=3,<4"]'
    assert constraints(text) == ["a==1.2", "b.c-d==3"]


@pytest.mark.parametrize("requirement", ["a", "a<2", "a==1", "a>1"])
def test_one_without_a_lower_bound_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match=f"'{requirement}' has no lower bound"):
        constraints(f'[project]\ndependencies = ["{requirement}"]')
