"""The page and metrics of runs on Dask's dashboard: what a browser shows, what a scheduler may refuse."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
from distributed import Client, LocalCluster

import dtap_dask
from browser import Browser
from dtap_dask.docs import pages
from dtap_dask.job.dashboard import install, metrics, page_link
from dtap_dask.job.dashboard.board import MOMENTS_KEPT, RUNS_KEPT, Board, History, ObservedRun
from dtap_dask.job.dashboard.page import render, short
from dtap_dask.job.status.snapshot import SILENT_SECONDS, TOPIC, Snapshot, Stage
from needs import lacking
from waiting import HANG, until

MIB = 1 << 20
_http = build_opener(ProxyHandler({})).open


def stage(name: str, tasks: int, done: int, rows: int, size: int, seconds: float) -> Stage:
    part = done / tasks
    return Stage(name, tasks, done, rows, int(rows * part), size, int(size * part), seconds, done == tasks)


def snapshot(run_id: str = "r1", done: int = 0, **changes: Any) -> Snapshot:
    """A run that has fitted, and written `done` of 640 tasks."""
    now = time.time()
    stages = (
        stage("scan", 12, 12, 0, 0, 3.2),
        stage("fit", 640, 640, 112_860_000, 9_400 * MIB, 181.0),
        stage("write", 640, done, 112_860_000, 10_600 * MIB, done * 0.4),
    )
    published = Snapshot(run_id, "taxi-tips", "hdfs://namenode/trips", "running", now - 200 - done * 0.4, now, stages)
    counts = {"bytes_read": 9_400 * MIB + done * 16 * MIB, "bytes_written": done * 11 * MIB, "workers": 2}
    return replace(published, **{"shards_planned": 256, "shards_committed": done * 256 // 640, **counts, **changes})


@pytest.fixture(scope="module")
def watched() -> Iterator[Client]:
    """A cluster of its own with our page, as runs of other tests would show there."""
    with local_cluster(n_workers=2, threads_per_worker=1) as client:
        assert install(client) is None
        yield client


@contextmanager
def local_cluster(**options: Any) -> Iterator[Client]:
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", **options}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def publish(client: Client, *snapshots: Snapshot) -> None:
    for one in snapshots:
        client.log_event(TOPIC, one.to_json())


def fetch(client: Client, path: str) -> str:
    link = page_link(client)
    assert link
    with _http(link.replace("tfrecords", path), timeout=HANG) as answer:
        return str(answer.read().decode())


def served(client: Client) -> set[str]:
    """The paths of a scheduler's pages, none drawn: Dask's plots switch Bokeh's validation off, for all threads."""

    def paths(dask_scheduler: Any) -> set[str]:
        apps = dask_scheduler.http_application.applications
        return {path for one in apps for path in getattr(one, "app_paths", ())}

    return set(client.run_on_scheduler(paths))


