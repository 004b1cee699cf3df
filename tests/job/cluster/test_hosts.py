"""Scheduler, workers, HDFS and client on hosts of their own, with TLS between them: network namespaces, so Linux, root.

Six namespaces hang on a bridge in a seventh; nothing of it is seen from outside, and all of it goes with the tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import dtap_dask
import warm
from digests import without_run
from documents import Document, taxi_job
from dtap_dask.storage import open_store
from needs import lacking
from waiting import HANG, unhindered, until

HOSTS = {name: f"10.77.0.{i}" for i, name in enumerate(("head", "one", "two", "storage", "desk", "stranger"), 1)}
ADDRESS = f"tls://{HOSTS['head']}:8786"
ROLES = ("scheduler", "worker", "client")
# Calls of these functions, a line of JSON each, answered by a line each.
ASKED = """
import hashlib, json, sys
from distributed import Client
from dtap_dask.storage import open_store

def workers(address):
    with Client(address, timeout=600) as client:
        return sorted(client.nthreads())

def digests(url):
    store = open_store(url)
    paths = [one.path for one in store.list_files() if one.path.endswith(".tfrecord")]
    return {path: hashlib.sha256(store.read_bytes(path)).hexdigest() for path in paths}

for line in sys.stdin:
    name, *given = json.loads(line)
    print(json.dumps(globals()[name](*given)), flush=True)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Hosts:
    """The namespaces, by the names of their hosts; what is begun in them is ended with them."""

    folder: Path
    prefix: str = field(default_factory=lambda: f"dtap-{uuid.uuid4().hex[:6]}-")
    begun: list[subprocess.Popen[bytes]] = field(default_factory=list)
    asked: subprocess.Popen[bytes] | None = None

    def within(self, host: str) -> list[str]:
        """What a command begins with that is to run on a host."""
        return ["ip", "netns", "exec", self.prefix + host]

    def make(self) -> None:
        """A bridge, and a cable to each host."""
        for name in ("switch", *HOSTS):
            ip("netns", "add", self.prefix + name)
            ip("-n", self.prefix + name, "link", "set", "lo", "up")
        switch = self.prefix + "switch"
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for i, (name, address) in enumerate(HOSTS.items()):
            there = self.prefix + name
            ip("-n", switch, "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", there)
            ip("-n", switch, "link", "set", f"port{i}", "master", "bridge", "up")
            ip("-n", there, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", there, "link", "set", "eth0", "up")

    def environment(self, authority: str | None) -> dict[str, str]:
        """Dask's settings of certificates; None for somebody without."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
        if authority is None:
            return plain
        place, tls = self.folder / authority, "DASK_DISTRIBUTED__COMM__TLS__"
        names = [(f"{role.upper()}__{kind.upper()}", f"{role}.{kind}") for role in ROLES for kind in ("cert", "key")]
        return (
            plain | {f"{tls}CA_FILE": str(place / "ca.cert")} | {tls + name: str(place / file) for name, file in names}
        )

    def begin(self, host: str, log: str, *command: str, authority: str | None = "ours") -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as out:
            whole = [*self.within(host), warm.python(), "-m", *command]
            environment = self.environment(authority)
            process = subprocess.Popen(whole, stdout=out, stderr=out, cwd=self.folder, env=environment)
        self.begun.append(process)
        return process

    def run(self, host: str, *command: str, authority: str | None = "ours") -> subprocess.CompletedProcess[str]:
        whole = [*self.within(host), warm.python(), "-m", *command]
        environment = self.environment(authority)
        return subprocess.run(
            whole, capture_output=True, text=True, check=False, timeout=HANG, cwd=self.folder, env=environment
        )

    def workers(self) -> list[str]:
        """The hosts of the workers that the scheduler has now."""
        return [address.split("/")[2].split(":")[0] for address in self.ask("workers", ADDRESS)]

    def ask(self, function: str, argument: str) -> Any:
        """What a function of ASKED returns on the desk, in one process for all calls."""
        log = self.folder / "asked.log"
        if self.asked is None:
            command = [*self.within("desk"), warm.python(), "-c", ASKED]
            environment = self.environment("ours")
            with log.open("wb") as errors:
                self.asked = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=errors, env=environment)
            self.begun.append(self.asked)
        assert self.asked.stdin is not None
        assert self.asked.stdout is not None
        self.asked.stdin.write(json.dumps([function, argument]).encode() + b"\n")
        self.asked.stdin.flush()
        line = self.asked.stdout.readline()
        assert line, log.read_text()
        return json.loads(line)

    def end(self) -> None:
        for process in self.begun:  # nobody looks at an orderly end
            process.kill()
        for process in self.begun:
            process.wait(HANG)
            for stream in filter(None, (process.stdin, process.stdout)):
                stream.close()
        for name in ("switch", *HOSTS):
            subprocess.run(["ip", "netns", "delete", self.prefix + name], check=False, capture_output=True)


def certify(folder: Path) -> None:
    """A certificate authority, and a certificate of it for each role."""
    folder.mkdir()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", *curve, "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.cert")
    for role in ROLES:
        request = ["-keyout", f"{role}.key", "-out", f"{role}.request"]
        openssl("req", *curve, "-subj", f"/CN={role}", *request)
        signed = ["-CA", "ca.cert", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", f"{role}.cert"]
        openssl("x509", "-req", "-in", f"{role}.request", *signed)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("ip", "openssl"))):
        lacking("hosts of their own need network namespaces (Linux, root, iproute2) and openssl")
    made = Hosts(tmp_path_factory.mktemp("hosts"))
    with ExitStack() as stack:
        stack.callback(made.end)
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            lacking(f"this machine makes no network namespaces: {error.stderr.decode().strip()}")
        for authority in ("ours", "theirs"):
            certify(made.folder / authority)
        yield made


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Hosts:
    """A scheduler and two workers."""
    listen = ["--host", HOSTS["head"], "--port", "8786", "--protocol", "tls", "--dashboard-address", "127.0.0.1:0"]
    hosts.begin("head", "scheduler.log", "distributed.cli.dask_scheduler", *listen)
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
    for name in ("one", "two"):
        hosts.begin(name, f"{name}.log", "distributed.cli.dask_worker", ADDRESS, *options)
    until(lambda: len(hosts.workers()) == 2, "both workers are there")
    return hosts


@pytest.fixture(scope="module")
def storage(hosts: Hosts, start_hdfs: Callable[..., Any]) -> Iterator[str]:
    """HDFS on a host of its own, with the sample lake; its URL."""
    running = start_hdfs(hosts.folder / "hdfs", at=HOSTS["storage"], within=hosts.within("storage"))
    try:
        made = hosts.run("desk", "dtap_dask", "sample", f"{running.url}/lake", "--rows", "20000")
        assert made.returncode == 0, made.stderr
        yield running.url
    finally:
        running.stop()


@pytest.fixture
def placed(job: Document, storage: str, hosts: Hosts) -> Document:
    """The job from HDFS to HDFS; its output is the test's own."""
    document = {**job, "source": {**job["source"], "path": f"{storage}/lake/trips"}}
    document["output"] = {"path": f"{storage}/out-{uuid.uuid4().hex[:6]}"}
    (hosts.folder / "job.yaml").write_text(json.dumps(document))  # JSON is YAML
    return document


@pytest.fixture(scope="module")
def local(lake: Path, tmp_path_factory: pytest.TempPathFactory, client: Client) -> dict[str, str]:
    """The bytes of the same job on one machine."""
    job = taxi_job(lake / "trips", tmp_path_factory.mktemp("local") / "out")
    dtap_dask.run(job, client=client, progress="silent")
    store = open_store(job["output"]["path"])
    paths = [one.path for one in store.list_files() if one.path.endswith(".tfrecord")]
    return without_run({path: hashlib.sha256(store.read_bytes(path)).hexdigest() for path in paths})


def digests(hosts: Hosts, url: str) -> dict[str, str]:
    found: dict[str, str] = hosts.ask("digests", url)
    return found


def test_the_same_bytes_as_on_one_machine(cluster: Hosts, placed: Document, local: dict[str, str]) -> None:
    ran = cluster.run("desk", "dtap_dask", "run", "job.yaml", "--scheduler", ADDRESS)
    assert ran.returncode == 0, ran.stderr
    assert without_run(digests(cluster, placed["output"]["path"])) == local
    assert cluster.workers() == [HOSTS["one"], HOSTS["two"]]


def test_a_job_that_is_left_there(cluster: Hosts, placed: Document, local: dict[str, str]) -> None:
    """The driver speaks TLS to the scheduler too, by its worker's certificate."""
    submitted = cluster.run("desk", "dtap_dask", "submit", "job.yaml", "--scheduler", ADDRESS)
    assert submitted.returncode == 0, submitted.stderr
    waited = cluster.run("desk", "dtap_dask", "wait", submitted.stdout.strip(), "--scheduler", ADDRESS)
    assert waited.returncode == 0, waited.stderr
    assert without_run(digests(cluster, placed["output"]["path"])) == local


@pytest.mark.parametrize(
    ("authority", "address", "said"),
    [
        (None, ADDRESS, "TLS"),
        ("theirs", ADDRESS, "CERTIFICATE_VERIFY_FAILED|certificate|Timed out"),
        (None, ADDRESS.replace("tls", "tcp"), "Timed out|closed|reset"),
    ],
)
def test_a_worker_without_a_certificate_gets_nothing(
    authority: str | None, address: str, said: str, cluster: Hosts
) -> None:
    log = f"stranger-{uuid.uuid4().hex[:6]}.log"
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "3"]
    worker = cluster.begin("stranger", log, "distributed.cli.dask_worker", address, *options, authority=authority)
    until(lambda: any(word in (cluster.folder / log).read_text() for word in said.split("|")), said)
    assert cluster.workers() == [HOSTS["one"], HOSTS["two"]]
    worker.kill()
    worker.wait()
    text = (cluster.folder / log).read_text()
    assert "Registered to" not in text
    assert any(word in text for word in said.split("|")), text[-2000:]


