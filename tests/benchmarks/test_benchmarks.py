"""The benchmark runs, and its contenders did the same work; what it measures is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ROWS = 3_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_benchmark_contenders_hold_equal_numbers(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    sizes = ["--rows", str(ROWS), "--load-rows", str(ROWS), "--repeat", "1"]
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

    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    for contender in ("ours, blocks", "ours, rows", "by hand", "floor of rows", "batch + parse_example"):
        assert any(contender in line for line in table), done.stdout
