"""The status of runs: complete snapshots that never delay the run, shown, published, and readable after its end."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

import dtap_dask
from commands import typed
from documents import Document
from dtap_dask.errors import Cancelled, DataError, InterruptedRun, JobError, Superseded
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.status import displays
from dtap_dask.job.status.displays import Silent, open_display
from dtap_dask.job.status.folder import StatusWriter, read_runs
from dtap_dask.job.status.follow import follow
from dtap_dask.job.status.reporter import RunReporter, run_name
from dtap_dask.job.status.snapshot import Note, Snapshot, Stage
from dtap_dask.job.status.sources import FolderSource, RunStatus, is_path
from dtap_dask.job.status.text import run_line, status_lines
from dtap_dask.records.lock import lock
from dtap_dask.storage import open_store
from waiting import HANG

BEGUN = Snapshot("trips-00000a", "trips", "/out", "running", 1000.0, 1000.0)


def status(path: Path | str) -> Document:
    found: Document = json.loads(typed("status", str(path), "--json").stdout)
    return found


class Destination:
    """Keeps what is published to it; given an event, it takes nothing before that."""

    def __init__(self, event: threading.Event | None = None):
        self.event = event
        self.received: list[tuple[Snapshot, Sequence[Note]]] = []

    def __call__(self, snapshot: Snapshot, notes: Sequence[Note]) -> None:
        if self.event is not None:
            assert self.event.wait(HANG)
        self.received.append((snapshot, notes))


def a_reporter() -> RunReporter:
    return RunReporter(BEGUN, Silent(), Secrets())


def a_run(report: RunReporter) -> None:
    report.note("It begins.")
    report.begin("fit", 2, 30, 300)
    report.advance(10, 100)
    report.advance(20, 200)
    report.end()
    report.update(shards_planned=2)
    report.begin("write", 100, 30, 300)
    for _ in range(100):
        report.advance(0, 3)
        report.add(shards_committed=1, bytes_written=5)
    report.end()
    report.succeed({})


def test_a_slow_destination_gets_the_last_state_and_delays_nothing() -> None:
    ended = threading.Event()
    slow, quick = Destination(ended), Destination()
    report = a_reporter()
    with report.publishing(slow, 60.0), report.publishing(quick, 60.0):
        a_run(report)
        assert slow.received == []
        ended.set()
    assert len(slow.received) <= 3
    last, notes = slow.received[-1]
    assert last == quick.received[-1][0]
    assert (last.state, last.exit_code, last.shards_committed, last.bytes_written) == ("done", 0, 100, 500)
    fit, write = last.stages
    assert (fit.name, fit.ended, fit.tasks_done, fit.rows_done, fit.bytes_done) == ("fit", True, 2, 30, 300)
    assert (write.name, write.ended, write.tasks_done) == ("write", True, 100)
    assert [(note.number, note.text) for note in notes] == [(0, "It begins.")]


def test_within_a_stage_states_are_published_at_the_given_pace() -> None:
    destination, report = Destination(), a_reporter()
    start = time.monotonic()
    with report.publishing(destination, 0.2):
        report.begin("fit", 1000, 0, 0)
        for _ in range(50):
            report.advance(1, 1)
            time.sleep(0.01)
    assert 3 <= len(destination.received) <= (time.monotonic() - start) / 0.2 + 4


def test_a_destination_that_fails_does_not_fail_the_run() -> None:
    def broken(snapshot: Snapshot, notes: Sequence[Note]) -> None:
        raise OSError("no space left")

    report = a_reporter()
    with report.publishing(broken, 0.0):
        a_run(report)
    assert report.snapshot.state == "done"


@pytest.mark.parametrize(
    ("error", "state", "exit_code"),
    [
        (DataError("Row 7 is bad."), "failed", 1),
        (JobError("The job is wrong."), "failed", 2),
        (InterruptedRun("The scheduler is gone."), "interrupted", 4),
        (Cancelled("Cancelled."), "cancelled", 4),
        (KeyboardInterrupt(), "interrupted", 4),
        (ZeroDivisionError("division by zero"), "failed", 1),
    ],
)
def test_an_error_ends_the_run(error: BaseException, state: str, exit_code: int) -> None:
    destination, report = Destination(), a_reporter()
    with pytest.raises(type(error)), report.publishing(destination, 60.0):
        raise error
    report.update(state="running")
    last = destination.received[-1][0]
    assert (last.state, last.exit_code) == (state, exit_code)
    assert report.snapshot == last
    assert str(error) in last.note


def test_a_superseded_driver_publishes_nothing_more() -> None:
    destination, report = Destination(), a_reporter()

    def superseded() -> None:
        with report.publishing(destination, 60.0):
            report.begin("fit", 1, 1, 1)
            report.flush()
            report.advance(1, 1)
            raise Superseded("Elsewhere.")

    with pytest.raises(Superseded):
        superseded()
    assert all(snapshot.state == "running" for snapshot, _ in destination.received)
    assert destination.received[-1][0].stages[0].tasks_done == 0


def test_a_snapshot_survives_json_and_newer_versions() -> None:
    report = a_reporter()
    a_run(report)
    written = json.loads(json.dumps(report.snapshot.to_json()))
    assert Snapshot.from_json(written) == report.snapshot
    assert Snapshot.from_json({**written, "weather": "fine"}) == report.snapshot


def test_ids_and_paths_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Taxi: Tips / 2024", "", "ä", "x" * 100):
        assert re.fullmatch(r"[a-z0-9-]{1,48}", run_name(name))
        assert not is_path(run_name(name))
    assert run_name("a") != run_name("a")
    assert all(is_path(path) for path in ("out", "dtap://Tap/out", "./trips-00000a", "/trips-00000a"))
    (tmp_path / "trips-00000a" / "_run").mkdir(parents=True)
    assert is_path("trips-00000a")


def test_the_folder_keeps_the_last_runs(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for i in range(8):
        StatusWriter(store).publish(replace(BEGUN, id=f"trips-00000{i}", started=float(i)), [Note(0, 0.0, "a\nb")])
    assert [one.id for one in read_runs(store)] == [f"trips-00000{i}" for i in range(3, 8)]
    assert len(list(tmp_path.rglob("*.log"))) == 5
    assert FolderSource(store).notes() == [Note(0, 0.0, "a\nb")]


def test_status_says_that_the_process_is_gone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    updated = time.time() - 90
    StatusWriter(store).publish(replace(BEGUN, updated=updated), [])
    with lock(store, run=BEGUN.id):
        holder = json.loads((tmp_path / "_run" / "lock").read_text())
        silent = re.fullmatch(r"Running when last heard from, (\d+) s ago\.", status(tmp_path)["remark"])
        assert silent is not None
        assert 90 <= int(silent[1]) <= time.time() - updated + 1
        (tmp_path / "_run" / "lock").write_text(json.dumps({**holder, "born": "1"}))
        assert re.match(
            r"Running when last heard from, \d+ s ago; its process is gone\..*--resume", status(tmp_path)["remark"]
        )
        (tmp_path / "_run" / "lock").write_text(json.dumps({**holder, "host": "elsewhere"}))
        assert not status(tmp_path)["gone"]
        (tmp_path / "_run" / "lock").write_text(json.dumps(holder))
    waited = typed("wait", str(tmp_path))
    assert waited.exit_code == 4
    assert "its process is gone" in waited.stderr


@pytest.fixture
def file(job: Document, tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return str(path)


def test_a_local_run_is_known_by_its_folder(file: str, tmp_path: Path, client: Client) -> None:
    output = tmp_path / "out"
    empty = typed("status", str(output))
    assert empty.exit_code == 1
    assert "There is no status of a run in" in empty.stderr
    with client.as_current():
        ran = typed("run", file, "--limit", "2000")
    [run] = re.findall(r"^Run (\S+): `dtap-dask status", ran.stderr, re.MULTILINE)
    assert re.fullmatch(r"taxi-tips-[0-9a-f]{6}", run)
    found = status(output)
    assert (found["id"], found["state"], found["exit_code"], found["gone"]) == (run, "done", 0, False)
    assert found["shards_committed"] == found["shards_planned"] == len(list(output.rglob("*.tfrecord")))
    assert found["bytes_written"] == sum(path.stat().st_size for path in output.rglob("*.tfrecord"))
    assert found["bytes_read"] > 0
    assert [(stage["name"], stage["ended"]) for stage in found["stages"]] == [("fit", True), ("write", True)]
    words = typed("status", str(output)).stdout
    assert words.startswith(f"{run}  done  ")
    assert f"{found['shards_planned']} of {found['shards_planned']} shards" in words
    assert "Dask dashboard: " in typed("logs", str(output)).stdout
    waited = typed("wait", str(output), "--json")
    assert waited.exit_code == 0
    assert json.loads(waited.stdout.splitlines()[-1])["event"] == "done"


def test_a_run_that_fails_leaves_its_reason(job: Document, tmp_path: Path, client: Client) -> None:
    job["source"]["where"] = "fare > 0"  # so that nulls are not foreseen
    job["features"] = [{"columns": ["company"], "steps": []}]
    with pytest.raises(dtap_dask.DtapError, match="company") as caught:
        dtap_dask.run(job, client=client, progress="silent")
    found = status(tmp_path / "out")
    assert (found["state"], found["note"], found["exit_code"]) == ("failed", str(caught.value), 1)
    waited = typed("wait", str(tmp_path / "out"))
    assert (waited.exit_code, waited.stderr.splitlines()[-1]) == (1, f"Error: {caught.value}")


def test_a_run_that_does_not_begin_leaves_nothing(job: Document, tmp_path: Path) -> None:
    missing = dtap_dask.job.cluster.client.ClusterOptions(scheduler="tcp://127.0.0.1:9")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dtap_dask.job.cluster.client.WAIT_SECONDS", 0.3)
        with pytest.raises(dtap_dask.DtapError, match="No Dask scheduler answers"):
            dtap_dask.run(job, cluster=missing, progress="silent")
        assert not (tmp_path / "out").exists()
        (tmp_path / "out").mkdir()
        with pytest.raises(dtap_dask.DtapError, match="No Dask scheduler answers"):
            dtap_dask.run(job, cluster=missing, progress="silent")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_run_is_distinguished_from_a_running_one(file: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dtap_dask", "run", file, "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("fit: ") for line in process.stderr)
        while not list(tmp_path.glob("out/_run/status/*.json")):  # its first is written beside what it prints
            assert process.poll() is None
            time.sleep(0.02)
        found = status(tmp_path / "out")
        assert (found["state"], found["gone"]) == ("running", False)
        process.send_signal(signal.SIGKILL)
    found = status(tmp_path / "out")
    assert (found["state"], found["gone"]) == ("running", True)
    assert re.match(r"Running when last heard from, \d+ s ago; its process is gone", found["remark"])


class Story:
    """A run that has made progress at each read."""

    seconds = 0.01

    def __init__(self, statuses: Sequence[RunStatus], notes: Sequence[str]):
        self._statuses, self._notes = iter(statuses), notes
        self._count = 0

    def read(self) -> RunStatus:
        self._count += 1
        return next(self._statuses)

    def notes(self) -> list[Note]:
        return [Note(i, 0.0, text) for i, text in enumerate(self._notes[: self._count])]


def story(end: Snapshot) -> Story:
    stage = Stage("write", 4, 1, 40, 10, 400, 100, 5.0, False)
    half = replace(BEGUN, stages=(stage,), workers=3, shards_planned=4, shards_committed=1)
    more = replace(half, stages=(replace(stage, tasks_done=3, rows_done=30, bytes_done=300),), shards_committed=3)
    full = replace(stage, tasks_done=4, rows_done=40, bytes_done=400, seconds=20.0, ended=True)
    statuses = [RunStatus(BEGUN), RunStatus(half), RunStatus(more), RunStatus(replace(end, stages=(full,)))]
    return Story(statuses, ["Dashboard", "Going", "Still going", "Done"])


def test_a_late_follower_sees_what_run_shows() -> None:
    out = io.StringIO()
    ended = follow(story(replace(BEGUN, state="done", exit_code=0)), "plain", whole=True, out=out)
    assert (ended.over, ended.error) == (True, None)
    lines = out.getvalue().splitlines()
    assert lines == [
        "Dashboard",
        "Going",
        "write: 4 tasks, 40 rows, 400 B",
        "Still going",
        "write: done in 20.0 s, 40 rows, 400 B, 2 rows/s",
        "Done",
    ]
    bars = io.StringIO()
    follow(story(replace(BEGUN, state="done", workers=3, shards_planned=4, shards_committed=4)), "bars", out=bars)
    assert re.search(r"write +━+ 4/4 40 rows +400 B", bars.getvalue())
    assert "3 workers  4 of 4 shards" in bars.getvalue()
    events = io.StringIO()
    status = follow(story(replace(BEGUN, state="cancelled", exit_code=4, note="Stopped.")), "json", out=events)
    assert isinstance(status.error, Cancelled)
    events_shown = [json.loads(line) for line in events.getvalue().splitlines()]
    assert [one["tasks_done"] for one in events_shown if one["event"] == "progress"] == [1, 3, 4]


class Recorder:
    """A display that keeps all it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Snapshot, Sequence[str]]] = []

    def show(self, snapshot: Snapshot, notes: Sequence[str] = (), result: Mapping[str, Any] | None = None) -> None:
        self.shown.append((snapshot, notes))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1000)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_a_display_of_some_snapshots_ends_as_one_of_all(stages: list[tuple[int, int]], random: Random) -> None:
    """Whoever polls misses snapshots, and still sees each stage begin and end once, in order, with the same totals."""
    recorder = Recorder()
    report = RunReporter(BEGUN, recorder, Secrets())
    for number, (tasks, rows) in enumerate(stages):
        report.note(f"Stage {number}.")
        report.begin(f"fit {number}", tasks, tasks * rows, 0)
        for _ in range(tasks):
            report.advance(rows, 0)
        report.end()
    polled = [moment for moment in recorder.shown[:-1] if random.random() < 0.3] + recorder.shown[-1:]
    of_all, of_some = (events_of(moments) for moments in (recorder.shown, polled))
    assert [one["event"] for one in of_all].count("progress") == sum(tasks for tasks, _ in stages)
    kept = [[one for one in events if one["event"] in ("begin", "end")] for events in (of_all, of_some)]
    assert kept[0] == kept[1]
    assert [(one["event"], one["stage"]) for one in kept[0]] == [
        (event, f"fit {number}") for number in range(len(stages)) for event in ("begin", "end")
    ]
    last = {one["stage"]: one for one in of_some if one["event"] == "progress"}
    assert {name: one["tasks_done"] for name, one in last.items()} == {
        f"fit {number}": tasks for number, (tasks, _) in enumerate(stages) if tasks
    }


