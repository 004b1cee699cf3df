"""The jobs in jobs/ run as they stand on the sample lake; the training script learns from the tap and writes back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import dtap_dask
import warm
from dtap_dask.lake.sample.sample_lake import write_sample
from dtap_dask.storage import open_store
from in_process import run_in_process
from waiting import HANG

JOBS = Path(__file__).parents[1] / "jobs"


def test_every_job_runs_and_the_script_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(open_store(str(tmp_path / "lake")), 20_000)
    monkeypatch.chdir(tmp_path)
    jobs = sorted(JOBS.glob("*.yaml"))
    assert {"local.yaml", "taxi.yaml"} <= {job.name for job in jobs}
    manifests = {job.name: run_in_process(job) for job in jobs}
    for name, manifest in manifests.items():
        assert all(split.rows > 0 for split in manifest.splits.values()), name

    command = [warm.python("tensorflow"), JOBS / "train.py"]
    trained = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert trained.returncode == 0, trained.stderr
    found = re.search(r"AUC on eval: ([0-9.]+)", trained.stdout)
    assert found, trained.stdout
    assert float(found[1]) > 0.7
    results = tmp_path / "lake/models/trips"
    told = pq.read_table(results / "predictions.parquet").to_pandas()
    trips = dtap_dask.read(JOBS / "taxi.yaml").compute(scheduler="synchronous").set_index("trip_id")
    assert len(told) == manifests["taxi.yaml"].splits["test"].rows
    assert told["trip_id"].is_unique
    joined = trips.loc[told["trip_id"].to_numpy()]
    assert np.array_equal(joined["big_tipper"].to_numpy(dtype=float), told["big_tipper"])
    assert roc_auc_score(told["big_tipper"], told["prediction"]) > 0.7
    model = keras.models.load_model(results / "model.keras")
    assert set(model.input) == set(dtap_dask.inputs(tmp_path / "lake/tfrecords/trips"))
