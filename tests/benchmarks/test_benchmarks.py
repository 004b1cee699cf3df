"""The command runs to its end, and its contenders did the same work; what it measures is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ROWS = 1_500


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_benchmark_contenders_hold_equal_numbers(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    sizes = ["--rows", str(ROWS), "--load-rows", str(ROWS), "--repeat", "1", "--sizes", "1000", str(ROWS)]
    sizes += ["--counts", "50", "100"]
    command = [sys.executable, "tests/benchmarks/run.py", *sizes, "--folder", str(tmp_path), "--json", str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    numbers = json.loads(found.read_text())
    by_hand = numbers["held"].pop("by hand")
    assert by_hand["rows"] == ROWS
    assert set(numbers["held"]) == {"blocks", "rows", "rows, loaded"}
    for name, held in numbers["held"].items():
        assert held.keys() == by_hand.keys()
        for column, value in held.items():
            np.testing.assert_allclose(value, by_hand[column], rtol=1e-4, atol=1e-4, err_msg=f"{name}: {column}")

    titles = ["The whole job", "Encoding alone", "Loading", "Start-up", "Growth"]
    assert [section["title"] for section in numbers["sections"]] == titles
    for section in numbers["sections"]:
        assert section["figures"]
        for figure in section["figures"]:
            assert len(figure["values"]) == 1, figure
            assert figure["values"][0] > 0, figure
            assert f"| {figure['name']} " in done.stdout
    verdicts = [line.split("|")[-2].strip() for line in done.stdout.splitlines() if " x as fast " in line]
    assert len(verdicts) == 10
    assert set(verdicts) <= {"met", "missed", ""}
