"""The jobs in jobs/flights/ on the flights that left New York in 2013, and what their training scripts reach."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

import dtap_dask
from dtap_dask.train.serving.export import export_features
from in_process import run_in_process

FLIGHTS = Path(__file__).parents[1] / "jobs" / "flights"


def script(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"flights_{name}", FLIGHTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with ./flights."""
    folder = tmp_path_factory.mktemp("flights")
    script("lake").main(str(folder / "flights"))
    return folder


def test_training_scripts_are_short() -> None:
    scripts = [path for path in FLIGHTS.glob("*.py") if path.stem != "lake"]
    assert scripts
    assert all(len(path.read_text().splitlines()) < 40 for path in scripts)


def test_every_kind_of_step_is_shown() -> None:
    steps = re.findall(r"^ +steps: (.*)", "\n".join(path.read_text() for path in FLIGHTS.glob("*.yaml")), re.MULTILINE)
    kinds = {"truncated_svd", "cyclic: true", "target_encode", "count_encode", "robust_scale", "quantile_transform"}
    assert {kind for kind in kinds if any(kind in line for line in steps)} == kinds


def test_late_days_are_forecast_by_their_weather(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lake)
    manifest = run_in_process(FLIGHTS / "days.yaml")
    assert {feature.name: feature.shape for feature in manifest.features}["weather"] == (10,)
    script("days").main()
    found = re.search(r"Mean absolute error: ([0-9.]+) points", capsys.readouterr().out)
    assert found
    late = [dtap_dask.read_records("flights/tfrecords/days", part)["late"].to_numpy() for part in ("train", "eval")]
    median = 100 * np.abs(late[1] - np.median(late[0])).mean()
    assert float(found[1]) < 0.9 * median  # with all 360 numbers it is a third more than the median's


def test_departures_of_an_hour_are_forecast(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lake)
    manifest = run_in_process(FLIGHTS / "hours.yaml")
    assert {name: split.rows for name, split in manifest.splits.items()} == {"train": 19_618, "eval": 6_494}
    script("hours").main()
    found = re.search(r"Mean absolute error: ([0-9.]+) departures", capsys.readouterr().out)
    assert found
    assert float(found[1]) < 4  # 4.7 with hour, weekday and day of the year as plain numbers


def test_earlier_flights_of_an_aircraft_tell_of_its_next(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lake)
    manifest = run_in_process(FLIGHTS / "sequence.yaml")
    shapes = {feature.name: feature.shape for feature in manifest.features}
    assert shapes["earlier_dests"] == shapes["earlier_delays"] == shapes["earlier_delays_mask"] == (8,)
    script("sequence").main()
    without, with_lists = map(float, re.findall(r"AUC on eval with .*: ([0-9.]+)", capsys.readouterr().out))
    assert with_lists > without + 0.01


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras writes a model
def test_delays_are_learnt_from_crosses_and_served(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lake)
    run_in_process(FLIGHTS / "late.yaml", limit=100_000)
    script("late").main()
    found = re.search(r"AUC on eval: ([0-9.]+)", capsys.readouterr().out)
    assert found
    assert float(found[1]) > 0.72  # 0.80 on all rows
    export_features("flights/tfrecords/late", "flights/served", "flights/late.keras")
    script("serve").main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    features = dtap_dask.transform(
        "flights/tfrecords/late", pq.read_table(lake / "flights/flights/month=12").slice(0, 5)
    )
    arrays = {name: np.array(features[name].to_pylist()) for name in features.column_names}
    likely = keras.saving.load_model("flights/late.keras").predict_on_batch(arrays)[:, 0]
    assert [line.rpartition(" ")[2] for line in lines] == [f"{chance:.2f}" for chance in likely]
