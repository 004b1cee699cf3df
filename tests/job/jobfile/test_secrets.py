"""Secrets are planted where a job may hold them, and looked for wherever a run leaves a trace, also in all of Dask.

A job's secrets travel to the workers: in pickles, over the connections, which is what TLS is for. Nothing shows them.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from bokeh.client import pull_session
from distributed import Client

import warm
from dask_processes import DaskProcesses, dask_processes
from documents import Document
from dtap_dask.errors import DtapError
from dtap_dask.job.jobfile.secrets import Secrets, secrets_in
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.storage import open_store
from dtap_dask.storage.locations import locate
from waiting import HANG, until

TOKEN = "t0ken-0f-the-envir0nment"
PASSWORD = "passw0rd-in-the-j0b"
IN_URL = "p4ss-in-a-url"
SECRETS = (TOKEN, PASSWORD, IN_URL)
# A filesystem that says its options when it fails, as some do, and can be slow; for every process of the cluster.
VAULT = """
import io, os, time
from pathlib import Path
import fsspec

class Vault(fsspec.AbstractFileSystem):
    protocol, cachable, folder, worker = "vault", False, Path({folder!r}), {worker!r}

    def __init__(self, token, login, **more):
        super().__init__(token=token, login=login, **more)
        assert (token, login) == ({token!r}, {{"password": {password!r}}})

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.split("://")[-1].partition("@")[2].lstrip("/") if "@" in path else path

    def ls(self, path, detail=True, **_):
        names = sorted(one.path for one in os.scandir(self._strip_protocol(path)))
        return [self.info(name) if detail else name for name in names]

    def info(self, path, **_):
        path = self._strip_protocol(path)
        return dict(name=path, size=os.stat(path).st_size, type="directory" if os.path.isdir(path) else "file")

    def _open(self, path, mode="rb", **_):
        told = Path(self.folder, "mode").read_text()
        if self.worker and told == "slow":
            time.sleep(4)
        if told == ("fail-worker" if self.worker else "fail-client"):
            try:
                raise ValueError("signed with %s" % self.storage_options)
            except ValueError as error:
                raise RuntimeError("the vault is shut") from error
        if self.worker and told == "fail-loudly":
            raise RuntimeError("no vault opens for %s" % self.storage_options)
        return io.FileIO(path, "rb")

fsspec.register_implementation("vault", Vault, clobber=True)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """One worker, which knows the vault; clients load vault_client.py."""
    folder = tmp_path_factory.mktemp("cluster")
    for name in ("worker", "client"):
        text = VAULT.format(folder=str(folder), worker=name == "worker", token=TOKEN, password=PASSWORD)
        (folder / f"vault_{name}.py").write_text(text)
    set_mode(folder, "fine")
    preload = str(folder / "vault_worker.py")
    with dask_processes(folder, 1, "--nthreads", "2", "--preload", preload, dashboard=True) as started:
        yield started


def set_mode(folder: Path, mode: str) -> None:
    """Say what the vault of the cluster in a folder does."""
    (folder / "mode").write_text(mode)


@pytest.fixture
def watcher(cluster: DaskProcesses) -> Iterator[Client]:
    with cluster.client() as client:
        yield client


@pytest.fixture
def planted(job: Document, lake: Path, tmp_path: Path) -> Document:
    """A job with secrets from the environment and of its own: as options, in paths, in a condition, in its name."""
    job["name"] = "with ${VAULT_TOKEN}"
    job["storage"] = {"vault": {"token": "${VAULT_TOKEN}", "login": {"password": PASSWORD}}}
    job["source"]["path"] = f"vault://me:{IN_URL}@{lake}/trips"
    job["source"]["where"] += " and company <> '${VAULT_TOKEN}'"
    job["output"]["path"] = f"{tmp_path}/${{VAULT_TOKEN}}/out"
    return job


COMMAND = "from dtap_dask.cli import main; main()"
# What somebody asks about a run afterwards, in one process; it fails where a command does not end as it should.
QUESTIONS = """
import sys
from dtap_dask.cli import tfrecords
run, *where = sys.argv[1:]
for words, expected in (["wait", run], 1), (["status", run], 0), (["logs", run], 0), (["jobs"], 0):
    try:
        tfrecords([*words, *where], prog_name="dtap-dask")
    except SystemExit as end:
        code = end.code or 0
    if code != expected:
        sys.exit(f"{words} ended with {code}")
"""


def begin(
    cluster: DaskProcesses, job: Document, folder: Path, *words: str, program: str = COMMAND
) -> subprocess.Popen[str]:
    """A command, or another program, with the vault known to its process."""
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    start = f"import runpy; runpy.run_path({str(cluster.folder / 'vault_client.py')!r})"
    command = [warm.python(), "-c", f"{start}\n{program}", *words]
    environment = os.environ | {"VAULT_TOKEN": TOKEN}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=HANG)
    return process.returncode, out + err


