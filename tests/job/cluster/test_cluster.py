"""Where a job runs: what is refused before it starts, which scheduler is taken, and what is closed afterwards."""

from __future__ import annotations

import contextlib
import copy
import gc
import http.server
import json
import logging
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dask
import psutil
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster, default_client
from distributed.security import Security

import dtap_dask
from dask_processes import dask_processes
from documents import Document
from dtap_dask.cli import tfrecords
from dtap_dask.errors import ClusterError, JobError
from dtap_dask.job.cluster import client as module
from dtap_dask.job.cluster import local as local_cluster
from dtap_dask.job.cluster import machine
from dtap_dask.job.cluster.client import ClusterOptions, open_client, preflight
from dtap_dask.job.cluster.security import is_safe
from dtap_dask.storage import open_store
from waiting import HANG, unhindered


def small(job: Document, client: Client | None = None, **options: Any) -> dtap_dask.Manifest:
    return dtap_dask.run(job, client=client, limit=500, progress="silent", **options)


def test_a_scheduler_without_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.2)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterError, match=r"The scheduler tcp://127\.0\.0\.1:\d+ has no workers .* `dask worker"),
    ):
        preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))


@pytest.mark.parametrize(("package", "theirs"), [("pyarrow", "1.0"), ("dtap_dask", None), ("python", "3.4.1.final.0")])
def test_workers_with_other_software_are_refused(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, theirs: str | None
) -> None:
    """The answer of one worker is made up: two versions of pyarrow cannot be installed in one test environment."""
    answer = copy.deepcopy(client.get_versions(packages=["dtap_dask", "pyarrow", "numpy"]))
    worker = sorted(answer["workers"])[1]
    answer["workers"][worker]["packages"][package] = theirs
    monkeypatch.setattr(Client, "get_versions", lambda self, check=False, packages=None: answer)
    shown = "3.4" if package == "python" else theirs
    with pytest.raises(
        ClusterError, match=rf"different software: {worker} has {package} {shown}, the client \S+\. Inst"
    ):
        preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))


def test_the_same_software_everywhere_is_fine_and_nothing_is_left_behind(client: Client, tmp_path: Path) -> None:
    preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_worker_that_cannot_see_the_source_is_named(client: Client, tmp_path: Path) -> None:
    source = open_store(str(tmp_path / "gone"))
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot do the job\. Worker tcp://\S+: the source .*gone"):
        preflight(client, source, open_store(str(tmp_path / "out")))


def test_a_worker_that_cannot_write_the_output_is_named(client: Client, tmp_path: Path) -> None:
    """Below a plain file no folder can be made, not even by root."""
    (tmp_path / "file").write_bytes(b"")
    output = open_store(str(tmp_path / "file" / "out"))
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot do the job\. Worker tcp://127\.0\.0\.1:\d+: .*file"):
        preflight(client, open_store(str(tmp_path)), output)


