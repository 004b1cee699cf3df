"""The main job on a real HDFS: the same bytes as on a local disk, little read, few questions to the NameNode."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from distributed import Client

import dtap_dask
from digests import without_run
from documents import Document, taxi_job
from dtap_dask.cli import tfrecords
from dtap_dask.errors import DtapError
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.lake.sample.sample_lake import write_sample
from dtap_dask.storage import open_store
from mini_hdfs import Hdfs
from waiting import unhindered, until

TABLE_NAMES = ("_delta_log", ".hoodie", "metadata")  # of Delta Lake, Apache Hudi and Apache Iceberg


def digests(url: str, storage: Document | None = None) -> dict[str, str]:
    """SHA-256 of the shards, vocabularies and sidecars of a dataset by path; manifests name their own folders.

    Of sources.parquet, of all columns but the version: it is the time at which a file was written in its own place.
    """
    store = open_store(url, storage)
    paths = [info.path for info in store.list_files() if not info.path.startswith("_run")]
    data = [path for path in paths if path.endswith((".tfrecord", ".parquet")) or path == "transform.json"]
    found = {path: store.read_bytes(path) for path in data}
    found["sources.parquet"] = _unversioned(found["sources.parquet"])
    return without_run({path: hashlib.sha256(content).hexdigest() for path, content in found.items()})


def _unversioned(sources: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(sources))
    assert table["version"].null_count == 0
    rest = table.drop_columns("version")
    return f"{rest.schema}\n{rest.to_pylist()}".encode()


@pytest.fixture(scope="module")
def lake_url(hdfs: Hdfs, lake: Path) -> str:
    """The local sample lake once more, on HDFS."""
    url = f"{hdfs.url}/lakes/sample"
    write_sample(open_store(url), 20_000)
    assert [(one.path, one.size) for one in open_store(url).list_files()] == [
        (one.path, one.size) for one in open_store(str(lake)).list_files()
    ]
    return url


@pytest.fixture(scope="module")
def local(lake: Path, tmp_path_factory: pytest.TempPathFactory, client: Client) -> dict[str, str]:
    """The bytes of the job from a local disk to a local disk."""
    job = taxi_job(lake / "trips", tmp_path_factory.mktemp("local") / "out")
    dtap_dask.run(job, client=client, progress="silent")
    return digests(job["output"]["path"])


def placed(job: Document, source: str, output: str, storage: Document | None = None) -> Document:
    return {**job, "storage": storage or {}, "source": {**job["source"], "path": source}, "output": {"path": output}}


def test_from_hdfs_to_hdfs(job: Document, local: dict[str, str], lake_url: str, hdfs_url: str, client: Client) -> None:
    dtap_dask.run(placed(job, f"{lake_url}/trips", hdfs_url), client=client, progress="silent")
    assert digests(hdfs_url) == local


def test_from_a_tap_on_hdfs_to_a_tap_on_hdfs(
    job: Document, local: dict[str, str], lake_url: str, hdfs_url: str, client: Client
) -> None:
    storage = {"dtap": {"map": {"TenantStorage": lake_url, "Out": hdfs_url}}}
    there = placed(job, "dtap://TenantStorage/trips", "dtap://Out/trips", storage)
    dtap_dask.run(there, client=client, progress="silent")
    assert digests("dtap://Out/trips", storage) == local
    assert [one.path for one in open_store(hdfs_url).list_files("trips") if "manifest" in one.path]


@pytest.fixture(scope="module")
def told(hdfs: Hdfs, lake_url: str, client: Client) -> SimpleNamespace:
    job = {
        "version": 1,
        "source": {"path": f"{lake_url}/trips", "where": "month in (3, 4) and fare > 0"},
        "features": [
            {"columns": ["fare"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
            {"columns": ["company"], "steps": ["ordinal_encode"]},
        ],
        "output": {"path": f"{hdfs.url}/little"},
    }
    before = len(hdfs.calls())
    plan = make_plan(job)
    planned = hdfs.calls()[before:]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        dtap_dask.run(job, client=client, progress="json")
    ran = hdfs.calls()[before + len(planned) :]
    result = json.loads(out.getvalue().splitlines()[-1])
    return SimpleNamespace(plan=plan, planned=planned, ran=ran, result=result)


class TestReadingLittle:
    """What a run asks of the NameNode and reads from DataNodes, by the NameNode's audit log and our own counters."""

    def test_files_that_folders_prune_are_never_opened(self, told: SimpleNamespace) -> None:
        opened = {path for call, path in told.ran if call == "open" and path.endswith(".parquet")}
        assert opened
        assert all("/month=3/" in path or "/month=4/" in path for path in opened if "/trips/" in path)

    def test_bytes_of_the_needed_columns_are_read_once_a_pass(self, told: SimpleNamespace) -> None:
        needed = told.result["bytes_needed"]
        assert needed == told.plan.totals.bytes.read
        assert 2 * needed <= told.result["bytes_read"] <= 1.1 * 2 * needed

    def test_listings_grow_with_folders_not_with_files(self, told: SimpleNamespace) -> None:
        folders = [path for call, path in told.planned if call == "listStatus"]
        assert len(set(folders)) > 12
        assert len(folders) <= 2 * len(set(folders))

    def test_planning_looks_at_the_source_at_folders_above_and_at_opened_files(self, told: SimpleNamespace) -> None:
        """Above the source, at three names for each folder, which tell whether it is the root of a table.

        Listing such a folder instead could take many more calls, and may not be allowed.
        """
        above = [f"{folder}/{name}" for folder in ("", "/lakes", "/lakes/sample") for name in TABLE_NAMES]
        opened = [path for call, path in told.planned if call == "open"]
        looked = Counter(path for call, path in told.planned if call == "getfileinfo")
        assert looked == Counter([*above, *opened, *2 * ["/lakes/sample/trips"]])
        assert {call for call, _ in told.planned} == {"listStatus", "getfileinfo", "open"}

    def test_two_calls_for_each_file_that_a_task_opens(self, told: SimpleNamespace) -> None:
        """In a pass, a file is opened once by each task that reads row groups of it, for two calls to the NameNode.

        The second asks when the file was last written, to notice one that was replaced: hdfs_native's open file tells
        only its length.
        """
        plan = told.plan
        tasks = [{plan.groups[i].file for i in one} for one in (*plan.fit_tasks, *plan.write_tasks)]
        for file in plan.files:
            asked = Counter(call for call, path in told.ran if path.endswith(f"/lakes/sample/{file.path}"))
            footers = 2 if file is plan.files[0] else 1  # the schema is the first file's
            opened = footers + sum(file.path in task for task in tasks)
            assert 0 < asked["open"] <= opened
            assert asked == {"open": asked["open"], "getfileinfo": asked["open"]}