def everything(dask_scheduler: Any) -> str:
    """What the scheduler holds and anybody may ask for."""
    tasks = [(key, one.exception_text, one.traceback_text) for key, one in dask_scheduler.tasks.items()]
    computed = [one.code for one in dask_scheduler.computations]
    names = [*dask_scheduler.task_prefixes, *dask_scheduler.task_groups, *dask_scheduler.extensions["publish"].datasets]
    told = [dask_scheduler.get_events(), dask_scheduler.task_metadata, list(dask_scheduler.transition_log)]
    return repr([tasks, computed, names, told, list(dask_scheduler.erred_tasks), dask_scheduler.get_logs()])


def clean(where: str, text: str) -> None:
    for secret in SECRETS:
        for shown in {secret, html.escape(secret), urllib.parse.quote(secret)}:
            assert shown not in text, f"{where}: ...{text[max(0, text.find(shown) - 300) :][:400]}..."


def search_dask(client: Client, cluster: DaskProcesses) -> None:
    clean("scheduler", client.run_on_scheduler(everything))
    clean("scheduler's log", repr(client.get_scheduler_logs()))
    clean("worker's log", repr(client.get_worker_logs()))
    clean("story", repr(client.run(lambda dask_worker: [repr(dask_worker.state.tasks), str(dask_worker.state.log)])))
    clean("processes' logs", cluster.logs())
    clean("call stack", repr(client.call_stack()))


def search_folder(folder: Path) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        clean(str(path.relative_to(folder)).replace(TOKEN, ""), path.read_bytes().decode(errors="replace"))


