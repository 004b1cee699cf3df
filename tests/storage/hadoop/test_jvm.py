"""What libhdfs needs is looked for in the right places, and set. No Java machine is started here."""

from __future__ import annotations

import os
import threading
import time
import zipfile
from pathlib import Path

import pytest

from dtap_dask.errors import StorageError
from dtap_dask.storage.hadoop import jvm
from waiting import HANG, unhindered

VARIABLES = ("JAVA_HOME", "ARROW_LIBHDFS_DIR", "HADOOP_HOME", "CLASSPATH", "HADOOP_CONF_DIR", "LIBHDFS_OPTS")
CLASS = "com/bluedata/hadoop/bdfs/Bdfs.class"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java and Hadoop: a folder for them."""
    for name in (*VARIABLES, "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "")  # so that it is put back whatever a test sets
        monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(jvm, "JARS", (str(tmp_path / "opt/bdfs/dtap.jar"), str(tmp_path / "opt/bluedata/dtap.jar")))
    monkeypatch.setattr(jvm, "_LIBRARIES", (str(tmp_path / "usr/lib"),))
    monkeypatch.setattr(jvm, "_JVMS", (str(tmp_path / "usr/java"),))
    monkeypatch.setattr(jvm, "_jvm_runs", lambda: False)
    monkeypatch.setattr(jvm._Started, "pid", None)
    return tmp_path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def jar(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(CLASS, b"")
    return path


def furnish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, the jar where a pod has it."""
    touch(folder / "java/lib/server/libjvm.so")
    touch(folder / "native/libhdfs.so")
    jar(folder / "opt/bdfs/dtap.jar")
    monkeypatch.setenv("JAVA_HOME", str(folder / "java"))
    monkeypatch.setenv("ARROW_LIBHDFS_DIR", str(folder / "native"))
    monkeypatch.setenv("CLASSPATH", "/jars/a.jar:/jars/b.jar")


def hadoop_command(path: Path, script: str) -> None:
    touch(path).write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_each_missing_part_is_told_with_every_path_tried(bare: Path) -> None:
    reasons = jvm.missing()
    for path in ("opt/bdfs/dtap.jar", "opt/bluedata/dtap.jar", "usr/lib/libhdfs.so", "usr/java"):
        assert str(bare / path) in " ".join(reasons)
    wanted = [("hpecp.hpe.com/dtap", "DTAP_JAR"), ("ARROW_LIBHDFS_DIR", "HADOOP_HOME"), ("JAVA_HOME",), ("CLASSPATH",)]
    assert len(reasons) == len(wanted)
    for words, reason in zip(wanted, reasons, strict=True):
        assert all(word in reason for word in words)
    with pytest.raises(StorageError) as caught:
        jvm.prepare()
    assert all(reason in str(caught.value) for reason in reasons)


def test_hdfs_needs_no_jar(bare: Path) -> None:
    assert len(jvm.missing(dtap=False)) == len(jvm.missing()) - 1


def test_looking_changes_nothing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    before = dict(os.environ)
    assert jvm.missing() == []
    assert dict(os.environ) == before


def test_the_environment_is_completed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    touch(bare / "opt/bdfs/libjni_memq_cnode.so")
    touch(bare / "more/y.jar")
    touch(bare / "more/x.jar")
    (bare / "conf").mkdir()
    monkeypatch.setenv("CLASSPATH", f"/jars/a.jar:{bare}/more/*:/jars/a.jar:")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(bare / "conf"))
    monkeypatch.setenv("LIBHDFS_OPTS", "-Xmx1g")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    jvm.prepare()
    entries = [bare / "conf", "/jars/a.jar", bare / "more/x.jar", bare / "more/y.jar", bare / "opt/bdfs/dtap.jar"]
    assert os.environ["CLASSPATH"] == ":".join(map(str, entries))
    assert os.environ["LIBHDFS_OPTS"] == "-Xmx1g -Xrs"
    assert os.environ["LD_LIBRARY_PATH"] == f"{bare}/opt/bdfs:/mine"
    jvm.prepare()
    assert os.environ["CLASSPATH"] == ":".join(map(str, entries))
    assert os.environ["LIBHDFS_OPTS"] == "-Xmx1g -Xrs"