@pytest.fixture(scope="module")
def scheduler_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The scheduler file of a scheduler and a worker that run already."""
    with dask_processes(tmp_path_factory.mktemp("cluster"), 1, "--nthreads", "1") as started:
        yield Path(started.file)


@pytest.mark.parametrize("by", ["scheduler", "scheduler_file"])
def test_a_cluster_that_runs_already_does_the_job_and_lives_on(by: str, job: Document, scheduler_file: Path) -> None:
    address = json.loads(scheduler_file.read_text())["address"]
    options = ClusterOptions(**{by: address if by == "scheduler" else str(scheduler_file)})
    manifest = small(job, cluster=options)
    assert sum(part.rows for part in manifest.splits.values()) > 0
    with Client(address, timeout=HANG, set_as_default=False) as client:
        assert len(client.nthreads()) == 1


def test_the_command_takes_the_address_of_a_scheduler(job: Document, scheduler_file: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(job))  # JSON is YAML
    address = json.loads(scheduler_file.read_text())["address"]
    ran = CliRunner().invoke(
        tfrecords, ["run", str(tmp_path / "job.yaml"), "--limit", "500", "--scheduler", address], catch_exceptions=False
    )
    assert ran.exit_code == 0, ran.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_a_scheduler_file_that_never_comes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.3)
    for text in (None, "{", "[]", "{}"):
        if text is not None:
            (tmp_path / "scheduler.json").write_text(text)
        options = ClusterOptions(scheduler_file=str(tmp_path / "scheduler.json"))
        with pytest.raises(ClusterError, match=r"The scheduler file .* names no scheduler"), open_client(options):
            pass


def test_the_scheme_of_an_address_must_be_known() -> None:
    with (
        pytest.raises(
            JobError, match=r"nonsense://here .* which Dask does not know here\. Most addresses begin with tcp://"
        ),
        open_client(ClusterOptions(scheduler="nonsense://here")),
    ):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9"])
def test_an_address_where_nothing_answers_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.5)
    options = ClusterOptions(scheduler=address)
    with pytest.raises(ClusterError, match=f"No Dask scheduler answers at {address}"), open_client(options):
        pass
    with pytest.raises(ValueError, match="No client"):  # nothing dead is left behind for the next run to take
        default_client()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ClusterOptions(scheduler="tcp://a:1", scheduler_file="f"), "--scheduler and --scheduler-file all say where"),
        (ClusterOptions(scheduler="tcp://a:1", cluster="f"), "--scheduler and --cluster all say where to run"),
        (ClusterOptions(cluster="f", workers=1), "--workers are for a cluster on this .* --cluster says where to run"),
        (ClusterOptions(scheduler="tcp://a:1", workers=2), "--workers are for a cluster on this machine"),
        (ClusterOptions(scheduler_file="f", threads=1, memory="1GiB"), "--threads, --memory are for a cluster on this"),
        (ClusterOptions(memory="much"), "--memory 'much' is not a size such as 4GiB"),
        (
            ClusterOptions(workers=10**6),
            r"--workers 1000000 leaves each [\d.]+ \w+ of this machine's .* Give --workers \d+ or",
        ),
        (ClusterOptions(tls_cert="c.pem"), "--tls-cert are for a running scheduler"),
        (
            ClusterOptions(scheduler="127.0.0.1:9", tls_key="k"),
            "--tls-key are for a scheduler at a tls:// address, which 127",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: ClusterOptions, message: str) -> None:
    with pytest.raises(JobError, match=message), open_client(options):
        pass


def test_the_current_client_is_taken(job: Document, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_cluster(*_: Any) -> LocalCluster:
        raise AssertionError("a cluster was started although a client was there")

    monkeypatch.setattr(module, "local_cluster", no_cluster)
    with client.as_current():
        small(job)
    assert client.status == "running"
    assert len(client.nthreads()) == 2


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # Dask's, of a port in use
def test_a_cluster_of_our_own_is_on_loopback_and_closed_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run that starts at the same time takes the port of the dashboard, of which Dask would warn."""
    other = socket.socket()

    class Late(LocalCluster):
        def __init__(self, **options: Any):
            with contextlib.suppress(OSError):  # it is in use anyway
                other.bind(("127.0.0.1", 8787))
            other.listen()
            super().__init__(**options)

    monkeypatch.setattr(local_cluster, "LocalCluster", Late)
    options = ClusterOptions(workers=1, threads=2, memory="1GiB")
    with other, open_client(options) as client:
        cluster = client.cluster
        assert urlparse(client.dashboard_link).port != 8787
        assert urlparse(client.dashboard_link).hostname == "127.0.0.1"
        assert urlparse(client.scheduler.address).hostname == "127.0.0.1"
        sockets = [one.getsockname() for one in cluster.scheduler.http_server._sockets.values()]
        assert {host for host, _ in sockets} == {"127.0.0.1"}
        assert list(client.nthreads().values()) == [2]
        [worker] = client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["memory_limit"] == 1 << 30
        assert urlparse(f"http://{worker['host']}").hostname == "127.0.0.1"
    assert cluster.status.name == "closed"
    assert client.status == "closed"
    gc.collect()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_nothing_listens_to_other_machines() -> None:
    """By the kernel's own tables: every listening socket that this process and those it has started have now."""
    me = psutil.Process()

    def open_sockets() -> set[str]:
        return {inode for one in (me, *me.children(recursive=True)) for inode in sockets(one.pid)}

    before = open_sockets()
    with open_client(ClusterOptions(workers=1)):
        fresh = open_sockets() - before
        found = {host for host, inode in listening() if inode in fresh}
    assert "0100007F" in found  # 127.0.0.1
    assert found <= {"0100007F", f"{'0' * 24}01000000"}  # ::1


def sockets(pid: int) -> Iterator[str]:
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(file)
            if target.startswith("socket:["):
                yield target[8:-1]


