"""docker/compose.yaml with a real NameNode and DataNode, started by its own commands as plain processes.

Only the launcher `hdfs` of the Hadoop image is replaced, by one that starts the same classes of the same Hadoop.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

LAUNCHER = """#!/usr/bin/env bash
what=$1; shift
case $what in
  namenode) class=server.namenode.NameNode ;;
  datanode) class=server.datanode.DataNode ;;
  dfsadmin) class=tools.DFSAdmin ;;
esac
exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true \\
  -cp {classpath} org.apache.hadoop.hdfs.$class "$@"
"""
# What is fixed in a container, where each has its own address, and must be free ports here.
PORTS = ("dfs.namenode.http-address", "dfs.datanode.address", "dfs.datanode.http.address", "dfs.datanode.ipc.address")


def _compose() -> Any:
    spec = importlib.util.spec_from_file_location("compose", Path(__file__).parents[1] / "compose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_compose_brings_up_hdfs_and_trains_from_it(hadoop: Any, tmp_path: Path) -> None:
    compose = _compose()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hdfs").write_text(LAUNCHER.format(classpath=shlex.quote(hadoop.classpath)))
    (tmp_path / "bin" / "hdfs").chmod(0o755)
    words = {"hdfs://namenode:8020": f"hdfs://127.0.0.1:{compose.free_port()}", "100000": "5000"}
    words["file:///tmp/dfs"] = f"file://{tmp_path}/dfs"
    words["/tmp/dfs"] = f"{tmp_path}/dfs"
    ports = " ".join(f"-D {key}=127.0.0.1:{compose.free_port()}" for key in PORTS)
    with compose.Stack(tmp_path / "stack", words, [tmp_path / "bin"]) as stack:
        for name in ("namenode", "datanode"):
            stack.services[name]["environment"]["HDFS"] += f" {ports}"
        stack.start("train")
        stack.wait("train", "service_completed_successfully")
        first = (stack.folder / "sample.log").read_text()
        assert re.search(r"hdfs://\S+/lake/trips: 5,000 rows", first)
        for name in ("sample", "job"):
            del stack.running[name]
            stack.start(name)
            stack.wait(name, "service_completed_successfully")
        assert (stack.folder / "sample.log").read_text() == "", "the lake that is there stays"
        stack.kill("datanode")
        assert stack.healthy("namenode")
        stack.kill("namenode")
        assert not stack.healthy("namenode")
        assert not stack.healthy("datanode")