@pytest.mark.parametrize(
    ("authority", "scheme", "code", "message"),
    [
        (None, "tls", 2, "needs certificates, but there is no distributed.comm.tls.ca-file"),
        ("theirs", "tls", 1, "its certificate is not from the certificate authority configured here"),
        ("ours", "tcp", 2, "is on the network and not encrypted"),
        ("ours", "tcp --insecure", 1, "speaks another protocol; an address with TLS begins with tls://"),
    ],
)
def test_a_client_without_a_certificate_gets_nothing(
    authority: str | None, scheme: str, code: int, message: str, cluster: Hosts
) -> None:
    scheme, *options = scheme.split()
    address = ADDRESS.replace("tls", scheme)
    asked = cluster.run("stranger", "dtap_dask", "jobs", "--scheduler", address, *options, authority=authority)
    assert asked.returncode == code, asked.stderr
    assert message in asked.stderr
    assert not asked.stdout


def test_a_worker_that_does_not_reach_the_storage_is_named(cluster: Hosts, placed: Document) -> None:
    """It reaches the scheduler, but its way to HDFS is blocked."""
    blocked = [cluster.prefix + "two", "route", "add", "unreachable", f"{HOSTS['storage']}/32"]
    ip("-n", *blocked)
    try:
        begun = unhindered()
        ran = cluster.run("desk", "dtap_dask", "run", "job.yaml", "--scheduler", ADDRESS)
        assert unhindered() - begun < 60
    finally:
        blocked[2] = "delete"
        ip("-n", *blocked)
    assert ran.returncode == 1, ran.stderr
    assert f"1 of 2 workers cannot do the job. Worker tls://{HOSTS['two']}:" in ran.stderr
    source = placed["source"]["path"].removesuffix("/trips")
    assert f"the source {source} cannot be listed from the host" in ran.stderr