def listening() -> Iterator[tuple[str, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                yield words[1].partition(":")[0], words[9]


@pytest.mark.parametrize(
    ("cores", "memory", "options", "expected"),
    [
        (2, 24 << 30, (None, 1, None), (2, 1, 12 << 30)),
        (64, 16 << 30, (None, 1, None), (8, 1, 2 << 30)),
        (64, 16 << 30, (None, 1, 4 << 30), (4, 1, 4 << 30)),
        (8, 64 << 30, (None, 4, None), (2, 4, 32 << 30)),
        (8, 64 << 30, (1, 4, None), (1, 4, 64 << 30)),
        (1, 1 << 30, (None, 1, None), (1, 1, 1 << 30)),
        (2, 8 << 30, (None, 4, None), (1, 4, 8 << 30)),
    ],
)
def test_workers_suit_the_machine(
    cores: int, memory: int, options: tuple[Any, ...], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "memory", lambda: memory)
    assert local_cluster._sizes(*options) == expected


def test_what_is_started_is_told(job: Document, capsys: pytest.CaptureFixture[str]) -> None:
    options = ClusterOptions(workers=1, threads=2, memory="1GiB")
    dtap_dask.run(job, cluster=options, limit=500, progress="plain")
    assert "Dask on this machine: 1 worker process of 2 threads, 1.0 GiB each\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("tcp://127.1.2.3:8786", True),
        ("localhost:8786", True),
        ("tcp://[::1]:8786", True),
        ("inproc://10.0.0.1/1/2", True),
        ("tls://head.example:8786", True),
        ("tcp://head.example:8786", False),
        ("10.1.2.3:8786", False),
        ("tcp://0.0.0.0:8786", False),
        ("tcp://[2001:db8::1]:8786", False),
        ("ucx://10.1.2.3:8786", False),
        ("ws://head.example:8786", False),
        ("tcp://localhost.example:8786", False),
        ("tcp://127.0.0.1.example:8786", False),
    ],
)
def test_which_addresses_are_safe(address: str, safe: bool) -> None:
    assert is_safe(address) is safe


@pytest.mark.parametrize("by", ["option", "file", "configuration"])
def test_a_scheduler_on_the_network_must_be_encrypted_or_wanted(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.3)
    address = "tcp://head.invalid:8786"
    (tmp_path / "file").write_text(json.dumps({"address": address}))
    given = {"option": {"scheduler": address}, "file": {"scheduler_file": str(tmp_path / "file")}}.get(by, {})
    with dask.config.set({"scheduler-address": address if by == "configuration" else None}):
        with pytest.raises(JobError, match=rf"{address} is on the network and not encrypted.*--insecure"):
            open_client(ClusterOptions(**given)).__enter__()
        with pytest.raises(ClusterError, match=f"No Dask scheduler answers at {address}"):
            open_client(ClusterOptions(**given, insecure=True)).__enter__()


