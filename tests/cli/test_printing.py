"""Output as a person sees it: in a narrow terminal, in a notebook, and with names and values that are hostile."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import dtap_dask
import warm
from commands import typed
from documents import Document
from dtap_dask.features import FittedState
from dtap_dask.storage import open_store
from in_process import run_in_process
from waiting import HANG

EVIL = "\x1b]0;owned\x07\x1b[2J\n\x9b31mx\u202e"
EVIL_SHOWN = "\\x1b]0;owned\\x07\\x1b[2J\\n\\x9b31mx\\u202e"


def in_terminal(*words: str, columns: int) -> str:
    """What a command writes to a terminal that is so wide."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "dumb"}
    command = [warm.python(), "-m", "dtap_dask", *words]
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(follower)
        parts = []
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            parts.append(part)
        assert process.wait(HANG) == 0
    os.close(leader)
    return b"".join(parts).decode().replace("\r\n", "\n")


def commanded(*words: str) -> str:
    """All that a command prints."""
    done = typed(*words)
    assert done.exit_code == 0, done.stderr
    return done.stdout + done.stderr


def ran(*words: str) -> str:
    """All that a command and the processes that it starts print."""
    done = subprocess.run([warm.python(), "-m", "dtap_dask", *words], capture_output=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return (done.stdout + done.stderr).decode()


def test_a_plan_fits_eighty_columns(file: str) -> None:
    lines = in_terminal("plan", file, columns=80).splitlines()
    assert all(len(line) <= 80 for line in lines if "/" not in line)  # a path is one word
    whole = commanded("plan", file)
    assert len(whole.splitlines()) < len(lines)
    plain = whole.replace("│", " ").split()
    assert [word for line in lines for word in line.replace("│", " ").split()] == plain  # no word is cut


def test_a_preview_fits_eighty_columns(file: str) -> None:
    text = in_terminal("preview", file, "-n", "4", columns=80)
    assert all(len(line) <= 80 for line in text.splitlines())
    tables = [table.splitlines() for table in text.split("\n\n")]
    assert len(tables) > 1
    heads = [word for table in tables for word in table[0].split()[1:]]
    assert heads == [*("row", "1", "row", "2", "row", "3", "row", "4")]
    rows = json.loads(f"[{','.join(commanded('preview', file, '-n', '4', '--json').splitlines())}]")
    names = list(rows[0])
    for table in tables:
        assert [line.split()[0] for line in table[1:]] == names


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job over a lake whose names and values hold escape sequences, and its dataset."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "lake").mkdir()
    texts = ["a" + EVIL, "nul\0 tab\t", "plain"] * 10
    table = pa.table({"id": np.arange(30), "x": np.arange(30.0), EVIL: texts, "text": texts})
    pq.write_table(table, folder / "lake" / "a.parquet")
    job = {
        "version": 1,
        "name": "n" + EVIL,
        "source": {"path": str(folder / "lake")},
        "keep": ["id"],
        "features": [{"columns": ["x", "text"]}, {"columns": [EVIL], "as": "evil"}],
        "output": {"path": str(folder / "out")},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder


def clean(text: str) -> None:
    unsafe = [character for character in text if character != "\n" and not character.isprintable()]
    assert unsafe == []


def test_no_command_lets_data_control_the_terminal(hostile: Path) -> None:
    job, out = str(hostile / "job.yaml"), str(hostile / "out")
    said = {"run": ran("run", job, "--workers", "1")}
    said |= {command: commanded(command, job) for command in ("plan", "preview")}
    said |= {command: commanded(command, out) for command in ("show", "verify", "status", "logs")}
    said["init"] = commanded("init", str(hostile / "lake"))
    said["fitted"] = commanded("show", out, "--fitted")
    for text in said.values():
        clean(text)
    assert f"a{EVIL_SHOWN}" in said["show"]
    assert f"n{EVIL_SHOWN}" in said["plan"]
    assert "nul\\x00 tab\\t" in said["preview"]
    manifest = json.loads(Path(out, "manifest.json").read_text())
    manifest["splits"]["tr" + EVIL] = manifest["splits"].pop("train")
    Path(out, "manifest.json").write_text(json.dumps(manifest))
    Path(out, "odd\x1b[31m").write_text("")
    for command in ("show", "verify"):
        text = commanded(command, out)
        clean(text)
        assert "\\x1b" in text
    for path in Path(out, "_run", "status").glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "note": EVIL}))
    text = commanded("status", out)
    clean(text)


def test_objects_print_as_the_commands_print_them(job: Document, tmp_path: Path) -> None:
    plan = dtap_dask.plan(job, limit=2000)
    assert isinstance(plan, dtap_dask.Plan)
    assert str(plan) == repr(plan)
    assert repr(plan).startswith(f"taxi-tips  (fingerprint {plan.run_id})\n├─ source")
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    assert commanded("plan", str(path), "--limit", "2000") == f"{plan!r}\n"
    loaded = dtap_dask.Job.load(job)
    assert yaml.safe_load(repr(loaded)) == job
    manifest = run_in_process(job, limit=2000)
    out = str(tmp_path / "out")
    said = commanded("show", out, "-n", "1")
    assert said.split("\n\n")[0].splitlines()[1:] == repr(manifest).splitlines()[1:]
    assert repr(manifest).startswith(f"Dataset {manifest.fingerprint[:8]}: 12 columns, layout blocks")
    state = FittedState.load(open_store(out))
    assert commanded("show", out, "--fitted") == f"{state!r}\n"
    assert "  fare: fare > impute (statistics_ " in repr(state)
    for one in (plan, loaded, manifest, state):
        assert one._repr_html_().startswith("<pre")
        assert "<pre" not in one._repr_html_()[4:]


def test_html_is_escaped() -> None:
    job = {"version": 1, "name": "<script>alert(1)</script>", "source": {"path": "x"}}
    shown = dtap_dask.Job.load({**job, "features": [{"columns": "a"}], "output": {"path": "y"}})._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_job_prints_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "hidden-folder")
    document = {
        "version": 1,
        "storage": {"s3": {"key": "abcd1234", "secret": "efgh5678"}},
        "source": {"path": "${WHERE}/x"},
        "features": [{"columns": "a"}],
        "output": {"path": "y"},
    }
    job = dtap_dask.Job.load(document)
    for one in (job, job.model_copy(update={"name": "another"})):
        for secret in ("hidden-folder", "abcd1234", "efgh5678"):
            assert secret not in repr(one)
        assert "${WHERE}/x" in repr(one)