def events_of(moments: Sequence[tuple[Snapshot, Sequence[str]]]) -> list[Document]:
    out = io.StringIO()
    with open_display("json", out) as display:
        for snapshot, notes in moments:
            display.show(snapshot, notes)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_stage_that_another_attempt_restarts_begins_again() -> None:
    stage = Stage("fit", 4, 3, 40, 30, 0, 0, 5.0, False)
    first, again = (replace(BEGUN, stages=(one,)) for one in (stage, replace(stage, tasks_done=1, rows_done=10)))
    events = events_of([(first, []), (again, [])])
    assert [(one["event"], one.get("tasks_done")) for one in events] == [
        ("begin", None),
        ("progress", 3),
        ("begin", None),
        ("progress", 1),
    ]


def test_plain_lines_between_the_ends_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("fit", 4, 1, 40, 10, 4096, 1024, 50.0, False)
    run = replace(BEGUN, stages=(stage,))
    begun = "fit: 4 tasks, 40 rows, 4.0 KiB\n"
    for pause, more in ((10.0, ""), (0.0, "fit: 1 of 4 tasks, 10 rows, 1.0 KiB, 0 rows/s, 2 min 30 s left\n")):
        monkeypatch.setattr(displays, "PLAIN_SECONDS", pause)
        out = io.StringIO()
        with open_display("plain", out) as display:
            display.show(run)
            display.show(run)  # nothing new
        assert out.getvalue() == begun + more


