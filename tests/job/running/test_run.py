"""The main job: its outputs, its determinism, and what it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from distributed import Client

import dtap_dask
from datasets import rows_of
from digests import digests
from documents import Document, taxi_job
from dtap_dask.errors import DataError, DtapError, JobError
from dtap_dask.features import FittedState, Transform
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.records.verify import verify_dataset
from dtap_dask.storage import open_store
from in_process import run_in_process


def expected_rows(lake: Path) -> pa.Table:
    """The rows that the job keeps, by pyarrow's own reader and filter."""
    files = sorted(str(path) for path in (lake / "trips").rglob("year=*/**/*.parquet"))
    table = pads.dataset(files, format="parquet").to_table()
    since = pa.scalar("2013-06-01").cast(table.schema.field("trip_start").type)
    keep = pc.and_(pc.greater_equal(table["trip_start"], since), pc.greater(table["fare"], 0.0))
    return table.filter(pc.and_kleene(keep, pc.is_valid(table["company"])))


def test_every_row_comes_out_once_and_in_its_part(job: Document, lake: Path) -> None:
    manifest = run_in_process(job)
    path = Path(job["output"]["path"])
    expected = expected_rows(lake)
    ids = {split: np.asarray(rows_of(path, split)["trip_id"]) for split in manifest.splits}
    assert sorted(np.concatenate(list(ids.values()))) == sorted(expected["trip_id"].to_pylist())
    assert {name: len(found) for name, found in ids.items()} == {
        name: part.rows for name, part in manifest.splits.items()
    }
    share = {name: len(found) / expected.num_rows for name, found in ids.items()}
    assert share == pytest.approx({"train": 0.8, "eval": 0.1, "test": 0.1}, abs=0.01)
    assert (path / "_SUCCESS").read_bytes() == b""
    assert verify_dataset(open_store(str(path)), manifest).rows == expected.num_rows
    assert {info.name: (info.role, info.dtype, info.shape) for info in manifest.infos}["sizes"] == (
        "feature",
        "float32",
        (2,),
    )


def test_the_values_are_those_of_numpy_over_the_train_rows(job: Document, lake: Path) -> None:
    run_in_process(job)
    table = expected_rows(lake)
    order = {trip: i for i, trip in enumerate(table["trip_id"].to_pylist())}
    miles = table["trip_miles"].to_numpy().astype(np.float64)
    train = rows_of(Path(job["output"]["path"]), "train")
    raw = miles[[order[int(trip)] for trip in train["trip_id"]]]
    mean = np.nanmean(raw)
    filled = np.where(np.isnan(raw), mean, raw)
    np.testing.assert_allclose(train["trip_miles"], (filled - mean) / filled.std(), rtol=1e-5, atol=1e-6)
    sizes = np.log1p(np.clip(np.nan_to_num(raw), 0, None))
    np.testing.assert_allclose(train["sizes"][:, 0], (sizes - sizes.mean()) / sizes.std(), rtol=1e-5, atol=1e-6)
    tips, fare = table["tips"].to_numpy(), table["fare"].to_numpy()
    label = (tips > 0.2 * fare)[[order[int(trip)] for trip in train["trip_id"]]]
    np.testing.assert_array_equal(train["big_tipper"], label)


def test_the_same_job_gives_the_same_bytes_on_other_workers(job: Document, tmp_path: Path, client: Client) -> None:
    dtap_dask.run(job, client=client, progress="silent")
    again = copy.deepcopy(job)
    again["output"]["path"] = str(tmp_path / "again")
    with open_client(ClusterOptions(workers=1)) as other:
        dtap_dask.run(again, client=other, progress="silent")
    first, second = digests(tmp_path / "out"), digests(tmp_path / "again")
    assert len([name for name in first if name.endswith(".tfrecord")]) == 6
    assert first.pop("manifest.json") != second.pop("manifest.json")  # it holds the job, and so the output's path
    assert first == second


