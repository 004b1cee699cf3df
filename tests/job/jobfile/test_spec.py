"""The job as a model: what it may be made of, what becomes of changed copies, and what is told of the environment."""

from __future__ import annotations

import datetime
import enum
import io
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

import dtap_dask
from documents import Document
from dtap_dask.cli import tfrecords
from dtap_dask.errors import DtapError, JobError, SourceError, VerificationError
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.preview import preview
from dtap_dask.job.status.displays import open_display
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.job.status.snapshot import Snapshot
from in_process import run_in_process

SECRET = "päss-w0rd"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """The variable SECRET, set; its value is not ASCII."""
    monkeypatch.setenv("SECRET", SECRET)
    return "${SECRET}"


def told_by(*words: str, job: Document, folder: Path) -> str:
    """All that a command prints about a job."""
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    command, *options = words
    result = CliRunner().invoke(tfrecords, [command, str(folder / "job.yaml"), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


# What comes from the environment


def test_short_values_and_numbers_corrupt_nothing(
    job: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ONE": "1", "TWELVE": "12", "MANY": "1024"}.items():
        monkeypatch.setenv(name, value)
    plain, plain_json = told_by("plan", job=job, folder=tmp_path), told_by("plan", "--json", job=job, folder=tmp_path)
    job["output"].update(seed="${ONE}", rows_per_record="${MANY}")
    job["storage"] = {"memory": {"port": "${TWELVE}"}}
    text = told_by("plan", job=job, folder=tmp_path)
    assert "12 files" in text
    assert text.splitlines()[1:] == plain.splitlines()[1:]  # the first has the fingerprint
    found, expected = (json.loads(one) for one in (told_by("plan", "--json", job=job, folder=tmp_path), plain_json))
    assert {**found, "fingerprint": ""} == {**expected, "fingerprint": ""}


def test_json_shows_no_value_however_it_is_spelt(job: Document, tmp_path: Path, secret: str) -> None:
    job["name"] = secret
    job["output"]["path"] = f"{tmp_path}/{secret}"
    told = told_by("plan", "--json", job=job, folder=tmp_path)
    assert json.loads(told)["name"] == secret
    assert json.loads(told)["output"]["path"] == f"{tmp_path}/{secret}"
    for spelt in (SECRET, json.dumps(SECRET)[1:-1]):
        assert spelt not in told


def test_events_show_no_value_and_keep_their_numbers() -> None:
    secrets = Secrets({"SECRET": SECRET, "MANY": "3000", "KEY": "tasks_done"})
    snapshot = Snapshot("trips-00000a", "trips", "/out", "running", 0.0, 0.0)
    for kind in ("json", "plain", "bars"):
        out = io.StringIO()
        with open_display(kind, out) as display:
            report = RunReporter(snapshot, display, secrets)
            report.note(f"at {SECRET} [red]x[/red]")
            report.begin("fit", 1, 3000, 3000)
            report.advance(3000, 3000)
            report.end()
            report.succeed({"path": f"/{SECRET}", "rows": 3000})
        assert not re.search("w0rd|p.u00e4ss", out.getvalue())
        assert "at ${SECRET} [red]x[/red]" in out.getvalue()
        if kind == "json":
            events = [json.loads(line) for line in out.getvalue().splitlines()]
            assert events[-1] == {"event": "done", "path": "/${SECRET}", "rows": 3000}
            assert {
                "event": "progress",
                "stage": "fit",
                "tasks_done": 1,
                "tasks": 1,
                "rows": 3000,
                "bytes": 3000,
            } in events


def test_errors_of_preview_and_read_show_no_value(job: Document, tmp_path: Path, secret: str) -> None:
    job["source"]["path"] = f"{tmp_path}/{secret}"
    for call in (make_plan, preview, dtap_dask.read):
        with pytest.raises(DtapError, match=r"\$\{SECRET\}") as caught:
            call(job)
        assert SECRET not in str(caught.value)
    assert SECRET not in told_by("preview", "--json", job=job, folder=tmp_path)


def test_errors_of_rows_read_later_show_no_value(job: Document, tmp_path: Path, secret: str, lake: Path) -> None:
    folder = tmp_path / SECRET
    folder.mkdir()
    copied = folder / "part.parquet"
    copied.write_bytes(next((lake / "trips" / "year=2013" / "month=7").glob("*.parquet")).read_bytes())
    job["source"] = {"path": f"{tmp_path}/{secret}"}
    frame = dtap_dask.read(job, columns="fare")
    copied.unlink()
    with pytest.raises(SourceError, match="is gone") as caught:
        frame.compute(scheduler="sync")
    assert SECRET not in str(caught.value)
    assert "${SECRET}" in str(caught.value)


def test_mistakes_show_the_name_of_the_variable(job: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "very-s3cret")
    for part, key in (("output", "path"), ("output", "layout"), ("source", "where")):
        wrong = {**job, part: {**job[part], key: "nonsense://${PLACE}/x"}}
        told = told_by("plan", job=wrong, folder=tmp_path)
        assert told.startswith("Error: ")
        assert "very-s3cret" not in told
        assert "${PLACE}" in told


def test_a_job_error_raised_elsewhere_is_redacted_too() -> None:
    secrets = Secrets({"SECRET": SECRET})
    for kind in (JobError, VerificationError):
        with pytest.raises(kind) as caught, secrets.redacting():
            raise kind(f"{SECRET} holds a dataset already.")
        assert str(caught.value) == "${SECRET} holds a dataset already."
        assert caught.value.__cause__ is None


def test_an_unset_variable_is_one_mistake(job: Document, tmp_path: Path) -> None:
    for part, key in (("output", "path"), ("output", "seed"), ("source", "where"), ("source", "sample")):
        wrong = {**job, part: {**job[part], key: "${NO_SUCH_VARIABLE}"}}
        [line] = told_by("plan", job=wrong, folder=tmp_path).splitlines()
        assert re.fullmatch(
            rf"Error: {part}.{key} \(line \d+\): the environment variable NO_SUCH_VARIABLE is not set\.", line
        )


def test_a_variable_that_is_set_but_empty_is_no_path(
    job: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", "")
    job["output"]["path"] = "${OUT}"
    told = told_by("plan", job=job, folder=tmp_path)
    assert re.fullmatch(r"Error: output.path \(line \d+\): found '\$\{OUT\}': a path is needed\.\n", told)


WORDS = st.text(st.characters(exclude_characters="|${}", exclude_categories=["Cs"]), min_size=4, max_size=6)


@given(st.dictionaries(st.sampled_from("ABC"), WORDS, max_size=3), st.lists(WORDS))
@example({"A": "abcd", "B": "abcde"}, ["x", ""])
@example({"A": "a\\b'\"c"}, [])
@example({"A": "2024", "B": "abcd"}, ["12024", "2024", "2024.5"])
def test_redaction_leaves_no_value_and_can_be_repeated(values: dict[str, str], words: list[str]) -> None:
    secrets = Secrets(values)
    given_text = "|".join([*words, *values.values(), *map(repr, values.values())])
    told = secrets.redact({"a": [given_text, 7, None, ("x",)]})
    assert secrets.redact(told) == told
    assert told["a"][1:] == [7, None, ("x",)]
    rest = re.sub(r"\$\{\w+\}", "\0", told["a"][0])
    for value in values.values():
        if not re.fullmatch(r"[\d.,]+", value):
            assert value not in rest


# Changed copies


def test_a_changed_copy_counts(job: Document, tmp_path: Path) -> None:
    loaded = Job.load(job)
    assert Job.load(loaded).document == job
    changed = loaded.model_copy(
        update={
            "output": loaded.output.model_copy(update={"path": str(tmp_path / "other"), "layout": "rows"}),
            "source": loaded.source.model_copy(update={"where": "fare > 20"}),
            "features": loaded.features[:1],
        }
    )
    planned = make_plan(changed)
    assert planned.checked.scan.where == "fare > 20"
    assert planned.fingerprint != make_plan(loaded).fingerprint
    manifest = run_in_process(changed)
    assert (tmp_path / "other" / "manifest.json").exists()
    assert manifest.layout.kind == "rows"
    assert manifest.job["source"]["where"] == "fare > 20"
    assert len(manifest.job["features"]) == 1
    assert Job.load(changed, ["name=again"]).source.where == "fare > 20"


def test_a_changed_copy_is_checked_as_any_job(job: Document) -> None:
    wrong = Job.load(job).model_copy(update={"fit": "fsued", "features": [{"columns": "fare"}]})
    with pytest.raises(JobError, match="fit: found 'fsued', valid are 'fused' or 'dask_ml'"):
        Job.load(wrong)
    assert Job.load(wrong.model_copy(update={"fit": "fused"})).features[0].columns == ("fare",)


def test_a_copy_keeps_the_environment_it_was_loaded_in(
    job: Document, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Job.load({**job, "name": secret})
    monkeypatch.delenv("SECRET")
    for one in (loaded, loaded.model_copy(update={"fit": "dask_ml"})):
        again = Job.load(one)
        assert again.name == SECRET
        assert SECRET not in json.dumps(again.document, ensure_ascii=False)


def test_a_job_built_in_python_is_the_same_as_its_document(job: Document) -> None:
    built = Job(**job)
    assert Job.load(built).as_document() == Job.load(job).as_document()
    assert make_plan(built).fingerprint == make_plan(job).fingerprint


# Values of other libraries


class Layout(enum.StrEnum):
    ROWS = "rows"


def test_values_of_other_libraries_count_as_plain_ones(job: Document, tmp_path: Path) -> None:
    odd = {
        **job,
        "name": np.str_("odd"),
        "keep": ("trip_id",),
        "storage": {"memory": {"size": np.int64(3), "since": datetime.date(2020, 1, 2), "deep": (np.bool_(True),)}},
        "source": {**job["source"], "path": Path(job["source"]["path"]), "sample": np.float32(0.5)},
        "split": {"parts": {"train": np.float64(0.75), "eval": np.float64(0.25)}, "key": np.array(["trip_id"])},
        "features": ({"columns": ["fare"], "steps": ({"clip": {"min": np.int16(1), "max": np.float64(50)}},)},),
        "output": {"path": tmp_path / "odd", "seed": np.int64(3), "layout": Layout.ROWS},
    }
    manifest = run_in_process(odd)
    held = json.loads((tmp_path / "odd" / "manifest.json").read_text())["job"]
    assert held == manifest.job
    assert held["output"] == {"path": str(tmp_path / "odd"), "seed": 3, "layout": "rows"}
    assert held["split"] == {"parts": {"train": 0.75, "eval": 0.25}, "key": ["trip_id"]}
    assert held["storage"] == {"memory": {"size": 3, "since": "2020-01-02", "deep": [True]}}
    assert held["features"] == [{"columns": ["fare"], "steps": [{"clip": {"min": 1, "max": 50.0}}]}]
    assert type(Job.load(odd).document["name"]) is str


@pytest.mark.parametrize("value", [{1, 2}, b"x", Fraction(1, 2), object(), np.datetime64("2020-01-01"), 1j])
def test_other_values_are_refused_with_their_place(job: Document, value: Any) -> None:
    job["storage"] = {"memory": {"deep": [1, value]}}
    job["output"]["seed"] = value
    with pytest.raises(JobError) as caught:
        Job.load(job)
    assert {problem.place for problem in caught.value.problems} == {"storage.memory.deep[1]", "output.seed"}
    assert f"a {type(value).__name__} cannot be used in a job" in str(caught.value)
