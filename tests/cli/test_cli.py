"""Every command as a new user would type it: what it prints, where, and its exit code."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from distributed import Client

import dtap_dask
from commands import typed
from documents import Document
from dtap_dask.cli import LATER, tfrecords
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.preview import preview
from dtap_dask.job.status.displays import open_display
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.job.status.snapshot import Snapshot
from in_process import run_in_process
from waiting import HANG


@pytest.fixture
def finished(file: str, tmp_path: Path) -> str:
    """A small finished dataset."""
    run_in_process(file, limit=2000)
    return str(tmp_path / "out")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sample_says_what_it_wrote_and_writes_the_same_twice(tmp_path: Path) -> None:
    first = typed("sample", str(tmp_path / "a"), "--rows", "1000")
    assert first.exit_code == 0
    assert re.fullmatch(r".*/a/trips: 1,000 rows in \d+ row groups of 12 files, \d\.\d MiB\n", first.stdout, re.DOTALL)
    assert typed("sample", str(tmp_path / "b"), "--rows", "1000").exit_code == 0
    before = contents(tmp_path / "a")
    assert before == contents(tmp_path / "b")
    again = typed("sample", str(tmp_path / "a"), "--rows", "1000")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "has files already. Choose another folder" in again.stderr
    assert contents(tmp_path / "a") == before


def test_plan_as_text(file: str, job: Document) -> None:
    result = typed("plan", file)
    plan = make_plan(job)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"taxi-tips  (fingerprint {plan.run_id})\n")
    assert "12 files" in result.stdout
    assert f"of {plan.totals.row_groups.found} row groups left" in result.stdout
    assert "│  ├─ fit               8 tasks\n│  │    impute          trip_miles, " in result.stdout
    assert "│  ├─ train       up to about " in result.stdout
    assert not (Path(job["output"]["path"])).exists()


def test_plan_as_json_has_the_numbers_of_the_plan(file: str, job: Document) -> None:
    told = json.loads(typed("plan", file, "--json").stdout)
    plan = make_plan(job)
    assert told["fingerprint"] == plan.fingerprint
    assert told["source"] == {
        "url": plan.source.url,
        "listed_bytes": sum(file.size for file in plan.files),
        "kept_files": len(plan.files),
        **plan.totals.model_dump(),
    }
    assert told["tasks"] == {"fit": len(plan.fit_tasks), "shuffle": 0, "write": len(plan.write_tasks)}
    assert told["passes"] == 2
    assert told["features"] == [output.name for output in plan.checked.graph.outputs]
    assert told["warnings"] == list(plan.warnings)
    assert told["output"]["rows_at_most"] == sum(group.rows for group in plan.groups)
    limited = json.loads(typed("plan", file, "--json", "--limit", "1000").stdout)
    assert limited["source"]["rows"] == make_plan(job, limit=1000).totals.rows.model_dump()
    assert limited["source"]["rows"]["read"] < told["source"]["rows"]["read"]


def test_set_changes_a_key_of_the_job(file: str) -> None:
    told = json.loads(
        typed("plan", file, "--json", "--set", "output.layout=rows", "--set", "features.0.columns=[fare]").stdout
    )
    assert told["output"]["layout"] == "rows"
    assert "trip_seconds" not in told["features"]
    for change, message in [
        ("output.layuot=rows", "unknown key 'layuot'. Did you mean 'layout'?"),
        ("output.layout", "is not of the form key=value"),
        ("features.9.columns=[fare]", "names nothing in the job"),
        ("derive=[1", "--set 'derive': its value is not valid YAML: expected"),
    ]:
        result = typed("plan", file, "--set", change)
        assert result.exit_code == 2, change
        assert message in result.stderr


def test_preview_shows_rows_and_writes_nothing(file: str, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    text = typed("preview", file, "-n", "3")
    assert text.exit_code == 0
    assert text.stdout.splitlines()[0].split() == ["column", *("row", "1", "row", "2", "row", "3")]
    lines = typed("preview", file, "-n", "3", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 3
    assert list(rows[0]) == [line.split()[0] for line in text.stdout.splitlines()[1:]]
    assert len(rows[0]["sizes"]) == 2
    assert isinstance(rows[0]["trip_id"], int)
    assert set(tmp_path.rglob("*")) == before


def lake_of(folder: Path, group_rows: int, **columns: Any) -> Document:
    """A job over one file of the given columns, in row groups of so many rows."""
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "part.parquet", row_group_size=group_rows)
    return {
        "version": 1,
        "source": {"path": str(folder)},
        "keep": ["i"],
        "features": [{"columns": ["x"], "steps": ["standard_scale"]}],
        "output": {"path": str(folder.parent / "out")},
    }


@pytest.mark.parametrize("group_rows", [50, 100_000])
def test_preview_fits_on_so_many_rows_however_small_row_groups_are(tmp_path: Path, group_rows: int) -> None:
    """25,000 rows: the first 20,000 hold 1 and -1, those behind them are far away."""
    rows = np.arange(25_000)
    x = np.where(rows < 20_000, 1.0 - 2 * (rows % 2), 1e6)
    shown = preview(lake_of(tmp_path / "lake", group_rows, i=rows, x=x), 2)
    assert shown["i"].tolist() == [0, 1]
    seen = x[:20_480] if group_rows > 20_000 else x[:20_000]  # whole batches of 4,096 rows, or whole row groups
    assert shown["x"] == pytest.approx((x[:2] - seen.mean()) / seen.std(), rel=1e-4)


def test_preview_shows_rows_that_are_in_a_part_only(tmp_path: Path) -> None:
    rows = np.arange(1000)
    job = lake_of(tmp_path / "lake", 100, i=rows, x=rows * 1.0)
    job["split"] = {"where": {"train": "i % 7 = 3", "eval": "i % 7 = 5"}}
    assert preview(job, 4)["i"].tolist() == [3, 5, 10, 12]
    assert len(preview(job, 999)["i"]) == sum(rows % 7 == 3) + sum(rows % 7 == 5)


def test_preview_reads_on_to_the_part_that_is_fitted(tmp_path: Path) -> None:
    rows = np.arange(60_000)
    job = lake_of(tmp_path / "lake", 5000, i=rows, x=rows * 1.0)
    job["split"] = {"where": {"eval": "i < 50000", "train": "i >= 50000"}, "fit": "train"}
    shown = preview(job, 3)
    assert shown["i"].tolist() == [0, 1, 2]
    assert (shown["x"] < -10).all()  # scaled by the rows behind 50,000


def test_preview_says_why_there_is_nothing_to_show(tmp_path: Path) -> None:
    job = lake_of(tmp_path / "lake", 500, i=np.arange(3000), x=np.arange(3000) * 1.0)
    path = tmp_path / "job.yaml"
    begins = "None of the first 3,000 rows of .*, which a preview reads, "
    fitted = begins + "is in the part 'train', which is fitted: "
    none = {"where": {"train": "i < 0"}}
    some = {"where": {"train": "i < 0", "eval": "i < 10"}}
    for split, where, says in [
        (None, "i % 3 = 5", begins + "passes source.where: 'i % 3 = 5'. Start elsewhere, or run"),
        (
            some,
            None,
            fitted + "10 are in other parts, 2,990 in none. Start where that part is, with --set source.where",
        ),
        (none, None, fitted + "0 are in other parts, 3,000 in none"),
    ]:
        path.write_text(yaml.safe_dump({**job, "split": split, "source": {**job["source"], "where": where}}))
        result = typed("preview", str(path))
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.search(says, result.stderr), result.stderr


def test_run_tells_plain_lines_where_there_is_no_terminal(file: str, client: Client, tmp_path: Path) -> None:
    with client.as_current():
        result = typed("run", file, "--limit", "3000")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Dask dashboard: http://127.0.0.1:")
    assert any(re.fullmatch(r"fit: 8 tasks, [\d,]+ rows, .* KiB", line) for line in lines)
    assert any(re.fullmatch(r"write: done in \d+\.\d s, [\d,]+ rows, .* rows/s", line) for line in lines)
    assert any(re.fullmatch(r"  train: [\d,]+ rows in \d+ shards?, .*", line) for line in lines)
    assert re.match(r"Read .* times the .* of the needed columns \(2 passes\)", lines[-2])
    assert lines[-1].startswith(f"Next: look at it, `dtap-dask show {tmp_path / 'out'}`")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_run_as_json_prints_nothing_but_events(file: str, client: Client, tmp_path: Path) -> None:
    with client.as_current():
        result = typed("run", file, "--limit", "3000", "--json", "--set", f"output.path={tmp_path / 'other'}")
    assert (result.exit_code, result.stderr) == (0, "")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    stages = [(one["event"], one["stage"]) for one in events if one["event"] in ("begin", "end")]
    assert stages == [("begin", "fit"), ("end", "fit"), ("begin", "write"), ("end", "write")]
    begun = next(one for one in events if one["event"] == "begin")
    steps = [one for one in events if one["event"] == "progress" and one["stage"] == "fit"]
    assert [one["tasks_done"] for one in steps] == list(range(1, begun["tasks"] + 1))
    assert (steps[-1]["rows"], steps[-1]["bytes"]) == (begun["rows"], begun["bytes"])
    done = events[-1]
    manifest = json.loads((tmp_path / "other" / "manifest.json").read_text())
    assert done["event"] == "done"
    assert done["path"] == str(tmp_path / "other")
    assert done["fingerprint"] == manifest["fingerprint"]
    assert {name: part["rows"] for name, part in done["splits"].items()} == {
        name: part["rows"] for name, part in manifest["splits"].items()
    }


def test_run_refuses_with_the_exit_code_of_a_mistake(finished: str, file: str, client: Client) -> None:
    with client.as_current():
        again = typed("run", file, "--limit", "2000")
        assert again.exit_code == 2
        assert "holds a dataset already. Replace it with --overwrite" in again.stderr
        assert typed("run", file, "--limit", "2000", "--overwrite").exit_code == 0
    assert typed("run", file, "--limit", "0").exit_code == 2
    assert typed("run", file, "--cluster", "kubernetes.yaml").exit_code == 2
    both = typed("run", file, "--overwrite", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2")
    assert both.exit_code == 2
    assert "--workers are for a cluster on this machine" in both.stderr


def test_show_prints_the_dataset_and_its_rows(finished: str) -> None:
    manifest = json.loads(Path(finished, "manifest.json").read_text())
    text = typed("show", finished, "-n", "2")
    assert text.exit_code == 0
    assert text.stdout.startswith(f"{finished}: {len(manifest['features'])} columns, layout blocks, compression none\n")
    for name, part in manifest["splits"].items():
        assert f"  {name}: {part['rows']:,} rows in {len(part['shards'])} shards" in text.stdout
        assert f"\n{name}:\ncolumn" in text.stdout
    told = json.loads(typed("show", finished, "--json", "-n", "2", "--split", "eval").stdout)
    assert list(told["rows"]) == ["eval"]
    assert len(told["rows"]["eval"]) == 2
    assert told["splits"]["train"]["rows"] == manifest["splits"]["train"]["rows"]
    assert typed("show", finished, "--split", "eval").stdout.count("\ncolumn") == 1


def test_show_and_verify_of_what_is_not_there(finished: str, tmp_path: Path) -> None:
    unknown = typed("show", finished, "--split", "tarin")
    assert unknown.exit_code == 1
    assert "has no split 'tarin'. Did you mean 'train'?" in unknown.stderr
    for command in ("show", "verify"):
        missing = typed(command, str(tmp_path / "nowhere"))
        assert (missing.exit_code, missing.stdout) == (1, "")
        assert "There is no folder" in missing.stderr


def test_verify_finds_a_flipped_byte(finished: str) -> None:
    shards = list(Path(finished).rglob("*.tfrecord"))
    good = typed("verify", finished)
    assert good.exit_code == 0
    says = rf"{finished} matches its manifest: [\d,]+ rows in [\d,]+ records of {len(shards)} shards"
    assert re.match(says, good.stdout)
    assert json.loads(typed("verify", finished, "--json").stdout)["shards"] == len(shards)
    shard = max(Path(finished, "eval").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    bad = typed("verify", finished)
    assert (bad.exit_code, bad.stdout) == (3, "")
    assert f"eval/{shard.name}" in bad.stderr
    assert set(re.findall(r"part-[\w-]+\.tfrecord", bad.stderr)) == {shard.name}


def test_the_job_that_init_writes_runs(lake: Path, tmp_path: Path, client: Client) -> None:
    result = typed("init", str(lake / "trips"))
    assert result.exit_code == 0
    assert "# left out because they need a decision: trip_start (timestamp[us])" in result.stdout
    document = yaml.safe_load(result.stdout)
    document["output"]["path"] = str(tmp_path / "out")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    assert typed("plan", str(tmp_path / "job.yaml")).exit_code == 0
    with client.as_current():
        ran = typed("run", str(tmp_path / "job.yaml"), "--limit", "3000")
    assert ran.exit_code == 0, ran.stderr
    assert typed("verify", str(tmp_path / "out")).exit_code == 0


def test_init_quotes_what_yaml_would_read_otherwise(tmp_path: Path) -> None:
    names = ["null", "yes", "1e5", "a: b", "x, y", "*", "#", "größe", "it's"]
    folder = tmp_path / "a: lake #1"
    folder.mkdir()
    pq.write_table(pa.table({name: [1.0, 2.0] for name in names}), folder / "part.parquet")
    document = yaml.safe_load(typed("init", str(folder)).stdout)
    assert document["source"]["path"] == str(folder)
    assert document["features"][0]["columns"] == names
    assert [output.name for output in make_plan(document).checked.graph.outputs] == names


def wide_lake(folder: Path) -> Path:
    """2,000 rows with an id, a foreign id, nulls, a constant and columns without a value."""
    folder.mkdir()
    n = np.arange(2000)
    columns = {
        "trip_id": n * 7,
        "user_id": n % 30,
        "Fare": np.where(n % 10 == 0, np.nan, n % 50),
        "token": [f"t{i}" for i in n],
        "city": [None if i % 4 == 0 else "ab"[i % 2] for i in n],
        "flag": n % 2 == 0,
        "empty": pa.nulls(2000, pa.float64()),
        "day": pa.array(n, pa.int32()).cast(pa.date32()),
        "\x1b[31mred": n % 3,
    }
    pq.write_table(pa.table(columns), folder / "part.parquet")
    return folder


def test_init_says_what_the_first_rows_show(tmp_path: Path) -> None:
    folder = wide_lake(tmp_path / "my lake")
    text = typed("init", str(folder), "--label", "Fare").stdout
    document = yaml.safe_load(text)
    assert document["name"] == "my-lake"
    assert document["label"] == "Fare"
    assert (document["keep"], document["split"]["key"]) == (["trip_id", "token"], ["trip_id"])
    numbers, words, flags = (block["columns"] for block in document["features"])
    assert (numbers, words, flags) == (["\x1b[31mred"], ["user_id", "city"], ["flag"])
    assert "label: Fare   # 10 % null, 45 distinct values\n" in text
    assert "# rows without a label must be filtered out" in text
    assert "- city   # 25 % null, 2 distinct values\n" in text
    assert "- user_id   # no nulls, 30 distinct values\n" in text
    assert "because they have no values: empty\n" in text
    assert "need a decision: day (date32[day])\n" in text
    assert "\x1b" not in text
    document["source"]["where"] = "Fare is not null"
    document["output"]["path"] = str(tmp_path / "out")
    assert run_in_process(document).splits["train"].rows > 1000


def test_init_writes_a_file_once(tmp_path: Path) -> None:
    folder, job = wide_lake(tmp_path / "lake"), str(tmp_path / "new.yaml")
    written = typed("init", str(folder), "--label", "city", "-o", job)
    assert (written.exit_code, written.stdout) == (0, "")
    assert f"`dtap-dask plan {job}`" in written.stderr
    text = Path(job).read_text()
    assert f"#   dtap-dask run {job}\n" in text
    assert yaml.safe_load(text)["label"] == {"column": "city", "steps": ["ordinal_encode"]}
    again = typed("init", str(folder), "-o", job)
    assert again.exit_code == 2
    assert f"{job} already exists." in again.stderr
    assert Path(job).read_text() == text
    unknown = typed("init", str(folder), "--label", "fare")
    assert unknown.exit_code == 2
    assert "There is no column 'fare'" in unknown.stderr
    assert "Did you mean 'Fare'?" in unknown.stderr


@pytest.mark.parametrize(
    ("lake_path", "output"),
    [
        ("trips", "trips-tfrecords"),
        ("trips/", "trips-tfrecords"),
        ("./trips/year=2013", "trips-tfrecords"),
        ("trips/year=2013/month=1/part-00000.parquet", "trips-tfrecords"),
        ("trips/year=*/month=1", "trips-tfrecords"),
        ("trips/*/*/*.parquet", "trips-tfrecords"),
        ("{here}/trips", "{here}/trips-tfrecords"),
        ("file://{here}/trips", "file://{here}/trips-tfrecords"),
        ("dtap://Tap/trips", "dtap://Tap/trips-tfrecords"),
        ("dtap://Other", "{here}/trips-tfrecords"),
        ("trips>.", "{here}/trips-tfrecords"),
        ("trips>*/month=2", "{here}/trips-tfrecords"),
        ("trips/year=2013>..", "{here}/trips-tfrecords"),
        ("trips/year=2013>.", "{here}/trips-tfrecords"),
    ],
)
def test_init_writes_a_job_whose_output_is_not_in_the_lake(
    lake_path: str, output: str, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a>b`: the lake is `b`, seen from the folder `a`."""
    shutil.copytree(lake / "trips", tmp_path / "trips")
    monkeypatch.setenv("DTAP_MAP", f"Tap={tmp_path},Other={tmp_path / 'trips'}")
    folder, _, name = lake_path.rpartition(">")
    monkeypatch.chdir(tmp_path / folder)
    starter = typed("init", name.format(here=tmp_path))
    assert starter.exit_code == 0, starter.stderr
    document = yaml.safe_load(starter.stdout)
    assert document["output"]["path"] == output.format(here=tmp_path)
    (tmp_path / "job.yaml").write_text(starter.stdout)
    planned = typed("plan", str(tmp_path / "job.yaml"))
    assert planned.exit_code == 0, planned.stderr