def test_a_run_in_words() -> None:
    stage = Stage("fit", 4, 1, 40, 10, 4096, 1024, 5.0, False)
    run = replace(BEGUN, stages=(stage, replace(stage, name="write", tasks_done=0, seconds=0.0)), state="waiting")
    lines = list(status_lines(RunStatus(replace(run, lost_workers=1, retries=2), "Nothing heard.")))
    assert lines[2] == "  fit      1 of 4 tasks, 10 rows, 1.0 KiB, 2 rows/s, 15 s left"
    assert lines[3] == "  write    4 tasks, 40 rows, 4.0 KiB to come"
    assert lines[4] == "  run      waiting for workers  1 lost  2 tasks restarted"
    assert lines[-1] == "  note     Nothing heard."
    assert run_line(replace(BEGUN, workers=1, bytes_read=2048)) == "1 worker  2.0 KiB read"
    assert run_line(BEGUN) == ""
    assert run_line(replace(BEGUN, starting=2)) == "starting 2 workers"
    assert run_line(replace(BEGUN, starting=2, workers=1)) == "1 worker"
    assert run_line(replace(BEGUN, starting=2, state="failed", exit_code=1)) == ""
    warned = list(status_lines(RunStatus(replace(BEGUN, warnings=("Few row groups.",)))))
    assert warned[2:] == ["  warning  Few row groups."]


@pytest.fixture(autouse=True)
def no_threads_stay() -> Iterator[None]:
    """Publishers and watchdogs end with the run."""
    before = {*threading.enumerate()}
    yield
    left = [each.name for each in threading.enumerate() if each.name.startswith("dtap_dask") and each not in before]
    assert left == []