@pytest.mark.parametrize("where", ["HADOOP_HOME", "PATH"])
def test_hadoop_is_asked_for_the_classpath(bare: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    furnish(bare, monkeypatch)
    for name in ("CLASSPATH", "ARROW_LIBHDFS_DIR"):
        monkeypatch.delenv(name)
    hadoop_command(
        bare / "hadoop/bin/hadoop", 'echo "a warning"; [ "$*" = "classpath --glob" ] && echo /h/1.jar:/h/2.jar'
    )
    touch(bare / "hadoop/lib/native/libhdfs.so")
    if where == "PATH":
        (bare / "bin/hadoop").symlink_to(bare / "hadoop/bin/hadoop")
    else:
        monkeypatch.setenv("HADOOP_HOME", str(bare / "hadoop"))
    assert jvm.missing() == []
    jvm.prepare()
    assert os.environ["CLASSPATH"] == f"/h/1.jar:/h/2.jar:{bare}/opt/bdfs/dtap.jar"
    assert os.environ["ARROW_LIBHDFS_DIR"] == str(bare / "hadoop/lib/native")


def test_a_hadoop_that_fails(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    monkeypatch.delenv("CLASSPATH")
    hadoop_command(bare / "bin/hadoop", "echo JAVA_HOME is not set >&2; exit 1")
    with pytest.raises(StorageError, match="ended with code 1: JAVA_HOME is not set"):
        jvm.prepare()


def test_java_is_found_by_its_command(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    monkeypatch.delenv("JAVA_HOME")
    hadoop_command(bare / "java/bin/java", "")
    (bare / "bin/java").symlink_to(bare / "java/bin/java")
    assert jvm.missing() == []
    jvm.prepare()
    assert os.environ["JAVA_HOME"] == str(bare / "java")


def test_another_java_than_java_home_is_no_surprise(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    touch(bare / "usr/java/lib/server/libjvm.so")
    monkeypatch.setenv("JAVA_HOME", str(bare / "elsewhere"))
    (reason,) = jvm.missing()
    assert str(bare / "elsewhere") in reason
    monkeypatch.delenv("JAVA_HOME")
    assert jvm.missing() == []


def test_a_conf_folder_that_is_not_there(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(bare / "nowhere"))
    assert jvm.missing() == [f"HADOOP_CONF_DIR is {bare}/nowhere, which is not a folder here. Correct or unset it."]


def test_the_sidecars_jar_is_waited_for_until_it_is_whole(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    place = bare / "opt/bdfs/dtap.jar"
    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    copying = threading.Timer(0.4, place.write_bytes, (whole,))
    copying.start()
    began, start = time.monotonic(), unhindered()
    assert jvm.missing(wait=HANG) == []
    assert time.monotonic() - began > 0.3
    assert unhindered() - start < 5
    copying.join()


def test_nothing_is_waited_for_outside_a_pod(bare: Path) -> None:
    began = unhindered()
    assert jvm.missing(wait=10)
    assert unhindered() - began < 1


def test_a_jar_that_is_named_is_the_only_one(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    (reason,) = jvm.missing(str(bare / "typo.jar"), wait=0.1)
    assert f"There is no jar {bare}/typo.jar (dtap.jar, DTAP_JAR)" in reason
    jar(bare / "mine.jar")
    assert jvm.missing(str(bare / "mine.jar")) == []
    jvm.prepare(str(bare / "mine.jar"))
    assert os.environ["CLASSPATH"] == f"/jars/a.jar:/jars/b.jar:{bare}/mine.jar"


@pytest.mark.parametrize("entry", ["bluedata-dtap.jar", "classes"])
def test_a_classpath_that_holds_the_class_is_enough(bare: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    furnish(bare, monkeypatch)
    (bare / "opt/bdfs/dtap.jar").unlink()
    jar(bare / "mine/bluedata-dtap.jar")
    touch(bare / "mine/classes" / CLASS)
    monkeypatch.setenv("CLASSPATH", f"/jars/a.jar:{bare}/mine/{entry}")
    assert jvm.missing(wait=0) == []
    jvm.prepare(wait=0)
    assert os.environ["CLASSPATH"] == f"/jars/a.jar:{bare}/mine/{entry}"


def test_a_java_that_runs_already(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    monkeypatch.setattr(jvm, "_jvm_runs", lambda: True)
    assert jvm.missing(dtap=False) == []
    (reason,) = jvm.missing()
    assert "A Java machine is already running" in reason
    assert f"lacks {bare}/opt/bdfs/dtap.jar" in reason
    with pytest.raises(StorageError, match="A Java machine is already running"):
        jvm.prepare()
    monkeypatch.setenv("CLASSPATH", str(jar(bare / "bluedata-dtap.jar")))
    assert jvm.missing() == []
    before = dict(os.environ)
    jvm.prepare()
    assert dict(os.environ) == before


def test_a_forked_copy_of_a_process_with_java(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(bare, monkeypatch)
    monkeypatch.setattr(jvm._Started, "pid", os.getpid())
    jvm.check_process()
    monkeypatch.setattr(jvm._Started, "pid", os.getpid() + 1)
    for call in (jvm.check_process, jvm.prepare):
        with pytest.raises(StorageError, match="was forked from process"):
            call()
