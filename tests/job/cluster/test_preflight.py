"""Every worker proves that it reaches the data; what it says names worker, tap, way taken and next step."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import dtap_dask
from dtap_dask.errors import ClusterError
from dtap_dask.job import taps
from dtap_dask.job.cluster.client import preflight
from dtap_dask.storage import access, open_store
from dtap_dask.storage.local import LocalFiles

HOST = socket.gethostname()
HERE = "/proc/self/cwd"  # another folder in every process: what is below it stands for a mount that some lack
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/cwd is Linux's")


@pytest.fixture
def at(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The client stands in `tmp_path`; the workers stand elsewhere, and may be moved."""
    before = client.run(os.getcwd)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for worker, folder in before.items():
        client.run(os.chdir, folder, workers=[worker])


def _set_map(value: str) -> None:
    os.environ["DTAP_MAP"] = value


def open_tap(url: str, **dtap: Any) -> Any:
    return open_store(url, taps.settings({"dtap": dtap}))


@needs_proc
@pytest.mark.parametrize("blind", [1, 2])
def test_workers_without_the_mount_are_named(client: Client, at: Path, blind: int) -> None:
    (at / "disk").mkdir()
    workers = sorted(client.run(os.getcwd))
    client.run(os.chdir, str(at), workers=workers[blind:])
    source = open_tap("dtap://T/trips", map={"T": f"{HERE}/disk"})
    (at / "disk" / "trips").mkdir()
    with pytest.raises(ClusterError) as caught:
        preflight(client, source, open_store(str(at / "out")))
    assert str(caught.value) == (
        f"{blind} of 2 workers cannot do the job. Worker {workers[0]}: the source dtap://T/trips cannot be listed from "
        f"the host {HOST}: DataTap 'T' is mapped to the folder {HERE}/disk, which does not exist here. Create or mount "
        "it, or correct dtap.map (DTAP_MAP)."
    )


@needs_proc
def test_a_worker_with_another_mount_is_told_what_it_lacks(client: Client, at: Path, tmp_path: Path) -> None:
    for folder in ("disk/trips", "worker/disk"):
        (tmp_path / folder).mkdir(parents=True)
    client.run(os.chdir, str(tmp_path / "worker"))
    source = open_tap("dtap://T/trips", map={"T": f"{HERE}/disk"})
    wanted = rf"the source dtap://T/trips \(mapped to {HERE}/disk\) does not exist as seen from the host {HOST}\. Mount"
    with pytest.raises(ClusterError, match=wanted):
        preflight(client, source, open_store(str(at / "out")))
    (tmp_path / "worker" / "disk" / "trips").mkdir()
    preflight(client, source, open_store(str(at / "out")))


@needs_proc
def test_a_worker_takes_the_way_of_the_client_only(client: Client, at: Path) -> None:
    """The workers' environment names another place for the tap, which might hold other data."""
    for folder in ("mounts/T/trips", "other/trips"):
        (at / folder).mkdir(parents=True)
    source = open_tap("dtap://T/trips", mount_root=f"{HERE}/mounts")
    client.run(_set_map, f"T={at}/other")
    try:
        wanted = (
            rf"DataTap 'T' of dtap://T/trips has no mount: the mount root {HERE}/mounts holds no folder 'T'\. .*way"
        )
        with pytest.raises(ClusterError, match=wanted):
            preflight(client, source, open_store(str(at / "out")))
        client.run(os.chdir, str(at))
        preflight(client, source, open_tap("dtap://T/out", mount_root=f"{HERE}/mounts"))
    finally:
        client.run(_set_map, "")


def test_a_worker_without_java_is_told_which_parts_it_lacks(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has the parts (empty ones: nothing is started), its workers were started without."""
    for name in ("libhdfs.so", "java/lib/server/libjvm.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with zipfile.ZipFile(tmp_path / "dtap.jar", "w") as jar:
        jar.writestr("com/bluedata/hadoop/bdfs/Bdfs.class", b"")
    for name, value in {"ARROW_LIBHDFS_DIR": "", "JAVA_HOME": "/java", "CLASSPATH": "/hadoop.jar"}.items():
        monkeypatch.setenv(name, f"{tmp_path}{value}")
    source = open_tap("dtap://T/trips", jar=f"{tmp_path}/dtap.jar")
    wanted = r"Worker tcp://\S+: the source dtap://T/trips cannot be listed .*through libhdfs: .*Set ARROW_LIBHDFS_DIR"
    with pytest.raises(ClusterError, match=wanted):
        preflight(client, source, open_store(str(tmp_path / "out")))


@needs_proc
def test_a_job_is_refused_before_it_starts(client: Client, at: Path, job: dict[str, Any], lake: Path) -> None:
    (at / "disk").symlink_to(lake)
    job["storage"] = {"dtap": {"map": {"T": f"{HERE}/disk"}}}
    job["source"]["path"] = "dtap://T/trips"
    with pytest.raises(ClusterError, match=r"2 of 2 workers .*'T' is mapped to the folder /proc/self/cwd/disk"):
        dtap_dask.run(job, client=client, progress="silent")
    assert not (at / "out" / "manifest.json").exists()


# What one process says


def test_what_is_proven_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "f").touch()
    settings = taps.settings({"dtap": {"map": {"T": str(tmp_path)}}})
    assert access.cannot_list("dtap://T/lake", settings) is None
    assert access.cannot_write("dtap://T/out", settings, "_run") is None
    assert json.loads(json.dumps(settings)) == settings
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "lake" / "f"]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ECONNREFUSED])
def test_a_refused_write_names_place_way_and_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """The refusal is made up, as the tests may run as root."""

    def refuse(self: LocalFiles, path: str) -> None:
        raise OSError(error, os.strerror(error), path)

    monkeypatch.setattr(LocalFiles, "open_output", refuse)
    settings = taps.settings({"dtap": {"map": {"T": str(tmp_path)}}})
    said = access.cannot_write("dtap://T/out", settings, "_run") or ""
    assert said.startswith(f"the output dtap://T/out (mapped to {tmp_path}) cannot be written from the host {HOST}: ")
    remedies = {
        errno.EACCES: "A DataTap may be read-only from within a tenant's nodes",
        errno.EROFS: "Choose another output.path",
        errno.ENOSPC: "Free some",
        errno.ECONNREFUSED: "Check that host's network and mounts, then run again",
    }
    assert remedies[error] in said


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    said = access.cannot_list(str(tmp_path), taps.settings()) or ""
    assert said.startswith(f"the source {tmp_path} cannot be listed from the host {HOST}: No permission to list")
