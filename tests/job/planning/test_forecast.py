"""What a plan forecasts, with and without a probe, how it reads, and how it is held against what came of it."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from distributed.system import memory_limit
from hypothesis import given
from hypothesis import strategies as st

from documents import Document
from dtap_dask.cli import tfrecords
from dtap_dask.job.cluster import machine
from dtap_dask.job.planning import grouping, warnings
from dtap_dask.job.planning.describe import plan_numbers
from dtap_dask.job.planning.distinct_values import expected_distinct
from dtap_dask.job.planning.forecast import Forecast, forecast
from dtap_dask.job.planning.plan import Plan, make_plan
from dtap_dask.job.planning.plan_text import WIDTH, format_plan
from dtap_dask.job.planning.probe import probe, spread
from dtap_dask.job.status.comparison import read_comparisons
from dtap_dask.job.status.folder import read_runs
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.local import LocalFiles
from in_process import run_in_process
from property_tests import examples

WORDS = "The distinct values of"
REFUSED = "cannot be written from this machine"
IDLE = "will be idle"


def size(manifest: Manifest) -> int:
    return sum(shard.bytes for part in manifest.splits.values() for shard in part.shards)


def shards(manifest: Manifest) -> dict[str, int]:
    return {name: len(part.shards) for name, part in manifest.splits.items()}


def warned(plan: Plan, expected: Forecast) -> str:
    return "\n".join(plan_numbers(plan, expected)["warnings"])


# Forecast and run


def test_a_probe_forecasts_rows_and_bytes(job: Document) -> None:
    plan = make_plan(job)
    without, expected = forecast(plan), forecast(plan, probe(plan, 0.5))
    manifest = run_in_process(job)
    rows = {name: part.rows for name, part in manifest.splits.items()}
    assert (expected.certainty, without.certainty) == ("about", "at most")
    assert expected.rows == pytest.approx(sum(rows.values()), rel=0.1)
    assert expected.bytes[0] == expected.bytes[1] == pytest.approx(size(manifest), rel=0.1)
    assert {part.name: part.rows for part in expected.parts} == pytest.approx(rows, rel=0.2)
    assert sum(rows.values()) <= without.rows == plan.totals.rows.read
    assert without.bytes[1] >= size(manifest)


@pytest.mark.parametrize("layout", ["blocks", "rows"])
def test_where_nothing_is_filtered_the_forecast_is_what_is_written(job: Document, layout: str) -> None:
    del job["source"]["where"], job["split"]
    job["features"] = [{"columns": ["trip_miles", "fare"], "steps": [{"impute": {"strategy": "mean"}}]}]
    job["output"] |= {"shard_size": "8KiB", "layout": layout}
    expected = forecast(make_plan(job))
    manifest = run_in_process(job)
    assert (expected.certainty, expected.rows) == ("exactly", 20_000)
    assert {part.name: part.shards for part in expected.parts} == shards(manifest)
    assert expected.shards > len(make_plan(job).write_tasks)
    assert expected.bytes[0] == pytest.approx(size(manifest), rel=0.1)
    assert expected.bytes[1] == pytest.approx(size(manifest), rel=0.1)


def test_fractions_give_the_rows_of_each_part(job: Document) -> None:
    job["source"] |= {"where": None, "sample": 0.5}
    expected = forecast(make_plan(job))
    manifest = run_in_process(job)
    assert expected.certainty == "about"
    assert expected.rows == pytest.approx(sum(part.rows for part in manifest.splits.values()), rel=0.1)
    assert {part.name: part.rows for part in expected.parts} == pytest.approx(
        {name: part.rows for name, part in manifest.splits.items()}, rel=0.1
    )
    assert {part.name: part.shards for part in expected.parts} == shards(manifest)
    assert expected.bytes[0] <= 1.1 * size(manifest)
    assert expected.bytes[1] >= 0.9 * size(manifest)


def test_conditions_for_parts_only_bound_them(job: Document) -> None:
    job["source"]["where"] = None
    job["split"] = {"where": {"train": "month < 10", "eval": "month >= 10"}}
    plan = make_plan(job)
    expected = forecast(plan)
    assert expected.certainty == "at most"
    assert [part.rows for part in expected.parts] == [plan.totals.rows.read] * 2
    assert expected.rows == plan.totals.rows.read
    measured = forecast(plan, probe(plan, 0.5))
    assert measured.certainty == "about"
    assert measured.parts[0].rows == pytest.approx(0.75 * plan.totals.rows.read, rel=0.2)


def test_forecast_and_measured_are_told_and_kept(job: Document, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run_in_process(job, progress="plain", probe=True)
    told = capsys.readouterr().err
    store = open_store(job["output"]["path"])
    [snapshot] = read_runs(store)
    found = {one.what: one for one in read_comparisons(store, snapshot.id)}
    assert list(found) == ["rows", "bytes", "shards", "seconds of fit", "seconds of write"]
    assert all(str(one) in told for one in found.values())
    assert found["rows"].measured == sum(part.rows for part in manifest.splits.values())
    assert found["bytes"].measured == size(manifest)
    assert found["shards"].measured == sum(shards(manifest).values())
    assert [found[f"seconds of {one.name}"].measured for one in snapshot.stages] == [s.seconds for s in snapshot.stages]
    assert store.size(f"_run/status/{snapshot.id}.forecast") < 1000
    looked = CliRunner().invoke(tfrecords, ["status", store.url])
    assert all(str(one) in looked.stdout for one in found.values())
    as_json = json.loads(CliRunner().invoke(tfrecords, ["status", store.url, "--json"]).stdout)
    assert [one["what"] for one in as_json["forecast"]] == list(found)


# The probe


def test_a_probe_of_no_time_sees_one_row_group(job: Document, tmp_path: Path) -> None:
    plan = make_plan(job)
    measured = probe(plan, 0.0)
    assert measured.row_groups == 1 < len(plan.groups)
    assert measured.rows == plan.groups[0].rows
    assert [pace.stage for pace in measured.paces] == ["fit", "write"]
    assert all(pace.rows == measured.rows and pace.rows_per_second > 0 for pace in measured.paces)
    assert list(tmp_path.iterdir()) == []


def test_a_probe_sees_what_is_there(job: Document) -> None:
    """All of this small lake, so its counts are those of the lake."""
    plan = make_plan(job)
    measured = probe(plan, 60.0)
    assert (measured.row_groups, measured.rows) == (len(plan.groups), plan.totals.rows.read)
    table = pq.read_table(job["source"]["path"], columns=["trip_start", "fare", "company", "payment_type"])
    kept_rows = table.filter(
        (pa.compute.field("fare") > 0)
        & (pa.compute.field("trip_start") >= pa.scalar("2013-06-01").cast(table.schema.field("trip_start").type))
        & pa.compute.field("company").is_valid()
    )
    assert sum(measured.kept) == kept_rows.num_rows
    seen = {column.column: column.seen for column in measured.distinct}
    assert seen["company"] == pytest.approx(len(kept_rows["company"].unique()), abs=3)  # the train part alone
    assert {words.column for words in measured.distinct} == {"company", "payment_type"}
    assert all(words.expected == words.seen for words in measured.distinct)


def test_jobs_of_one_pass_and_of_counting_are_measured(job: Document) -> None:
    job["features"] = [{"columns": ["fare"]}]
    counting = forecast(make_plan(job), probe(make_plan(job), 0.2))
    assert list(counting.seconds) == ["count", "write"]
    del job["source"]["where"], job["split"]
    single = forecast(make_plan(job), probe(make_plan(job), 0.2))
    assert list(single.seconds) == ["write"]
    assert single.certainty == "exactly"


def test_two_levels_are_measured_one_after_the_other(job: Document) -> None:
    steps = ["standard_scale", {"bucketize": {"quantiles": 4}}]
    job["features"] = [{"columns": ["fare"], "steps": steps}]
    plan = make_plan(job)
    expected = forecast(plan, probe(plan, 0.2), workers=4)
    assert list(expected.seconds) == ["fit 1", "fit 2", "write"]
    rounds = -(-len(plan.write_tasks) // 4)
    assert expected.probe is not None
    pace = expected.probe.paces[-1]
    alone = plan.totals.rows.read / pace.rows_per_second
    assert expected.seconds["write"] == pytest.approx(alone * rounds / len(plan.write_tasks))


def test_a_row_that_stops_a_run_is_told_with_the_plan(job: Document) -> None:
    job["features"] = [{"columns": ["trip_miles"]}]  # has nulls
    plan = make_plan(job)
    expected = forecast(plan, probe(plan, 60.0))
    assert expected.seconds == {}
    told = plan_numbers(plan, expected)
    assert told["probe"]["forecast_seconds"] is None
    assert any("The probe ended early, and so may a run: " in one and "trip_miles" in one for one in told["warnings"])
    assert "time        not known" in format_plan(told)


def test_time_with_dask_ml_is_not_known(job: Document) -> None:
    job["fit"] = "dask_ml"
    plan = make_plan(job)
    told = plan_numbers(plan, forecast(plan, probe(plan, 0.1)))
    assert told["probe"]["forecast_seconds"] is None
    assert "the probe does not measure fit: dask_ml" in format_plan(told).replace("\n", " ").replace(
        "                  ", ""
    )


@given(st.integers(1, 5000))
def test_the_first_places_are_spread_over_all(count: int) -> None:
    order = list(spread(count))
    assert sorted(order) == list(range(count))
    if count >= 64:
        assert np.diff(sorted(islice(spread(count), 8))).max() <= count // 4


@given(st.lists(st.integers(1, 9), max_size=50), st.floats(1, 1e6))
def test_distinct_values_stay_within_what_is_possible(tally: list[int], more: float) -> None:
    rows = sum(tally)
    assert len(tally) <= expected_distinct(np.array(tally, np.int64), rows, rows * more) <= max(round(rows * more), 0)


def tally_of(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.unique(values, return_counts=True)[1]


@examples(0.15)
@given(st.integers(0, 2**32), st.sampled_from([20, 300]))
def test_a_vocabulary_that_is_complete_is_expected_to_stay_so(seed: int, words: int) -> None:
    values = np.random.default_rng(seed).integers(0, words, 20_000)
    assert expected_distinct(tally_of(values), 20_000, 10**9) == words


def test_values_that_never_repeat_are_expected_to_go_on_so() -> None:
    assert expected_distinct(np.ones(20_000, np.int64), 20_000, 10**7) == 10**7


@pytest.mark.parametrize("exponent", [0, 0.5, 0.8, 1.05, 1.3])
@pytest.mark.parametrize("words", [7_500, 75_000, 750_000])
def test_distinct_values_of_ten_times_the_rows(exponent: float, words: int) -> None:
    """From all values alike to Zipf's law with a short tail."""
    random, rows = np.random.default_rng(0), 500_000
    chances = np.cumsum(np.arange(1, words + 1, dtype=np.float64) ** -exponent)
    values = np.searchsorted(chances / chances[-1], random.random(rows))
    found = expected_distinct(tally_of(values[: rows // 10]), rows // 10, rows)
    assert found == pytest.approx(len(np.unique(values)), rel=0.3)


# How it reads


@pytest.mark.parametrize("measured", [False, True])
def test_the_text_is_made_of_the_json_and_fits_a_terminal(job: Document, tmp_path: Path, measured: bool) -> None:
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = ["plan", str(tmp_path / "job.json"), *(["--probe", "--workers", "3"] if measured else [])]
    told = json.loads(CliRunner().invoke(tfrecords, [*command, "--json"]).stdout)
    text = format_plan(told)
    if not measured:
        assert CliRunner().invoke(tfrecords, command).stdout == text + "\n"
    assert max(map(len, text.splitlines())) <= WIDTH
    numbers = [told["source"]["files"]["found"], told["source"]["row_groups"]["read"], told["source"]["rows"]["read"]]
    numbers += [told["tasks"]["fit"], told["tasks"]["write"], told["output"]["rows"], told["output"]["shards"]]
    numbers += [part[key] for part in told["output"]["parts"].values() for key in ("rows", "shards")]
    if measured:
        numbers += [stage["rows_per_second"] for stage in told["probe"]["stages"].values()]
        numbers += [told["probe"]["row_groups"], *(one["seen"] for one in told["probe"]["distinct"].values())]
        assert f"about {told['probe']['forecast_seconds']:.1f} s on 3 threads" in text
    for number in numbers:
        assert f"{number:,}" in text
    assert not (tmp_path / "out").exists()


def test_every_step_that_is_fitted_has_a_line(job: Document) -> None:
    plan = make_plan(job)
    told = plan_numbers(plan, forecast(plan))
    steps = {"impute", "standard_scale", "ordinal_encode", "bucketize"}
    assert set(told["levels"][0]["steps"]) == steps
    assert told["levels"][0]["steps"]["ordinal_encode"] == ["payment_type", "company"]
    lines = format_plan(told).splitlines()
    assert {line.split()[2] for line in lines if line.startswith("│  │    ") and line[8] != " "} == steps


def test_it_looks_at_nothing_but_listings_and_footers(job: Document, tmp_path: Path) -> None:
    plan = make_plan(job)
    plan_numbers(plan, forecast(plan))
    counters = plan.source.counters
    assert 0 < counters.bytes_read == counters.footer_bytes
    assert list(tmp_path.iterdir()) == []


def test_a_plan_waits_for_no_cluster_and_no_training_library() -> None:
    code = "import sys, dtap_dask.job.planning.describe; print(*{name.split('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"distributed", "dask_ml", "tensorflow", "pandas", "sklearn", "bokeh"} & set(found)


# Warnings that need more than the source


def test_a_normal_plan_has_no_warnings(job: Document) -> None:
    plan = make_plan(job)
    assert plan_numbers(plan, forecast(plan))["warnings"] == []
    assert plan_numbers(plan, forecast(plan, probe(plan, 0.2), workers=8))["warnings"] == []


def test_more_threads_than_tasks_are_told(job: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    assert IDLE not in warned(make_plan(job), forecast(make_plan(job), workers=100))  # no lake makes more of few bytes
    monkeypatch.setattr(grouping, "TASK_BYTES", 1000)
    plan = make_plan(job)
    told = warned(plan, forecast(plan, workers=100))
    assert f"Only {len(plan.write_tasks)} write tasks for 100 threads: {100 - len(plan.write_tasks)} {IDLE}" in told
    assert IDLE not in warned(plan, forecast(plan, workers=len(plan.write_tasks)))


def test_many_tiny_tasks_are_told(job: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit lowered: 20,000 tasks take a lake of 160,000 row groups."""
    monkeypatch.setattr(grouping, "TASK_BYTES", 1)
    plan = make_plan(job)
    assert "Dask's scheduler alone" not in warned(plan, forecast(plan))
    monkeypatch.setattr(warnings, "MANY_TASKS", 5)
    assert "Write the lake with larger row groups, 16 to 128 MiB each." in warned(plan, forecast(plan))


@pytest.fixture
def names(tmp_path: Path) -> Document:
    """A job on 60,000 texts of 64 letters that never repeat."""
    (tmp_path / "lake").mkdir()
    table = pa.table({"name": [f"{i:064d}" for i in range(60_000)]})
    pq.write_table(table, tmp_path / "lake" / "a.parquet")
    return {
        "version": 1,
        "source": {"path": str(tmp_path / "lake")},
        "features": [{"columns": "name", "steps": [{"ordinal_encode": {"top_k": 10}}]}],
        "output": {"path": str(tmp_path / "out")},
    }


@pytest.mark.parametrize("measured", [False, True])
def test_a_vocabulary_that_will_not_fit_is_told(names: Document, measured: bool) -> None:
    plan = make_plan(names)
    seen = probe(plan, 0.5) if measured else None
    told = warned(plan, forecast(plan, seen, memory=16 << 20))
    verb = "would take" if measured else "may take up to"
    assert f"{WORDS} name {verb}" in told
    assert "and a worker has 16.0 MiB:" in told
    assert "use `hash_encode`" in told
    assert ("plan --probe" in told) != measured
    assert WORDS not in warned(plan, forecast(plan, seen, memory=1 << 30))
    hashed = copy.deepcopy(names)
    hashed["features"][0]["steps"] = [{"hash_encode": 100}]
    plan = make_plan(hashed)
    assert WORDS not in warned(plan, forecast(plan, probe(plan, 0.2) if measured else None, memory=16 << 20))


def test_words_in_dictionaries_are_few(job: Document) -> None:
    plan = make_plan(job)
    assert plan.source_notes.plain_text == {}
    assert WORDS not in warned(plan, forecast(plan, memory=1 << 20))


def test_an_output_that_cannot_be_written_is_told(job: Document, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job["output"]["path"] = str(tmp_path / "file" / "out")
    plan = make_plan(job)
    told = warned(plan, forecast(plan))
    assert f"The output {tmp_path}/file/out {REFUSED}: " in told
    assert "DataTap" not in told
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("there", [True, False])
def test_a_tap_that_is_read_only_is_told(
    job: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """The refusal is made up, as the tests may run as root; the folder that is asked is the nearest there is."""
    (tmp_path / "tap" / "a" / ("b" if there else ".")).mkdir(parents=True)
    job["storage"] = {"dtap": {"map": {"T": str(tmp_path / "tap")}}}
    job["output"]["path"] = "dtap://T/a/b/c"
    plan = make_plan(job)
    before = set(tmp_path.rglob("*"))
    assert plan_numbers(plan, forecast(plan))["warnings"] == []
    assert set(tmp_path.rglob("*")) == before
    asked: list[Path] = []

    def refuse(self: LocalFiles, path: str) -> None:
        asked.append(Path(path).parent)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(LocalFiles, "open_output", refuse)
    told = warned(plan, forecast(plan))
    assert f"The output dtap://T/a/b/c {REFUSED}: " in told
    assert "A DataTap may be read-only from within a tenant's nodes" in told
    assert asked == [tmp_path / "tap" / "a" / ("b" if there else "")]
    assert set(tmp_path.rglob("*")) == before


def test_an_object_store_is_not_asked_before_there_is_a_folder(job: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("its folders are but names")

    job["output"]["path"] = "memory://bucket/a/b"
    plan = make_plan(job)
    monkeypatch.setattr(Store, "create", never)
    assert plan_numbers(plan, forecast(plan))["warnings"] == []


def test_memory_is_that_of_the_machine_or_as_named(job: Document, tmp_path: Path) -> None:
    assert 0 < machine.memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.memory() == memory_limit()  # Dask's own idea of it, with which it watches workers
    plan = make_plan(job)
    assert forecast(plan, workers=4).worker_memory == machine.memory() // 4
    (tmp_path / "job.json").write_text(json.dumps(job))
    found = CliRunner().invoke(tfrecords, ["plan", str(tmp_path / "job.json"), "--json", "--memory", "3GiB"])
    assert json.loads(found.stdout)["worker"]["memory_bytes"] == 3 << 30
    wrong = CliRunner().invoke(tfrecords, ["plan", str(tmp_path / "job.json"), "--memory", "lots"])
    assert (wrong.exit_code, "--memory 'lots' is not a size such as 4GiB." in wrong.stderr) == (2, True)