def test_fitting_sees_the_train_part_only(tmp_path: Path) -> None:
    """A value that only `eval` has must leave no trace in means, limits and vocabularies."""
    table = pa.table(
        {
            "x": pa.array([1.0, 2.0, 3.0, 1e9]),
            "word": pa.array(["a", "b", "a", "planted"]),
            "part": pa.array([0, 0, 0, 1]),
        }
    )
    pq.write_table(table, tmp_path / "part.parquet")
    job = {
        "version": 1,
        "source": {"path": str(tmp_path / "part.parquet")},
        "split": {"where": {"train": "part = 0", "eval": "part = 1"}},
        "features": [
            {"columns": ["x"], "steps": ["standard_scale"]},
            {"columns": ["x"], "steps": ["minmax_scale"], "as": "x01"},
            {"columns": ["word"], "steps": ["ordinal_encode"]},
        ],
        "output": {"path": str(tmp_path / "out")},
    }
    manifest = run_in_process(job)
    assert {name: part.rows for name, part in manifest.splits.items()} == {"train": 3, "eval": 1}
    train, held_out = rows_of(tmp_path / "out", "train"), rows_of(tmp_path / "out", "eval")
    assert sorted(train["x01"].tolist()) == [0.0, 0.5, 1.0]
    assert np.mean(train["x"]) == pytest.approx(0, abs=1e-6)
    assert held_out["x01"][0] > 1e8
    assert held_out["word"].tolist() == [1]  # the out-of-vocabulary bucket
    assert next(info.ids for info in manifest.infos if info.name == "word") == 4
    for name in ("transform.json", *(f"transform/{i.name}" for i in (tmp_path / "out" / "transform").iterdir())):
        assert b"planted" not in (tmp_path / "out" / name).read_bytes()


def test_fitted_state_turns_raw_rows_into_what_the_records_hold(job: Document, lake: Path) -> None:
    run_in_process(job)
    store = open_store(job["output"]["path"])
    state = FittedState.load(store)
    table = expected_rows(lake)
    big_tipper = pc.greater(table["tips"], pc.multiply(table["fare"], 0.2))
    table = table.append_column("big_tipper", big_tipper).select(list(state.graph.columns)).combine_chunks()
    applied = Transform(state).apply(table.to_batches()[0])
    position = {int(trip): i for i, trip in enumerate(applied["trip_id"])}
    for split in ("train", "eval", "test"):
        held = rows_of(Path(job["output"]["path"]), split)
        index = [position[int(trip)] for trip in held["trip_id"]]
        for name, column in held.items():
            np.testing.assert_array_equal(column, np.asarray(applied[name])[index], err_msg=name)


