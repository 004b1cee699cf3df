"""A cluster by a file: which classes, what is wrong with it, that it is started, used and closed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from distributed import Client, LocalCluster

import dtap_dask
import warm
from documents import Document
from dtap_dask.cli import tfrecords
from dtap_dask.errors import ClusterError, DtapError, JobError
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.cluster.file import read_cluster_file
from waiting import HANG

SECRET = "s3cr3t-passw0rd"
LOCAL = {
    "version": 1,
    "module": "dask.distributed",
    "class": "LocalCluster",
    "kwargs": {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0"},
}


def written(folder: Path, document: Any) -> str:
    path = folder / "cluster.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(path)


def opened(folder: Path, document: Any, **options: Any) -> contextlib.AbstractContextManager[Client]:
    return open_client(ClusterOptions(cluster=written(folder, document), **options))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("a: [", r"cluster\.yaml is not valid YAML at line 1, column \d+: expected"),
        ("- LocalCluster", r"must hold the keys `module`, `class` and `kwargs`.* it is list"),
        ("", "it is NoneType"),
        ({}, "module: this key is required"),
        ({"module": "dask.distributed"}, "class: this key is required"),
        ({**LOCAL, "kwarg": {}}, r"cluster\.yaml: kwarg \(line \d+\): unknown key 'kwarg'\. Did you mean 'kwargs'\?"),
        ({**LOCAL, "version": 2}, r"version \(line \d+\): found 2, valid are 1"),
        (
            {**LOCAL, "class": "LocalClutser"},
            "not one of the allowed classes .*Did you mean 'dask.distributed.LocalCluster",
        ),
        (
            {"module": "os", "class": "system", "args": ["true"]},
            r"os\.system is not one of the allowed classes \(dask\.distributed: Local.*SLURM.*\)\.$",
        ),
        ({"module": "dask_jobqueue", "class": "LocalCluster"}, "dask_jobqueue.LocalCluster is not one of the allowed"),
        ({"module": ["x"], "class": {"y": 1}}, r"module \(line \d+\): found \['x'\]: a text is needed"),
        ({**LOCAL, "args": {"n": 1}}, r"args \(line \d+\): found \{'n': 1\}: a list is needed"),
        ({**LOCAL, "kwargs": [1]}, r"kwargs \(line \d+\): found \[1\]: a mapping of keys is needed"),
        ({**LOCAL, "kwargs": {1: 2}}, r"kwargs\S* \(line \d+\): found .*: a text is needed"),
        ({**LOCAL, "scale": 0}, r"scale \(line \d+\): found 0: a number of at least 1 is needed"),
        ({**LOCAL, "adapt": 3}, r"adapt \(line \d+\): found 3: a mapping of keys is needed"),
        ({**LOCAL, "scale": 1, "adapt": {"maximum": 2}}, r"adapt \(line \d+\): `scale` fixes .* Give only one"),
        ({**LOCAL, "kwargs": {"n_workers": "${NOT_SET_ANYWHERE}"}}, "variable NOT_SET_ANYWHERE is not set"),
        ({**LOCAL, "kwargs": {"wrong": 1}}, r"kwargs: LocalCluster does not accept them: .*'wrong'"),
        (
            {**LOCAL, "adapt": {"maxmum": 2}},
            r"adapt\.maxmum \(line \d+\): unknown key .*Did you mean 'maximum'",
        ),
        (
            {**LOCAL, "adapt": {"maximum": "many"}},
            r"adapt\.maximum \(line \d+\): found 'many': a whole number is needed",
        ),
    ],
)
def test_a_file_that_is_wrong_is_told(document: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=message):
        opened(tmp_path, document).__enter__()


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        read_cluster_file(written(tmp_path, {"version": 3, "claas": "x", "module": "os", "scale": -1}))
    assert len(caught.value.problems) == 4


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    ran = CliRunner().invoke(tfrecords, ["run", "job.yaml", "--cluster", str(tmp_path / "gone.yaml")])
    assert ran.exit_code == 2
    with pytest.raises(JobError, match=r"The cluster file .*gone\.yaml cannot be read \(No such file"):
        open_client(ClusterOptions(cluster=str(tmp_path / "gone.yaml"))).__enter__()


def test_the_command_runs_a_job_on_it(job: Document, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    command = [warm.python(), "-m", "dtap_dask", "run", str(tmp_path / "job.yaml"), "--limit", "500"]
    cluster = written(tmp_path, LOCAL)
    ran = subprocess.run([*command, "--cluster", cluster], capture_output=True, text=True, check=False, timeout=HANG)
    assert ran.returncode == 0, ran.stderr
    assert f"Dask: starting the LocalCluster of {cluster}" in ran.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_it_is_on_loopback_and_closed_afterwards(tmp_path: Path) -> None:
    document = {**LOCAL, "kwargs": {"n_workers": 1, "threads_per_worker": 2, "processes": False}}
    with opened(tmp_path, document) as client:
        cluster = client.cluster
        assert list(client.nthreads().values()) == [2]
        assert {sock.getsockname()[0] for sock in cluster.scheduler.http_server._sockets.values()} == {"127.0.0.1"}
    assert cluster.status.name == "closed"
    assert client.status == "closed"


@pytest.mark.parametrize("size", [{"scale": 2}, {"adapt": {"minimum": 0, "maximum": 1}}])
def test_workers_that_it_asks_for_come(size: Document, job: Document, tmp_path: Path) -> None:
    document = {**LOCAL, "kwargs": {**LOCAL["kwargs"], "n_workers": 0, "threads_per_worker": 1}, **size}
    options = ClusterOptions(cluster=written(tmp_path, document))
    manifest = dtap_dask.run(job, cluster=options, limit=500, progress="silent")
    assert sum(part.rows for part in manifest.splits.values()) > 0


def test_one_that_listens_to_others_must_be_wanted(tmp_path: Path) -> None:
    document = {**LOCAL, "kwargs": {**LOCAL["kwargs"], "n_workers": 0, "host": "0.0.0.0"}}
    with pytest.raises(JobError, match=r"The scheduler tcp://\S+ is on the network and not encrypted.*--insecure"):
        opened(tmp_path, document).__enter__()
    with opened(tmp_path, document, insecure=True) as client:
        assert client.status == "running"


@pytest.mark.parametrize(
    ("module", "name", "package"),
    [
        ("dask_kubernetes.operator", "KubeCluster", "dask-kubernetes"),
        ("dask_gateway", "GatewayCluster", "dask-gateway"),
    ],
)
def test_a_package_that_is_missing_is_told(
    module: str, name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)  # as if it were not installed
    with pytest.raises(ClusterError, match=rf"which is not installed here: pip install {package}\.$"):
        opened(tmp_path, {"module": module, "class": name}).__enter__()


class Pretended:
    """Stands in for a class of a package that is not installed: a scheduler here, workers when they are asked for."""

    def __init__(self, *args: Any, **kwargs: Any):
        if "wrong" in kwargs:
            raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument 'wrong'")
        if "fails" in kwargs:
            raise RuntimeError(f"no route to the batch system with {kwargs['fails']}")
        self.args, self.kwargs = args, kwargs
        self.asked: list[Any] = []
        self.real = LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0")
        self.scheduler_address, self.security = self.real.scheduler_address, self.real.security
        self.dashboard_link, self.loop, self.closed = self.real.dashboard_link, self.real.loop, False
        type(self).made.append(self)

    made: list[Pretended]

    @property
    def status(self) -> Any:
        return self.real.status

    def scale(self, workers: int) -> None:
        self.asked.append(workers)
        self.real.scale(workers)

    def adapt(self, *, minimum: int, maximum: int) -> None:
        self.asked.append((minimum, maximum))
        self.real.adapt(minimum=minimum, maximum=maximum, interval="100ms")

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True
        self.real.close()


OTHERS = [
    ("dask_kubernetes.operator", "KubeCluster"),
    ("dask_gateway", "GatewayCluster"),
    *(("dask_jobqueue", f"{name}Cluster") for name in ("SLURM", "PBS", "SGE", "LSF", "HTCondor", "OAR", "Moab")),
]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pretended]]:
    """All classes that the tests cannot have, as modules of their names."""
    made: list[Pretended] = []
    for module, name in OTHERS:
        parts = module.split(".")
        for n in range(1, len(parts) + 1):
            path = ".".join(parts[:n])
            if not isinstance(sys.modules.get(path), types.SimpleNamespace):
                monkeypatch.setitem(sys.modules, path, types.SimpleNamespace(__path__=[]))
        setattr(sys.modules[module], name, type(name, (Pretended,), {"made": made}))
    yield made
    assert all(one.closed for one in made)


@pytest.mark.parametrize(("module", "name"), OTHERS)
def test_a_pretended_class_of_another_package_is_started_and_closed(
    module: str, name: str, pretended: list[Pretended], tmp_path: Path
) -> None:
    document = {"version": 1, "module": module, "class": name, "args": ["a"], "kwargs": {"cores": 1}, "scale": 1}
    with opened(tmp_path, document) as client:
        client.wait_for_workers(1, timeout=HANG)
        [cluster] = pretended
        assert (type(cluster).__name__, cluster.args, cluster.asked) == (name, ("a",), [1])
        batch = module == "dask_jobqueue"  # whose scheduler is in this process, and listens to everybody by default
        dashboard = cluster.kwargs.get("scheduler_options", {}).get("dashboard_address", "")
        assert dashboard.startswith("127.0.0.1:") is batch
        assert not cluster.closed


def test_a_job_on_a_pretended_class_that_adapts(pretended: list[Pretended], job: Document, tmp_path: Path) -> None:
    document = {"module": "dask_jobqueue", "class": "SLURMCluster", "adapt": {"minimum": 1, "maximum": 2}}
    options = ClusterOptions(cluster=written(tmp_path, document))
    assert dtap_dask.run(job, cluster=options, limit=500, progress="silent").splits
    assert [one.asked for one in pretended] == [[(1, 2)]]


@pytest.mark.usefixtures("pretended")
def test_errors_of_a_pretended_class_are_told_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PASSWORD", SECRET)
    document = {"module": "dask_jobqueue", "class": "PBSCluster", "kwargs": {"fails": "${BATCH_PASSWORD}"}}
    with pytest.raises(ClusterError) as caught:
        opened(tmp_path, document).__enter__()
    assert "did not start (RuntimeError: no route to the batch system with ${BATCH_PASSWORD})" in str(caught.value)
    with pytest.raises(JobError, match="kwargs: PBSCluster does not accept them: .* 'wrong'"):
        opened(tmp_path, {**document, "kwargs": {"wrong": 1}}).__enter__()
    assert SECRET not in repr(read_cluster_file(written(tmp_path, document)))


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Document]:
    """An SSH server in a thread, which runs what it is asked to; the options to connect to it."""
    asyncssh = pytest.importorskip("asyncssh", reason="SSHCluster needs asyncssh")
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "key"))
    key.write_public_key(str(tmp_path / "key.pub"))
    children: list[Any] = []

    async def carry_out(process: Any) -> None:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_shell(process.command, stdout=pipe, stderr=pipe, start_new_session=True)
        children.append(child)
        await process.redirect(stdout=child.stdout, stderr=child.stderr)
        await asyncio.wait(
            [asyncio.ensure_future(child.wait()), asyncio.ensure_future(process.wait_closed())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        process.exit(child.returncode or 0)

    loop = asyncio.new_event_loop()
    options = {"server_host_keys": [key], "authorized_client_keys": str(tmp_path / "key.pub")}
    server = loop.run_until_complete(asyncssh.listen("127.0.0.1", 0, process_factory=carry_out, **options))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield {"port": server.get_port(), "username": "me", "client_keys": [str(tmp_path / "key")], "known_hosts": None}

    async def end() -> None:
        server.close()
        for child in children:
            if child.returncode is None:
                child.terminate()
            await child.wait()

    asyncio.run_coroutine_threadsafe(end(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_over_ssh(sshd: Document, job: Document, tmp_path: Path) -> None:
    """A scheduler and a worker that SSH starts, on this machine."""
    options = {"scheduler_options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    kwargs = {"connect_options": sshd, "worker_options": {"nthreads": 1, "host": "127.0.0.1"}, **options}
    document = {"module": "dask.distributed", "class": "SSHCluster", "args": [["127.0.0.1"] * 2], "kwargs": kwargs}
    where = ClusterOptions(cluster=written(tmp_path, document))
    assert dtap_dask.run(job, cluster=where, limit=500, progress="silent").splits


def test_ssh_that_fails_is_told(tmp_path: Path) -> None:
    """Where asyncssh is missing, it is named."""
    kwargs = {"connect_options": {"port": 9, "known_hosts": None}}
    document = {"module": "dask.distributed", "class": "SSHCluster", "args": [["127.0.0.1"] * 2], "kwargs": kwargs}
    with pytest.raises(
        DtapError, match=r"The SSHCluster of the cluster file .* did not start \(.*(asyncssh|refused|111)"
    ):
        opened(tmp_path, document).__enter__()