def test_taps_of_the_environment_serve_the_commands_that_take_no_job(
    finished: str, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = (("show", "dtap://Out/out"), ("verify", "dtap://Out/out"), ("init", "dtap://Lake/trips"))
    for words in commands:
        unmapped = typed(*words)
        assert unmapped.exit_code == 1
        assert "is not mapped to anything" in unmapped.stderr
        assert "DTAP_MAP=" in unmapped.stderr
    monkeypatch.setenv("DTAP_MAP", f"Lake={lake},Out={Path(finished).parent}")
    for words in commands:
        assert typed(*words).exit_code == 0
    assert typed("show", "dtap://Out/out").stdout.startswith("dtap://Out/out: 12 columns")


def test_a_file_where_a_folder_is_meant(file: str) -> None:
    for words in (("show", file), ("verify", file), ("sample", file), ("sample", f"{file}/below")):
        result = typed(*words)
        assert (result.exit_code, result.stdout) == (1, ""), words
        assert result.stderr.startswith("Error: "), words
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert file in result.stderr


@pytest.mark.parametrize("name", LATER)
def test_commands_to_come_say_so(name: str) -> None:
    result = typed(name, "anything", "--at", "all")
    assert result.exit_code == 2
    assert f"`{name}` is not available yet" in result.stderr


def test_help_and_version() -> None:
    assert typed("--version").stdout == f"dtap-dask, version {dtap_dask.__version__}\n"
    short = typed("-h")
    assert (short.exit_code, short.stdout) == (0, typed("--help").stdout)
    for command in tfrecords.commands:
        assert f"  {command} " in short.stdout
        assert typed(command, "-h").exit_code == 0
    unknown = typed("plam")
    assert unknown.exit_code == 2
    assert "plam" in unknown.stderr


def test_errors_are_a_paragraph_and_a_traceback_only_when_asked(tmp_path: Path) -> None:
    quiet = typed("plan", str(tmp_path / "no.yaml"))
    assert quiet.exit_code == 2
    assert quiet.stderr.startswith("Error: The job file")
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in typed("--debug", "plan", str(tmp_path / "no.yaml")).stderr


def test_errors_are_json_for_programs(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("version: 1\nsource: {path: x}\nfeatures: [{columns: a}]\nouput: {path: y}\n")
    for words, code, says in [
        (("plan", str(tmp_path / "no.yaml"), "--json"), 2, "The job file"),
        (("plan", str(tmp_path / "bad.yaml"), "--json"), 2, "Did you mean 'output'?"),
        (("show", str(tmp_path / "nowhere"), "--json"), 1, "There is no folder"),
        (("verify", "--json"), 2, "Missing argument"),
        (("run", "job.yaml", "--wokers", "2", "--json"), 2, "No such option"),
    ]:
        failed = typed(*words)
        assert (failed.exit_code, failed.stdout) == (code, ""), words
        found = json.loads(failed.stderr)
        assert found["exit_code"] == code
        assert says in found["error"]
    problems = json.loads(typed("plan", str(tmp_path / "bad.yaml"), "--json").stderr)["problems"]
    assert len(problems) > 1
    assert all(set(problem) == {"place", "message"} and problem["message"] for problem in problems)


@pytest.mark.parametrize("words", [["run", "jo"], ["show", "jo"], ["wait", "jo"], ["init", "jo"]])
def test_a_shell_completes_commands_and_paths(words: list[str]) -> None:
    """As the README has it: `eval "$(_DTAP_DASK_COMPLETE=bash_source dtap-dask)"`."""
    script = str(Path(sys.executable).with_name("dtap-dask"))
    typed_so_far = {"COMP_WORDS": " ".join(["dtap-dask", *words]), "COMP_CWORD": str(len(words))}
    asked = {**os.environ, "_DTAP_DASK_COMPLETE": "bash_complete", **typed_so_far}
    found = subprocess.run([script], env=asked, capture_output=True, text=True, check=False, timeout=HANG)
    assert found.stdout == "file,jo\n"


def process(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG)


def test_a_real_run_shows_a_dashboard_of_this_machine_only(file: str) -> None:
    ran = process(sys.executable, "-m", "dtap_dask", "run", file, "--limit", "1000", "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    [link] = re.findall(r"^Dask dashboard: (\S+)$", ran.stderr, re.MULTILINE)
    assert urlparse(link).hostname == "127.0.0.1"
    assert ran.stdout == ""


def test_the_commands_are_also_dask_s(file: str) -> None:
    dask = str(Path(sys.executable).with_name("dask"))
    planned = process(dask, "tfrecords", "plan", file)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout == typed("plan", file).stdout
    assert process(dask, "tfrecords", "plan", f"{file}.no").returncode == 2


def test_bars_name_the_stage_and_count_rows() -> None:
    out = io.StringIO()
    with open_display("bars", out) as display:
        report = RunReporter(Snapshot("trips-00000a", "trips", "/out", "running", 0.0, 0.0), display, Secrets())
        report.note("Dask dashboard: http://127.0.0.1:8787/status")
        report.begin("fit", 2, 3000, 1 << 20)
        report.advance(1000, 1 << 19)
        report.advance(2000, 1 << 19)
        report.end()
        report.begin("write", 1, 3000, 1 << 20)
        report.advance(3000, 1 << 20)
        report.end()
    text = out.getvalue()
    assert "Dask dashboard: http://127.0.0.1:8787/status\n" in text
    assert re.search(r"fit +━+ 2/2 3,000 rows +1\.0 MiB", text)
    assert re.search(r"write +━+ 1/1 3,000 rows +1\.0 MiB", text)