def test_the_command_says_it_too(job: Document, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    for command in (["run", str(tmp_path / "job.yaml")], ["submit", str(tmp_path / "job.yaml")], ["jobs"]):
        ran = CliRunner().invoke(tfrecords, [*command, "--scheduler", "tcp://head.invalid:8786"])
        assert ran.exit_code == 2, command
        assert "not encrypted" in ran.stderr
        assert "--insecure" in ran.stderr


def test_workers_are_not_for_a_scheduler_of_the_configuration() -> None:
    with (
        dask.config.set({"scheduler-address": "tcp://127.0.0.1:9"}),
        pytest.raises(JobError, match=r"--workers are for .*; tcp://127\.0\.0\.1:9 already has workers"),
    ):
        open_client(ClusterOptions(workers=2)).__enter__()


@pytest.mark.parametrize("speaks", ["nothing", "HTTP"])
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_what_is_no_scheduler_is_told_in_time(
    speaks: str, scheme: str, monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    """Dask's own client would wait for ever for what takes the connection and says nothing."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 1.0)
    kind = http.server.BaseHTTPRequestHandler if speaks == "HTTP" else Mute
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever).start()
        address = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        begun = unhindered()
        with pytest.raises(ClusterError, match=rf"No Dask scheduler answers at {address} within 1 s \(.{{20}}"):
            open_client(ClusterOptions(scheduler=address, **(certificates.mine if scheme == "tls" else {}))).__enter__()
        assert unhindered() - begun < 5
        server.shutdown()


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """Tornado leaves the socket to the garbage collector where a connection fails in some ways."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Mute(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        time.sleep(3)


class Certificates:
    """Two certificate authorities, each with one certificate for all roles."""

    def __init__(self, folder: Path):
        for name in ("mine", "other"):
            curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
            subprocess.run(
                ["openssl", "req", "-x509", *curve, "-subj", f"/CN={name}", *files], check=True, capture_output=True
            )
        (folder / "broken.pem").write_text("not a certificate")
        self.folder = folder
        self.mine = self.of("mine", "mine")

    def of(self, authority: str, own: str) -> dict[str, Any]:
        place = str(self.folder)
        own_files = {"tls_cert": f"{place}/{own}.pem", "tls_key": f"{place}/{own}.key"}
        return {"tls_ca_file": f"{place}/{authority}.pem", **own_files}

    def security(self) -> Security:
        own = {"cert": str(self.folder / "mine.pem"), "key": str(self.folder / "mine.key")}
        roles = {f"tls_{role}_{kind}": path for role in ("scheduler", "worker", "client") for kind, path in own.items()}
        return Security(require_encryption=True, tls_ca_file=own["cert"], **roles)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates) -> Iterator[str]:
    """The address of a scheduler with TLS, and a worker in a thread."""
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with LocalCluster(
        n_workers=1, processes=False, protocol="tls://", security=certificates.security(), **here
    ) as cluster:
        yield cluster.scheduler_address


class TestCertificates:
    """A scheduler with TLS: who is let in, and what is said to who is not."""

    def test_files_given(self, encrypted: str, certificates: Certificates) -> None:
        with open_client(ClusterOptions(scheduler=encrypted, **certificates.mine)) as client:
            assert client.submit(len, "abc").result() == 3

    def test_files_of_the_configuration(self, encrypted: str, certificates: Certificates) -> None:
        mine = certificates.mine
        place = "distributed.comm.tls"
        own = {f"{place}.client.cert": mine["tls_cert"], f"{place}.client.key": mine["tls_key"]}
        configured = dask.config.set({f"{place}.ca-file": mine["tls_ca_file"], **own})
        with configured, open_client(ClusterOptions(scheduler=encrypted)) as client:
            assert client.submit(len, "abc").result() == 3

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                {},
                r"no distributed\.comm\.tls\.ca-file in Dask.* \(nor --tls-ca-file\) and no .*client\.cert .*--tls-key",
            ),
            ({"tls_ca_file": "mine.pem"}, r"there is no distributed\.comm\.tls\.client\.cert in Dask's conf"),
            ({"tls_ca_file": "mine.pem", "tls_cert": "gone"}, r"--tls-cert \(.*\): \S*gone cannot be read \(No such"),
            ({"tls_ca_file": "mine.pem", "tls_cert": "broken.pem"}, r"broken\.pem cannot be used together"),
            ({"tls_ca_file": "mine.pem", "tls_cert": "mine.pem", "tls_key": "other.key"}, r"together: .*mismatch"),
        ],
    )
    def test_files_that_will_not_do(
        self, given: dict[str, str], message: str, encrypted: str, certificates: Certificates
    ) -> None:
        files = {name: str(certificates.folder / file) for name, file in given.items()}
        with pytest.raises(JobError, match=message):
            open_client(ClusterOptions(scheduler=encrypted, **files)).__enter__()

    @pytest.mark.parametrize(
        ("authority", "own", "message"),
        [
            ("mine", "other", "it does not accept the certificate configured here"),
            ("other", "mine", "its certificate is not from the certificate authority configured here"),
        ],
    )
    def test_who_is_not_trusted(
        self, authority: str, own: str, message: str, encrypted: str, certificates: Certificates
    ) -> None:
        begun = unhindered()
        with pytest.raises(ClusterError, match=message):
            open_client(ClusterOptions(scheduler=encrypted, **certificates.of(authority, own))).__enter__()
        assert unhindered() - begun < 10

    def test_in_the_clear_to_one_with_tls(self, encrypted: str) -> None:
        with pytest.raises(ClusterError, match="speaks another protocol; an address with TLS begins with tls://"):
            open_client(ClusterOptions(scheduler=encrypted.replace("tls", "tcp"))).__enter__()

    def test_tls_to_one_in_the_clear(self, client: Client, certificates: Certificates) -> None:
        address = client.scheduler.address.replace("tcp", "tls")
        with pytest.raises(ClusterError, match="what listens there does not speak TLS"):
            open_client(ClusterOptions(scheduler=address, **certificates.mine)).__enter__()


def test_a_worker_is_no_scheduler(client: Client) -> None:
    [worker, *_] = client.nthreads()
    with pytest.raises(ClusterError, match=f"No Dask scheduler answers at {worker}: it is a Worker"):
        open_client(ClusterOptions(scheduler=worker)).__enter__()


def test_workers_that_are_due_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that adapts starts none before there is a task; they may come much later than 15 seconds."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
    told: list[str] = []
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=1, interval="100ms", wait_count=1000)  # so that it is there still when counted
        preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")), told.append)
        assert set(told) == {"Waiting for workers: there are none yet."}
        assert len(client.nthreads()) == 1


def test_workers_that_never_come_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_FOR_WORKERS_SECONDS", 0.3)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=0, interval="100ms")
        with pytest.raises(ClusterError, match="No worker has joined tcp://.* Check what starts them"):
            preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))


def test_a_cluster_of_our_own_is_closed_after_a_failure() -> None:
    opened = []

    def fail() -> None:
        with open_client(ClusterOptions(workers=1)) as client:
            opened.append(client.cluster)
            raise KeyError("failed")

    with pytest.raises(KeyError, match="failed"):
        fail()
    assert opened[0].status.name == "closed"


def test_a_worker_needs_more_than_a_few_bytes() -> None:
    with (
        pytest.raises(JobError, match=r"--memory '4' is 4 bytes per worker.*Did you mean 4GiB\?"),
        open_client(ClusterOptions(memory="4")),
    ):
        pass
