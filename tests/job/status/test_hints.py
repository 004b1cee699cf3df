"""What is printed for a person to paste: a shell and Python take it, and it leads to the same place."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import dtap_dask
import warm
from documents import Document
from dtap_dask.job import taps
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.status.hints import load_call, output_command, quoted, run_command
from dtap_dask.storage import open_store


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("out", "out"),
        ('what\'s $5 in "here"', 'what\'s $5 in "here"'),
        ("dtap://Tap/my out", "base/my out"),
        ("${PLACE}/out", "S3cret place/out"),
    ],
)
def test_the_hints_of_a_run(
    output: str,
    folder: str,
    job: Document,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`status` and `show` as they are printed, in a shell that knows nothing of the job's `storage` section."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "S3cret place")
    (tmp_path / "base").mkdir()
    job["output"]["path"] = output
    job["storage"] = {"dtap": {"map": {"Tap": "base"}}}
    dtap_dask.run(job, client=client, limit=500, progress="plain")
    said = capsys.readouterr().err
    assert (tmp_path / folder / "manifest.json").is_file()
    assert "S3cret" not in said
    status, show = (in_a_shell(command) for command in re.findall("`((?:[A-Z_]+=.*)?dtap-dask [^`]+)`", said))
    assert re.match(r"taxi-tips-\w{6}  done", status.stdout), status.stderr
    assert "train: " in show.stdout, show.stderr
    [load] = re.findall(r"`model\.fit\(dtap_dask\.load\((.*)\)\)`", said)
    assert Path(eval(load)).resolve() == tmp_path / folder
    spent = re.search(r"source rows? in ([\d.]+) s, .* \(fit ([\d.]+) s, write ([\d.]+) s, the rest ([\d.]+) s\)", said)
    assert spent
    whole, *parts = map(float, spent.groups())
    assert sum(parts) == pytest.approx(whole, abs=0.25)


def in_a_shell(command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": warm.path()}
    run: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "env": environment}
    return subprocess.run(["bash", "-c", command], check=True, **run)


def test_a_tap_that_only_the_job_maps_to_another_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables before the command do what the job's section does; where they are set already, none are printed."""
    storage = {"dtap": {"map": {"Tap": "memory://the base", "Other": "memory://other"}, "backend": "map"}}
    store = open_store("dtap://Tap/trips", taps.settings(storage))
    *variables, command, verb, url = shlex.split(output_command("status", store, storage, Secrets()))
    assert (command, verb, url) == ("dtap-dask", "status", "dtap://Tap/trips")
    code = load_call(store, storage, Secrets(), "eval")
    words, named = eval(code.replace("dtap_dask.load", "called"), {"called": lambda *words, **named: (words, named)})
    assert words == ("dtap://Tap/trips", "eval")
    assert open_store(words[0], taps.settings(named["storage"])).root == store.root
    for variable in variables:
        monkeypatch.setenv(*variable.split("=", 1))
    assert open_store(url, taps.settings()).root == store.root
    assert output_command("show", store, storage, Secrets()) == "dtap-dask show dtap://Tap/trips"


def test_words_that_a_shell_would_take_apart(tmp_path: Path) -> None:
    for text in (
        "a b",
        "it's",
        '"',
        "$HOME",
        "`date`",
        "back\\slash",
        "a;b",
        "~",
        "*",
        "",
        "ü",
        '${NAME}$HOME`\\"\\\\ x',
    ):
        shown = subprocess.run(
            ["bash", "-c", f"printf %s {quoted(text)}"], env={"NAME": "n"}, capture_output=True, text=True, check=True
        )
        assert shown.stdout == text.replace("${NAME}", "n")
    where = {"scheduler": "tls://head:8786", "tls_ca_file": "my ca.pem", "tls_key": "-----BEGIN\nKEY", "insecure": True}
    assert run_command("wait", "a-000000", where) == (
        "dtap-dask wait a-000000 --scheduler tls://head:8786 --tls-ca-file 'my ca.pem' --insecure"
    )
    secrets = Secrets({"PLACE": "S3cret place"})
    store = open_store(str(tmp_path / "S3cret place" / "out"))
    assert output_command("show", store, {}, secrets) == f'dtap-dask show "{tmp_path}/${{PLACE}}/out"'
    assert load_call(store, {}, secrets, "train") == (
        f"dtap_dask.load(os.path.expandvars('{tmp_path}/${{PLACE}}/out'))"
    )
