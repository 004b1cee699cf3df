"""The command runs to its end, and its contenders did the same work; what it measures is no test's business."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

import ours
import starts
from lake import write_lake

ROWS = 1_500


@contextmanager
def workers_in_threads(count: int = 2) -> Iterator[Client]:
    """As `ours.workers`, in this process, which has imported what the job by hand needs."""
    options = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=count, threads_per_worker=1, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")  # of the libraries that the job by hand uses
def test_benchmark_contenders_hold_equal_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    sizes = ["--rows", str(ROWS), "--load-rows", str(ROWS), "--repeat", "1", "--sizes", "1000", str(ROWS)]
    sizes += ["--counts", "50", "100"]
    monkeypatch.setattr(sys, "argv", ["run.py", *sizes, "--folder", str(tmp_path), "--json", str(found)])
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setattr(ours, "workers", workers_in_threads)
    monkeypatch.setattr(starts, "SAMPLE_ROWS", starts.TINY_ROWS)  # one lake serves both
    monkeypatch.setitem(write_lake.__kwdefaults__, "files", 1)  # by hand there are as many tasks for each column
    runpy.run_path(str(Path(__file__).with_name("run.py")), run_name="__main__")
    out = capsys.readouterr().out

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
            assert f"| {figure['name']} " in out
    verdicts = [line.split("|")[-2].strip() for line in out.splitlines() if " x as fast " in line]
    assert len(verdicts) == 26
    assert set(verdicts) <= {"met", "missed", ""}