def test_a_datanode_that_restarts(own_hdfs: Hdfs, job: Document, local: dict[str, str]) -> None:
    """The DataNode goes away for some seconds while shards are written."""
    write_sample(open_store(f"{own_hdfs.url}/lake"), 20_000)
    output = f"{own_hdfs.url}/out"

    def restart() -> None:
        store = open_store(output)
        until(lambda: store.list_files("train"))
        own_hdfs.tell("stop")
        time.sleep(4)
        own_hdfs.tell("start")

    with ThreadPoolExecutor(1) as pool, open_client(ClusterOptions(workers=2)) as client:
        restarted = pool.submit(restart)
        there = placed(job, f"{own_hdfs.url}/lake/trips", output)
        said = None
        try:
            dtap_dask.run(there, client=client, progress="silent")
        except DtapError as error:  # either end is right, but it must say how to go on
            said = str(error)
            restarted.result()
            dtap_dask.run(there, client=client, progress="silent", resume=True)
        restarted.result()
    assert said is None or "--resume" in said
    assert digests(output) == local


@pytest.mark.parametrize("command", ["plan", "show"])
def test_a_namenode_that_is_down_is_one_clear_error_within_15_seconds(
    command: str, job: Document, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(placed(job, "hdfs://127.0.0.1:1/lake", str(tmp_path / "out"))))
    target = {"plan": str(tmp_path / "job.yaml"), "show": "hdfs://127.0.0.1:1/out"}[command]
    start = unhindered()
    done = CliRunner().invoke(tfrecords, [command, target], catch_exceptions=False)
    assert unhindered() - start < 15
    assert done.exit_code == 1
    assert re.fullmatch(r"Error: .*NameNode.* hdfs://127\.0\.0\.1:1 .*Check its host and port.*\n", done.stderr)
