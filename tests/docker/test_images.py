"""docker/Dockerfile built for real, and compose's services run from its images: HDFS, a cluster, a job, training.

Needs root, buildah and debootstrap. Not shown here: Docker's own network and volumes, compose itself, Kubernetes, and
the images of Python and Hadoop that a registry holds.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import compose
from dtap_dask import __version__
from images import BASE, Buildah, ImageStack, pins
from needs import lacking

LAUNCHER = """#!/usr/bin/env bash
what=$1; shift
case $what in
  namenode) class=server.namenode.NameNode ;;
  datanode) class=server.datanode.DataNode ;;
  dfsadmin) class=tools.DFSAdmin ;;
esac
exec {java}/bin/java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true \\
  -cp {classpath} org.apache.hadoop.hdfs.$class "$@"
"""
PORTS = ("dfs.namenode.http-address", "dfs.datanode.address", "dfs.datanode.http.address", "dfs.datanode.ipc.address")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def needed() -> None:
    """Skip where images cannot be built; where CI is set, that fails."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        how = f"building images needs {' and '.join(missing)} (Debian: apt-get install buildah debootstrap)"
        lacking(how)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Both targets, built."""
    needed()
    folder = tmp_path_factory.mktemp("images")
    made = Buildah(folder)
    made.make_base()
    for target in ("cluster", "trainer"):
        made.build(target)
    yield made
    made.remove()


def printed(buildah: Buildah, image: str, *words: str) -> str:
    container = buildah.container(image)
    ran = subprocess.run(buildah.run(container, words), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


FIND = "import importlib.util as u; print([n for n in ('tensorflow', 'keras') if u.find_spec(n)])"


@pytest.mark.parametrize(("target", "most", "has"), [("cluster", 1.5, []), ("trainer", 4.0, ["tensorflow", "keras"])])
def test_an_image_is_small_has_its_user_and_nothing_that_it_should_not(
    buildah: Buildah, target: str, most: float, has: list[str]
) -> None:
    image = f"dtap-dask:{target}"
    assert 0.5 < buildah.gigabytes(image) < most
    assert printed(buildah, image, "python", "-c", FIND) == str(has)
    assert printed(buildah, image, "id", "-u") == "10001"
    assert printed(buildah, image, "dtap-dask", "--version").endswith(f"version {__version__}")
    wanted = {**pins("cluster"), **(pins("trainer") if target == "trainer" else {})}
    listed = printed(buildah, image, "pip", "list", "--format", "freeze").splitlines()
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in listed)}
    assert wanted.items() <= found.items()
    writable = printed(
        buildah, image, "sh", "-c", "for f in /work /tls /usr /usr/local; do test -w $f && echo $f; done; true"
    )
    assert writable.split() == ["/work", "/tls"]


def test_compose_s_services_run_from_the_images(buildah: Buildah, hadoop: Any, tmp_path: Path) -> None:
    """In the order of depends_on, with compose's commands, environments, users and health checks."""
    launcher = tmp_path / "hdfs"
    launcher.write_text(LAUNCHER.format(java=hadoop.java, classpath=shlex.quote(hadoop.classpath)))
    launcher.chmod(0o755)
    images = {"dtap-dask:cluster": "dtap-dask:cluster", "dtap-dask:trainer": "dtap-dask:trainer"}
    images["apache/hadoop:3.3.6"] = BASE  # with this machine's Java and Hadoop's own jars
    words = {"namenode:8020": f"namenode:{compose.free_port()}", "100000": "5000"}
    ports = " ".join(f"-D {key}=127.0.0.1:{compose.free_port()}" for key in PORTS)
    with ImageStack(tmp_path / "stack", buildah, images, words) as stack:
        places = {
            str(hadoop.java),
            "/etc/java-17-openjdk",
            *(str(Path(jar).parent) for jar in hadoop.classpath.split(":")),
        }
        places = {place for place in places if place != "." and Path(place).is_dir()}
        stack.volumes["apache/hadoop:3.3.6"] = [
            *(f"{place}:{place}:ro" for place in sorted(places)),
            f"{launcher}:/usr/local/bin/hdfs:ro",
        ]
        for name in ("namenode", "datanode"):
            stack.services[name]["environment"]["HDFS"] += f" {ports}"
        with ThreadPoolExecutor() as pool:  # neither waits for the other, and compose starts both at once
            list(pool.map(stack.start, ("worker-2", "datanode")))
        stack.start("train")
        stack.wait("train", "service_completed_successfully")
        assert stack.order[-2:] == ["job", "train"]
        assert re.search(r"AUC on eval: 0\.[5-9]", stack.log("train").read_text())
        assert re.search(r"Wrote model\.keras and predictions\.parquet to dtap://\S", stack.log("train").read_text())
        assert re.search(r"hdfs://namenode:\d+/lake/trips: 5,000 rows", stack.log("sample").read_text())
        workers = set(re.findall(r"Starting worker compute stream, (tls://\S+)", stack.log("scheduler").read_text()))
        assert len(workers) == 2, "both speak TLS"
        key = stack.folder / "tls" / "key.pem"
        assert (key.stat().st_uid, key.stat().st_mode & 0o077) == (10001, 0)
        assert all(stack.healthy(name) for name in ("scheduler", "worker-1", "worker-2", "datanode"))
        del stack.running["sample"]  # and test_docker_runs.py starts the job again
        stack.start("sample")
        stack.wait("sample", "service_completed_successfully")
        assert stack.log("sample").read_text() == "", "the lake that is there stays"
        stack.kill("worker-2")
        assert not stack.healthy("worker-2")
        stack.kill("datanode")
        assert stack.healthy("namenode")  # which counts a DataNode that falls silent for ten minutes more
        stack.kill("namenode")
        assert not stack.healthy("namenode")
        assert not stack.healthy("datanode")