def pages(root: str, first: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The pages below a server's address that others link to, and the plots' documents as a browser gets them.

    Of pages that differ in the name of a task only, few are read.
    """
    plots = [one for one in json.loads(fetched(f"{root}/individual-plots.json")).values() if not one.endswith(".html")]
    rest = ["/info/main/workers.html", "/info/main/exceptions.html", "/info/main/logs.html", "/metrics", "/tfrecords"]
    rest += ["/json/counts.json", "/json/identity.json", "/json/index.html", "/status", "/tasks", "/graph", "/profile"]
    rest += first
    seen: set[str] = set()
    while rest:
        page = rest.pop()
        of_tasks = page.startswith(("/info/task/", "/info/call-stack/"))
        if page in seen or (of_tasks and sum(one.startswith(page.rpartition("/")[0]) for one in seen) >= 3):
            continue
        seen.add(page)
        text = fetched(root + page)
        yield page, text
        if page.startswith("/info"):
            links = [
                urllib.parse.urljoin(page, html.unescape(one)) for one in re.findall(r'href="([^"]*\.html)"', text)
            ]
            rest += [link for link in links if link.startswith("/info")]
    for plot in (*plots, "/tfrecords", "/status", "/tasks", "/graph"):
        try:
            session = pull_session(url=root + plot)
        except RuntimeError as error:  # some of Dask's plots cannot be given to a client at some moments
            assert "Failed to pull document" in str(error)  # noqa: PT017
            continue
        yield f"{plot} (document)", repr(session.document.to_json())
        session.close()


def fetched(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=HANG) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:  # of a task that is gone by now
        return error.read().decode()


def test_a_run_that_ends_well(cluster: DaskProcesses, watcher: Client, planted: Document, tmp_path: Path) -> None:
    """While its tasks are slow every page is read; afterwards everything that is left."""
    set_mode(cluster.folder, "slow")
    running = begin(cluster, planted, tmp_path, "run", "job.yaml", "--limit", "2000", *cluster.where)
    try:
        read = pages_during(running, watcher)
    except BaseException:
        running.kill()
        running.communicate()
        raise
    set_mode(cluster.folder, "fine")
    for page, text in read.items():
        clean(page, text)
    code, told = ended(running)
    assert code == 0, told
    clean("terminal", told)
    search_dask(watcher, cluster)
    [output] = tmp_path.glob(f"{TOKEN}/out")
    search_folder(output)
    assert {"status", "manifest.json"} <= {path.name for path in output.rglob("*")}
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["job"]["storage"]["vault"]["token"] == "${VAULT_TOKEN}"


def pages_during(running: subprocess.Popen[str], watcher: Client) -> dict[str, str]:
    keys: list[str] = []

    def busy() -> bool:
        assert running.poll() is None, ended(running)
        keys[:] = [key for stack in watcher.call_stack().values() for key in stack]
        return bool(keys)

    until(busy, "a task runs")
    [worker] = map(urllib.parse.quote_plus, watcher.nthreads())
    key = urllib.parse.quote_plus(keys[0])
    first = [f"/info/{one}.html" for one in (f"call-stacks/{worker}", f"task/{key}", f"call-stack/{key}")]
    read = dict(pages(watcher.dashboard_link.removesuffix("/status"), first))
    assert all("read_task" in read[page] or "_open" in read[page] for page in (first[0], first[2]))
    assert {f"/info/worker/{worker}.html", f"/info/logs/{worker}.html"} <= read.keys()
    assert "with ${VAULT_TOKEN}" in read["/tfrecords (document)"]
    return read


@pytest.mark.parametrize(
    ("mode", "fit", "command"),  # any two values of different columns meet
    [
        ("fail-worker", "fused", "run"),
        ("fail-worker", "dask_ml", "submit"),
        ("fail-loudly", "fused", "submit"),
        ("fail-loudly", "dask_ml", "run"),
    ],
)
def test_a_run_that_fails(
    command: str, fit: str, mode: str, cluster: DaskProcesses, watcher: Client, planted: Document, tmp_path: Path
) -> None:
    """On a worker, in a filesystem that tells its options, itself or in the error that it comes from."""
    planted["fit"] = fit
    if fit == "dask_ml":
        planted["features"] = planted["features"][:1]
    set_mode(cluster.folder, mode)
    code, told = ended(begin(cluster, planted, tmp_path, "--debug", command, "job.yaml", *cluster.where))
    if command == "submit":
        assert code == 0, told
        run = told.split()[0]
        asked, more = ended(begin(cluster, planted, tmp_path, run, *cluster.where, program=QUESTIONS))
        assert asked == 0, more
        told += more
    else:
        assert code == 1, told
    assert "vault" in told
    clean("terminal", told)
    search_dask(watcher, cluster)
    search_folder(tmp_path / TOKEN / "out")
    set_mode(cluster.folder, "fine")


@pytest.mark.parametrize("command", ["plan", "run", "preview"])
def test_a_command_that_fails_before_there_is_a_cluster(
    command: str, cluster: DaskProcesses, planted: Document, tmp_path: Path
) -> None:
    """With --debug it shows the traceback, without the secrets that stand in it."""
    set_mode(cluster.folder, "fail-client")
    code, told = ended(begin(cluster, planted, tmp_path, "--debug", command, "job.yaml"))
    set_mode(cluster.folder, "fine")
    assert code == 1, told
    clean("terminal", told)
    assert "the vault is shut" in told


def test_reprs_show_no_settings(planted: Document, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tracebacks may show the variables of each frame; debuggers and pytest do."""
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    planted["storage"] = {"memory": planted["storage"]["vault"]}
    job = Job.load(planted)
    settings = {"memory": {"token": TOKEN}}
    shown = (job, str(job), job.secrets, open_store("memory://x", settings), locate("memory://x", settings))
    for one in shown:
        clean(type(one).__name__, repr(one))
    assert fsspec.get_filesystem_class("memory") is not None


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"s3": {"key": "AKIA1", "secret": "abcd", "endpoint_url": "http://x"}}, ["AKIA1", "abcd"]),
        ({"s3": {"client_kwargs": {"aws_secret_access_key": "abcd", "region_name": "eu"}}}, ["abcd"]),
        ({"abfs": {"account_name": "me", "account_key": "abcd", "sas_token": "efgh"}}, ["abcd", "efgh"]),
        ({"http": {"headers": {"Authorization": "Bearer abcd"}}}, ["Bearer abcd"]),
        ({"ftp": {"password": "abcd", "username": "me"}}, ["abcd"]),
        ({"gcs": {"token": {"client_id": "abcd"}}}, ["abcd"]),
        ({"dtap": {"map": {"key": "./lake", "Secret": "./there"}}, "hdfs": {"dfs.client.key": "abcd"}}, ["./there"]),
        ({"s3": {"token": "${TOKEN}"}}, []),
    ],
)
def test_which_options_are_secrets(section: Document, expected: list[str]) -> None:
    assert sorted(secrets_in({"storage": section}).values()) == sorted(expected)


def test_passwords_in_urls_are_secrets() -> None:
    document = {
        "source": {"path": ["ftp://me:abcd@host/x", "ftp://me:ijkl@host/y"]},
        "output": {"path": "ftp://:efgh@host/"},
    }
    assert sorted(secrets_in(document).values()) == ["abcd", "efgh", "ijkl"]
    assert secrets_in({"source": "nonsense", "output": None, "storage": ["x"]}) == {}


def test_a_changed_copy_of_a_job_has_its_secrets(planted: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    planted["storage"] = {"memory": planted["storage"]["vault"]}
    job = Job.load(planted)
    copy = Job.load(job.model_copy(update={"name": "another"}))
    assert copy.storage == job.storage
    clean("document", json.dumps(copy.document))


def test_what_an_error_came_from_is_redacted_too() -> None:
    """In the text of a traceback, which Dask's workers log and --debug shows."""

    def refused() -> None:
        try:
            raise ValueError(f"refused {TOKEN}")
        except ValueError as error:
            raise DtapError("It was refused.") from error

    with pytest.raises(DtapError) as caught, Secrets({"TOKEN": TOKEN}).redacting():
        refused()
    assert str(caught.value) == "It was refused."
    assert caught.value.__suppress_context__
    [note] = caught.value.__notes__
    assert "ValueError: refused ${TOKEN}" in note
