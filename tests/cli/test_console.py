"""Commands on terminals, pipes and full disks: what is said is lost at worst, never the run; Ctrl-C says one line."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from distributed import Client

import warm
from documents import Document
from dtap_dask.job.console import BestEffortStream
from dtap_dask.records.folder import STATUS
from dtap_dask.storage import Store
from held_runs import Gate
from in_process import run_in_process
from waiting import HANG

pytestmark = pytest.mark.skipif(not hasattr(select, "poll"), reason="pipes and terminals of POSIX")

COMMAND = [sys.executable, "-m", "dtap_dask"]


def warm_command() -> list[str]:
    """COMMAND, of a process that has imported everything already."""
    return [warm.python(), *COMMAND[1:]]


# In the line below the bars, as soon as shards are planned.
WRITING = r"\d of [1-9]\d* shards"
STOPPED = "Error: Stopped. Finished work is kept: continue with --resume (in Python resume=True)."


@pytest.fixture(scope="module")
def small(lake: Path) -> Document:
    return {
        "version": 1,
        "source": {"path": str(lake / "trips")},
        "features": [{"columns": ["fare"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]}],
        "output": {"path": "out"},
    }


@pytest.fixture(scope="module")
def finished(small: Document, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the job and its dataset."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "job.yaml").write_text(yaml.safe_dump(small))
    run_in_process({**small, "output": {"path": str(folder / "out")}})
    return folder


@pytest.mark.parametrize(
    ("script", "own_workers"),
    [
        pytest.param("{run} 2>/dev/full", True, id="full"),
        pytest.param("{run} <&- >&- 2>&-", True, id="closed"),
        pytest.param("{run} 2>&1 | sed '/^fit: /q'; exit ${{PIPESTATUS[0]}}", True, id="no reader"),
        pytest.param("{run} --json >/dev/full", False, id="events, full"),
        pytest.param("{run} --json | head -n 1; exit ${{PIPESTATUS[0]}}", False, id="events, no reader"),
    ],
)
def test_a_run_does_not_need_to_be_read(
    script: str, own_workers: bool, small: Document, client: Client, tmp_path: Path
) -> None:
    """Nor do workers that it starts, which have its standard error."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(small))
    where = ["--workers", "1"] if own_workers else ["--scheduler", client.scheduler.address]
    run = " ".join([*(COMMAND if ">&-" in script else warm_command()), "run", "job.yaml", *where])
    done = shell(script.format(run=run), tmp_path)
    assert (done.returncode, (tmp_path / "out" / "_SUCCESS").exists()) == (0, True), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    kept = [json.loads(path.read_text()) for path in tmp_path.glob(f"out/{STATUS}/*.json")]
    assert [one["state"] for one in kept] == ["done"]


def test_an_error_keeps_its_status_where_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("version: 1\n")
    for stream in ("2>/dev/full", "2>&-"):
        assert shell(f"{' '.join(COMMAND)} run job.yaml {stream}", tmp_path).returncode == 2


@pytest.mark.parametrize("words", ["status out", "logs -f out", "wait out"])
def test_readers_that_leave_and_disks_that_are_full(words: str, finished: Path) -> None:
    assert shell(f"{' '.join([*COMMAND, words])} >&- 2>&-", finished).returncode == 0
    command = " ".join([*warm_command(), words])
    left = shell(f"{command} 2>&1 | true; exit ${{PIPESTATUS[0]}}", finished)
    assert (left.returncode, left.stdout, left.stderr) == (0, "", "")
    full = shell(f"{command} >/dev/full", finished)
    if words == "wait out":  # it has nothing to say there
        assert full.returncode == 0
    else:
        assert (full.returncode, "No space left on device" in full.stderr) == (1, True)
        assert "Traceback" not in full.stderr


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=HANG, check=False)


def test_a_full_disk_for_the_status_alone(small: Document, tmp_path: Path) -> None:
    write_all = Store.write_all

    def full(store: Store, files: Mapping[str, bytes]) -> None:
        if any(path.startswith(STATUS) for path in files):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(store, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "write_all", full)
        manifest = run_in_process({**small, "output": {"path": str(tmp_path)}})
    assert sum(part.rows for part in manifest.splits.values()) == 20_000
    assert not list(tmp_path.glob(f"{STATUS}/*.json"))


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def detached() -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.detach()
    return stream


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [Broken, detached, closed, lambda: None])
def test_streams_that_fail(make: Callable[[], Any]) -> None:
    stream = BestEffortStream(make())
    print("lost", file=stream, flush=True)
    assert not stream.isatty()