def number(client: Client, name: str, run_id: str) -> float:
    """One run's number at /metrics."""
    found = re.search(rf'^{name}{{[^}}]*run="{run_id}"[^}}]*}} (\S+)$', fetch(client, "metrics"), re.MULTILINE)
    assert found, name
    return float(found[1])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not driver or not chromium:
        lacking("no chromium or no chromedriver on the PATH")
    opened = Browser(driver, chromium, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    """Where pictures are kept."""
    folder = Path(os.environ.get("DTAP_TEST_ARTEFACTS") or tmp_path / "artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def going_on(act: Callable[[int], None]) -> Iterator[None]:
    """`act(0)`, `act(1)`, ... in a thread of its own until the end, which raises what it raised."""
    stop, failed = threading.Event(), []

    def loop() -> None:
        try:
            i = 0
            while not stop.is_set():
                act(i)
                i += 1
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


def test_pages_in_a_browser_during_a_run(
    watched: Client, browser: Browser, job: dict[str, Any], artefacts: Path
) -> None:
    """Both pages live while a real job runs; what a driver posts is seen to move, without errors, from one server."""
    link = page_link(watched)
    assert link
    browser.open(link)
    until(lambda: browser.page("() => true"), "our page is drawn")
    browser.picture(artefacts / "tfrecords-idle.png")

    def run(_: int) -> None:
        dtap_dask.run(job, client=watched, progress="silent", overwrite=True)

    def post(i: int) -> None:
        publish(watched, snapshot("moving", min(640, 20 + 3 * i), note=f"Step {i}"))
        time.sleep(0.1)

    with going_on(run), going_on(post):
        until(lambda: "Step" in browser.text(), "the run shows")
        written = "(main) => [...main.querySelectorAll('.stage')].at(-1).querySelector('.bar span').offsetWidth"
        before = browser.page(written)
        until(lambda: browser.page(written) > before, "the bar of the write stage grows")
        assert "of 256" in browser.text()
        browser.picture(artefacts / "tfrecords-running.png")
        assert browser.errors() == []
        browser.open(link.replace("tfrecords", "status"))
        until(lambda: progress_shown(watched) >= {"fit", "write"}, "Dask knows our stages")
        time.sleep(2)  # its plots are drawn on canvases: for the picture
        until(lambda: any(watched.processing().values()), "tasks run")
        browser.picture(artefacts / "status-running.png")
        assert browser.script("return [...document.querySelectorAll('.navbar a')].map((a) => a.pathname)").count(
            "/tfrecords"
        )
        loaded = browser.script("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert {re.sub(r"^(\w+://[^/]+/|data:).*", r"\1", url) for url in loaded} <= {
            link.removesuffix("tfrecords"),
            "data:",
        }
    assert browser.errors() == []


def progress_shown(client: Client) -> set[str]:
    """The names under which Dask's Progress panel shows tasks."""
    return set(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 1000, 820, 500])
def test_nothing_overlaps(watched: Client, browser: Browser, artefacts: Path, width: int, scheme: str) -> None:
    """Long names, ended runs and narrow windows: nothing sticks out of its card, or is pale."""
    long = "a very long campaign name " * 4
    path = "hdfs://namenode:8020/lake/" + "clicks-and-impressions/" * 8
    failed = "JobError: The column fare has 12 nulls in features[0]. Add impute or allow_null: true. " * 3
    warned = ("Column 'fare' has 3.1 % of nulls: the step impute fills them.", f"Few row groups a shard: {path}.")
    many = {"shards_committed": 10_240, "shards_planned": 25_600, "retries": 3, "lost_workers": 1}
    publish(
        watched,
        snapshot("w-old", 640, state="done", note="Committed 112,860,000 rows in 256 shards."),
        snapshot("w-bad", 40, state="failed", note=failed),
        snapshot("w-wait", stages=(), state="waiting", workers=0, note="Waiting for workers: none yet."),
        snapshot("w-long", 7, name=long, output=path, shards_planned=None),
        *(snapshot("w-run", done, **many, warnings=warned) for done in range(0, 291, 10)),
        snapshot("w-run", 291, **many, warnings=warned, note="Worker tcp://10.0.3.17:40211 was lost."),
    )
    link = page_link(watched)
    assert link
    browser.prefer(scheme)
    browser.open(link, width, 1600)
    until(lambda: "w-run" in browser.text(), "the run shows")
    browser.picture(artefacts / f"tfrecords-{width}-{scheme}.png")
    outside = """(main) => {
      const texts = "h2, .state, .clock, .where, .stage > span, dl > div, .note, .counts, .warnings, figure";
      const boxes = [...main.querySelectorAll(texts)]
        .map((one) => [one.className + one.textContent, one.getBoundingClientRect(), one])
        .filter(([, box]) => box.width && box.height);
      const out = boxes.filter(([, box, one]) => {
        const card = one.closest(".run").getBoundingClientRect();
        return box.left < card.left || box.right > card.right || one.scrollWidth > one.clientWidth + 1
          && getComputedStyle(one).display != "inline";
      });
      const hit = boxes.flatMap(([name, a], i) => boxes.slice(i + 1).filter(([, b]) =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
        .map(([other]) => name + " / " + other));
      return [...out.map(([name]) => name), ...hit];
    }"""
    assert browser.page(outside) == []
    assert browser.script("return document.documentElement.scrollWidth") <= width
    bar = browser.script("return document.querySelector('.navbar').getBoundingClientRect().bottom")
    assert browser.page("(main) => main.getBoundingClientRect().top") >= bar
    assert browser.page(PALE) == []


# Texts that stand out too little from what is behind them: below 4.5, as WCAG 2 reckons contrast.
PALE = """(main) => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement ?? one.getRootNode().host) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3]) return colour;
    }
    return [255, 255, 255];
  };
  return [...main.querySelectorAll("*")]
    .filter((one) => [...one.childNodes].some((node) => node.nodeType == 3 && node.data.trim()))
    .filter((one) => !one.closest(".ended .state"))
    .map((one) => [one, ...[parse(getComputedStyle(one).color), behind(one)].map(light).sort((a, b) => b - a)])
    .map(([one, more, less]) => [one.className + one.textContent.slice(0, 30), (more + 0.05) / (less + 0.05)])
    .filter(([, contrast]) => contrast < 4.5);
}"""


def test_the_rows_a_second_are_drawn(watched: Client, browser: Browser) -> None:
    """Twice as fast in the second half: the line lies twice as high there."""
    begun = snapshot("drawn", 0)
    fit, write = begun.stages[1], begun.stages[2]
    for seconds in range(0, 101, 5):
        rows = 1000 * seconds + 1000 * max(0, seconds - 50)
        stages = (replace(fit, rows_done=0), replace(write, rows_done=rows))
        publish(watched, replace(begun, stages=stages, updated=begun.started + 20 + seconds))
    link = page_link(watched)
    assert link
    browser.prefer("light")
    browser.open(link)
    until(lambda: "rows/s over 1 min 40 s, at most 2 k" in browser.text(), "the chart is drawn")
    found = """(main) => [...main.querySelectorAll("section")].find((one) => one.textContent.includes("drawn"))
      .querySelector("polyline").getAttribute("points")"""
    heights = [40 - float(point.split(",")[1]) for point in browser.page(found).split()]
    assert heights == pytest.approx([20] * 60 + [40] * 60, abs=0.1)
    publish(watched, replace(begun, state="done"))


def test_the_history_stays_small_and_restarts_with_another_driver() -> None:
    history = History()
    begun = snapshot("r", 0, stages=(stage("fit", 10**6, 0, 10**6, 0, 0.0),))
    for moment in range(5000):
        moved = replace(begun.stages[0], rows_done=100 * moment)
        history.take(replace(begun, updated=begun.started + moment, stages=(moved,)))
        assert len(history._points) <= MOMENTS_KEPT
    seconds, rates = history.rates(10)
    assert (seconds, rates) == (4999, pytest.approx([100] * 10))
    history.take(replace(begun, updated=begun.started + 6000))
    assert history.rates(10) == (0.0, [])


def test_what_the_plan_warns_of_is_on_the_page_and_bytes_are_counted_while_a_fit_goes_on(
    watched: Client, job: dict[str, Any]
) -> None:
    job["split"]["where"] = {"train": "fare < 10", "eval": "fare < 12"}
    del job["split"]["parts"], job["split"]["key"]
    seen: list[Snapshot] = []
    watched.subscribe_topic(TOPIC, lambda event: seen.append(Snapshot.from_json(event[1])))
    try:
        dtap_dask.run(job, client=watched, progress="silent")
        until(lambda: seen and seen[-1].state == "done", "the end is published")
    finally:
        watched.unsubscribe_topic(TOPIC)
    assert any("no condition of split.where holds" in warning for warning in seen[-1].warnings)
    fitting = [one for one in seen if one.stages and one.stages[0].tasks_done and not one.stages[0].ended]
    assert all(one.bytes_read >= one.stages[0].bytes_done for one in fitting)
    bytes_read = [one.bytes_read for one in seen]
    assert bytes_read == sorted(bytes_read)
    page = render([ObservedRun(replace(seen[-1], warnings=("<b> & co",)), 0.0)], "", lambda _: "red")
    assert "<ul class='warnings'><li>&lt;b&gt; &amp; co</li></ul>" in page


def test_texts_are_shown_as_they_are(watched: Client, browser: Browser) -> None:
    """Neither HTML nor a formula, wherever a driver puts it."""
    evil = "<img src=x onerror=document.title='owned'> & $$x^2$$ </section>"
    bad = replace(snapshot("evil", 3), name=evil, output=evil, note=evil)
    bad = replace(bad, id=evil, stages=tuple(replace(one, name=evil) for one in bad.stages))
    publish(watched, bad)
    link = page_link(watched)
    assert link
    browser.open(link)
    until(lambda: browser.text().count(evil) == 7, "each text is shown whole")
    assert browser.page("(main) => main.querySelectorAll('img').length") == 0
    assert browser.script("return document.title") == "Dask: TFRecords"
    assert browser.errors() == []
    publish(watched, replace(bad, state="failed"))


def test_installed_once(watched: Client) -> None:
    """A second run finds the page there, with the runs it knows; it is linked once."""
    publish(watched, snapshot("kept", 10))
    assert install(watched) is None
    assert number(watched, "dtap_dask_shards_committed", "kept") == 4
    for path in ("status", "workers", "tfrecords"):
        assert fetch(watched, path).count('href="tfrecords"') == 1


def test_metrics(watched: Client) -> None:
    """The same numbers for Prometheus, under the documented names."""
    publish(watched, snapshot("m", 320, retries=2), snapshot("over", 640, state="done"))
    assert number(watched, "dtap_dask_shards_committed", "m") == 128
    assert number(watched, "dtap_dask_bytes_written_total", "m") == 320 * 11 * MIB
    assert number(watched, "dtap_dask_retries_total", "m") == 2
    assert number(watched, "dtap_dask_run_seconds_left", "m") == pytest.approx(128)
    text = fetch(watched, "metrics")
    assert 'dtap_dask_stage_tasks_done{job="taxi-tips",run="m",stage="write"} 320.0' in text
    assert 'dtap_dask_run_state{job="taxi-tips",run="over",state="done"} 1.0' in text
    assert not re.search(r'dtap_dask_run_(seconds_left|silent_seconds){[^}]*run="over"', text)
    shown = dict(re.findall(r"^# TYPE (dtap_dask_\w+) (\w+)$", text, re.MULTILINE))
    documented = dict(re.findall(r"^\| `(dtap_dask_\w+)` \| (\w+) \|", pages.page("cluster"), re.MULTILINE))
    assert shown == documented


def test_lost_workers_and_tasks_begun_again(watched: Client) -> None:
    """A killed worker counts for unfinished runs, and its task for the run whose id the task's key holds."""
    publish(watched, snapshot("hit1234", 3), snapshot("other567", 4), snapshot("ended890", 5, state="done"))
    future = watched.submit(time.sleep, 60, key="write-hit1234-3-00012")
    until(lambda: any(watched.processing().values()), "the task runs")
    busy = next(worker for worker, keys in watched.processing().items() if keys)
    os.kill(watched.run(os.getpid, workers=[busy])[busy], signal.SIGKILL)
    until(lambda: number(watched, "dtap_dask_lost_workers_total", "hit1234") == 1, "the worker is missed")
    future.cancel()
    assert number(watched, "dtap_dask_retries_total", "hit1234") == 1
    assert number(watched, "dtap_dask_lost_workers_total", "other567") == 1
    assert number(watched, "dtap_dask_retries_total", "other567") == 0
    assert number(watched, "dtap_dask_lost_workers_total", "ended890") == 0
    publish(watched, snapshot("hit1234", 6))  # the counts of a restarted driver itself
    assert number(watched, "dtap_dask_lost_workers_total", "hit1234") == 1
    watched.wait_for_workers(2, timeout=HANG)


def test_a_retired_worker_is_not_lost() -> None:
    board = Board()
    board.take(TOPIC, snapshot("r").to_json())
    gone = {"action": "remove-worker", "processing-tasks": {"fit-r-1"}, "lost-computed-tasks": {"fit-r-2", ("a-r", 1)}}
    board.take("all", {**gone, "expected": True})
    (run,) = board
    assert (run.snapshot.lost_workers, run.snapshot.retries) == (0, 3)
    board.take("all", {**gone, "expected": False})
    assert (run.snapshot.lost_workers, run.snapshot.retries) == (1, 6)


def test_a_broken_snapshot_changes_nothing(watched: Client) -> None:
    """Somebody else's event under our topic, or a driver's of another version: one run is missing, not the page."""
    publish(watched, snapshot("good", 64))
    broken = {**snapshot("broken").to_json(), "started": "yesterday"}
    newer = {**snapshot("newer").to_json(), "mood": "fine"}
    for event in ("hello", {}, broken, newer):
        watched.log_event(TOPIC, event)
    assert number(watched, "dtap_dask_shards_committed", "good") == 25
    assert number(watched, "dtap_dask_shards_committed", "newer") == 0
    assert "broken" not in fetch(watched, "metrics")


def test_the_last_runs_are_kept() -> None:
    board = Board()
    for i in range(RUNS_KEPT + 10):
        board.take(TOPIC, snapshot(f"r{i}", state="done").to_json())
        board.take(TOPIC, snapshot("lasting", i).to_json())
    known = [run.published.id for run in board]
    assert len(known) == RUNS_KEPT
    assert known[0] == "lasting"  # it has not ended
    assert known[1] == f"r{RUNS_KEPT + 9}"


def test_a_silent_driver_is_reported() -> None:
    board = Board()
    board.take(TOPIC, snapshot("r", 64).to_json())
    (run,) = board
    assert "No word" not in render(board, "", lambda _: "red")
    run.received -= SILENT_SECONDS + 70
    assert "No word from its driver for 1 min 30 s" in render(board, "", lambda _: "red")


def test_nothing_running_says_how_to_submit() -> None:
    assert "dtap-dask submit JOB --scheduler tls://&lt;host&gt;:8786<" in render([], "tls://<host>:8786", str)
    assert "--scheduler tcp://127.0.0.1:8786<" in render([], "tcp://127.0.0.1:8786", str)
    assert "--scheduler tcp://10.1.2.3:8786 --insecure<" in render([], "tcp://10.1.2.3:8786", str)


def test_time_left() -> None:
    assert snapshot(done=320).seconds_left == pytest.approx(128)
    assert snapshot(done=0).seconds_left == pytest.approx(184.2)  # by the rows of the fit
    assert snapshot(done=320, state="failed").seconds_left is None
    assert snapshot(stages=()).seconds_left is None
    assert snapshot(stages=(Stage("fit", 9, 0, 100, 0, 0, 0, 2.0, False),)).seconds_left is None


def test_numbers_for_a_person() -> None:
    assert [short(n) for n in (0, 950, 12_345, 112_860_000, 2.4e9, 3e15)] == [
        "0", "950", "12.3 k", "113 M", "2.4 G", "3000000 G",
    ]  # fmt: skip


def test_a_scheduler_without_a_dashboard() -> None:
    """One line says so; events are taken all the same, and /metrics serves them."""
    with local_cluster(n_workers=0, scheduler_kwargs={"dashboard": False}) as client:
        why = install(client)
        assert why
        assert "the scheduler runs without its dashboard" in why
        assert install(client) == why
        publish(client, snapshot("blind", 320))
        assert number(client, "dtap_dask_shards_committed", "blind") == 128


def test_a_scheduler_that_refuses_plugins() -> None:
    with local_cluster(n_workers=0, scheduler_kwargs={"blocked_handlers": ["register_scheduler_plugin"]}) as client:
        why = install(client)
        assert why
        assert "shows no page of this run" in why
        assert "disallowed" in why
        assert "\n" not in why
        publish(client, snapshot("unseen"))
        assert client.get_events(TOPIC)[-1][1]["id"] == "unseen"


def test_a_dask_made_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page builds on parts of Dask that are not public."""
    with local_cluster(n_workers=0) as client:
        monkeypatch.setattr("dtap_dask.job.dashboard.page.template_variables", lambda scheduler: {})
        assert "KeyError: 'pages'" in (install(client) or "")
        assert "/tfrecords" not in served(client)


def test_a_scheduler_without_bokeh(monkeypatch: pytest.MonkeyPatch) -> None:
    with local_cluster(n_workers=0) as client:
        monkeypatch.delitem(sys.modules, "dtap_dask.job.dashboard.page")
        monkeypatch.setitem(sys.modules, "bokeh.server.tornado", None)
        assert "ModuleNotFoundError" in (install(client) or "")


def test_a_scheduler_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is there all the same."""
    monkeypatch.setattr("dtap_dask.job.dashboard.METRICS", metrics.Metrics())
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with local_cluster(n_workers=0) as client:
        assert install(client) is None
        assert "/tfrecords" in served(client)