@pytest.fixture(scope="module")
def dataset(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the job."""
    folder = tmp_path_factory.mktemp("dataset") / "out"
    run_in_process(taxi_job(lake / "trips", folder))
    return folder


@pytest.mark.parametrize(
    "output",
    [
        {"layout": "rows", "compression": "gzip"},
        {"layout": "rows", "shuffle": "global"},
        {"layout": "rows", "shuffle": "none"},
        {"shuffle": "none", "rows_per_record": 7, "shard_size": "20KiB"},
    ],
)
def test_layouts_hold_the_same_rows(dataset: Path, job: Document, lake: Path, tmp_path: Path, output: Document) -> None:
    other = copy.deepcopy(job)
    other["output"] = {"path": str(tmp_path / "other"), **output}
    manifest = run_in_process(other)
    for split in manifest.splits:
        one, two = rows_of(dataset, split), rows_of(tmp_path / "other", split)
        first, second = np.argsort(one["trip_id"]), np.argsort(two["trip_id"])
        for name in one:
            np.testing.assert_array_equal(one[name][first], np.asarray(two[name])[second], err_msg=name)
    ids = rows_of(tmp_path / "other", "train")["trip_id"].tolist()
    written = set(ids)
    in_source_order = [trip for trip in expected_rows(lake)["trip_id"].to_pylist() if trip in written]
    assert (ids == in_source_order) == (output.get("shuffle") == "none")


def test_without_a_split_or_fitting_the_footers_are_enough(lake: Path, tmp_path: Path) -> None:
    job = {
        "version": 1,
        "source": {"path": str(lake / "trips")},
        "features": [{"columns": ["fare", "trip_id"]}, {"columns": ["payment_type"], "steps": [{"hash_encode": 50}]}],
        "output": {"path": str(tmp_path / "out")},
    }
    assert make_plan(job).needs_counting is False
    manifest = run_in_process(job)
    assert {name: part.rows for name, part in manifest.splits.items()} == {"train": 20_000}


def test_limit_reads_only_so_much(job: Document) -> None:
    manifest = run_in_process(job, limit=1000)
    assert 0 < sum(part.rows for part in manifest.splits.values()) < 3000
    assert manifest.source.rows.read < 3000
    assert manifest.source.rows.found > 10_000


def test_overwrite_replaces_and_nothing_else_does(job: Document) -> None:
    run_in_process(job)
    before = digests(Path(job["output"]["path"]))
    with pytest.raises(JobError, match="holds a dataset already.*--overwrite"):
        run_in_process(job)
    job["features"] = job["features"][:1]
    with pytest.raises(JobError, match="holds a dataset already.*--overwrite"):
        run_in_process(job)
    assert digests(Path(job["output"]["path"])) == before
    manifest = run_in_process(job, overwrite=True)
    after = digests(Path(job["output"]["path"]))
    assert len(manifest.infos) == 5
    assert not {name for name in after if name.endswith(".tfrecord")} & set(before)
    assert "transform/0.parquet" not in after
    assert verify_dataset(open_store(job["output"]["path"]), manifest).notes == ()


def test_a_failed_overwrite_leaves_the_old_dataset(job: Document) -> None:
    run_in_process(job)
    before = digests(Path(job["output"]["path"]))
    job["features"].append({"columns": ["dropoff_latitude"], "as": "raw"})
    with pytest.raises(DataError, match="dropoff_latitude"):
        run_in_process(job, overwrite=True)
    assert digests(Path(job["output"]["path"])) == before


def test_resume_of_a_finished_run_does_nothing(job: Document, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run_in_process(job)
    before = digests(Path(job["output"]["path"]))
    assert run_in_process(job, resume=True, progress="json") == manifest
    note, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert (note["event"], note["text"][-45:]) == ("note", " is finished already; nothing was left to do.")
    assert (done["event"], done["source_rows"], done["stages"]) == ("done", 0, {})
    assert (done["path"], done["fingerprint"]) == (job["output"]["path"], manifest.fingerprint)
    assert digests(Path(job["output"]["path"])) == before


def test_the_manifest_tells_the_job_and_the_source(job: Document) -> None:
    manifest = run_in_process(job)
    stored = json.loads(Path(job["output"]["path"], "manifest.json").read_text())
    assert stored["job"] == job
    assert stored["fingerprint"] == manifest.fingerprint
    assert manifest.source.files.found == 12
    assert manifest.source.rows.found == 20_000
    assert manifest.source.row_groups.pruned > 0
    sources = pq.read_table(Path(job["output"]["path"], "sources.parquet"))
    assert sum(sources["rows"].to_pylist()) == manifest.source.rows.read
    assert sources.num_rows == manifest.source.row_groups.read


def test_secrets_of_the_environment_are_written_nowhere(
    job: Document, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOB_NAME", "s3cret-of-the-environment")
    job["name"] = "${JOB_NAME}"
    job["storage"] = {"memory": {"token": "${JOB_NAME}"}}
    run_in_process(job, progress="plain")
    held = [path for path in Path(job["output"]["path"]).rglob("*") if path.is_file()]
    assert [path for path in held if b"s3cret-of" in path.read_bytes()] == []
    second = {**job, "output": {"path": job["output"]["path"] + "-${JOB_NAME}"}}
    run_in_process(second, progress="plain")
    told = capsys.readouterr().err
    assert "s3cret-of" not in told
    assert "-${JOB_NAME}: 12 columns" in told
    with pytest.raises(DtapError) as caught:
        run_in_process({**job, "source": {"path": "/nowhere/${JOB_NAME}"}}, overwrite=True)
    assert "s3cret-of" not in str(caught.value)
    assert "/nowhere/${JOB_NAME}" in str(caught.value)
    assert b"${JOB_NAME}" in Path(job["output"]["path"], "manifest.json").read_bytes()


def test_a_split_without_rows_is_told(job: Document, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job["split"] = {"where": {"train": "fare > 0", "eval": "fare <= 0", "test": "fare < -1"}}
    run_in_process(job, progress="plain")
    told = capsys.readouterr().err
    assert "Warning: the splits 'eval' and 'test' got no rows, and `load` refuses them." in told
    with pytest.raises(DataError, match="The split 'eval' of .* has no rows"):
        dtap_dask.load(job["output"]["path"], "eval")