def test_a_stream_that_works_keeps_its_order_and_its_encoding(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        file.write("one\n")
        print("zwölf", file=BestEffortStream(file))
        file.write("three\n")
    assert (tmp_path / "log").read_text() == "one\nzw\\xf6lf\nthree\n"
    text = io.StringIO()
    print("one", file=BestEffortStream(text))
    assert text.getvalue() == "one\n"


class Terminal:
    """A command on a terminal of its own: what it shows, and keys pressed there."""

    def __init__(self, *words: str, folder: Path, gate: Gate):
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:  # pragma: no cover
            os.chdir(folder)
            os.execve(COMMAND[0], [*COMMAND, *words], {**gate.environment, "TERM": "xterm", "COLUMNS": "100"})
        self.shown = ""

    def until(self, seen: str, press: str = "", seconds: float = HANG) -> None:
        """Read until a pattern shows; meanwhile press keys now and then: each throws away what waits to be shown."""
        begun = pressed = time.monotonic()
        while not re.search(seen, self.shown):
            assert time.monotonic() < begun + seconds, self.shown
            assert self._read(0.02), self.shown
            if press and time.monotonic() > pressed + 0.05:  # an orderly stop takes a few tenths of a second
                pressed = time.monotonic()
                self.press(press)

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def _read(self, seconds: float) -> bool:
        if select.select([self._terminal], [], [], seconds)[0]:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # Linux says so of a terminal that no process holds any more
                data = b""
            self.shown += data.decode(errors="replace").replace("\r\n", "\n")
            return bool(data)
        return True

    def end(self) -> tuple[int, list[str]]:
        """The exit status, and the lines shown, without what moves the cursor."""
        end = time.monotonic() + HANG
        while self._read(1.0):
            assert time.monotonic() < end, self.shown
        os.close(self._terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)
        return status, [line.rpartition("\r")[2] for line in plain.split("\n")]


@pytest.fixture
def place(small: Document, tmp_path: Path) -> Path:
    """The small job with many shards."""
    output = {"path": "out", "layout": "rows", "compression": "gzip", "shard_size": "2KiB"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**small, "keep": ["trip_id"], "output": output}))
    return tmp_path


def held(place: Path, *, lets_go: bool = True) -> Gate:
    """Holds back whatever writes, however late the test looks at it."""
    gate = Gate(place, lets_go)
    gate.close(after=0)
    return gate


@pytest.mark.parametrize("moment", ["Dask on this machine", r"Dask dashboard", WRITING])
def test_ctrl_c_on_a_terminal_shows_one_line(moment: str, place: Path) -> None:
    """The terminal sends it to every process of the command: workers print nothing, and are gone at the end."""
    terminal = Terminal("run", "job.yaml", "--workers", "2", folder=place, gate=held(place))
    terminal.until(moment)
    started = psutil.Process(terminal.pid).children(recursive=True)
    before = len(terminal.shown)
    terminal.press("\x03")
    status, lines = terminal.end()
    assert status == 4, terminal.shown
    assert lines[-2:] == [STOPPED, ""]
    for word in ("Traceback", "KeyboardInterrupt", "Error:", "distributed"):
        assert terminal.shown[before:].count(word) == (word == "Error:")
    assert psutil.wait_procs(started, timeout=HANG)[1] == []


def test_a_second_ctrl_c_ends_at_once(place: Path) -> None:
    gate = held(place, lets_go=False)  # so that an orderly stop takes seconds
    terminal = Terminal("run", "job.yaml", "--workers", "2", folder=place, gate=gate)
    terminal.until(WRITING)
    started = psutil.Process(terminal.pid).children(recursive=True)
    terminal.until("Ended at once|Error:", press="\x03")
    status, lines = terminal.end()
    assert status == 4
    assert "Ended at once. Finished work is kept: continue with --resume (in Python resume=True)." in lines
    assert "Traceback" not in terminal.shown
    assert "starting 2 workers" in terminal.shown
    assert not re.search(r"\b0 workers", terminal.shown)
    assert psutil.wait_procs(started, timeout=HANG)[1] == []
    told = shell(f"{' '.join(warm_command())} status out", place)
    assert "continue with --resume" in told.stdout


def test_a_terminal_that_hangs_up_is_an_interruption(place: Path) -> None:
    terminal = Terminal("run", "job.yaml", "--workers", "1", folder=place, gate=held(place))
    terminal.until(WRITING)
    os.kill(terminal.pid, signal.SIGHUP)
    assert terminal.end()[0] == 4
    assert not (place / "out" / "_run" / "lock").exists()


# Loaded by every worker: what its write tasks raise.
PRELOAD = """
from dtap_dask.errors import DataError
from dtap_dask.job.execution import tasks
def fail(*args, **options):
    raise {what}
tasks.run_write_task = fail
"""


@pytest.mark.parametrize(
    ("what", "told", "debug"),
    [
        ("DataError('Row 7 is bad.')", "Error: Row 7 is bad.", False),
        ("LookupError('seven')", "Error: A task failed with an unexpected error (LookupError: seven).", True),
    ],
)
def test_what_a_task_raises_is_one_paragraph(what: str, told: str, debug: bool, place: Path) -> None:
    """Dask's own log of it, with a traceback, does not come first; with --debug tracebacks are shown."""
    (place / "fail.py").write_text(PRELOAD.format(what=what))
    run = f"DASK_DISTRIBUTED__WORKER__PRELOAD={place}/fail.py {' '.join(warm_command())} run job.yaml --workers 1"
    done = shell(run, place)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "Compute Failed" in line or "Traceback" in line] == []
    assert done.stderr.splitlines()[-1].startswith(told)
    if debug:
        again = run.replace("dtap_dask run", "dtap_dask --debug run") + " --overwrite"
        assert "Traceback" in shell(again, place).stderr
