"""Finds and sets what libhdfs needs to start a Java machine (JVM): a jar, two libraries and a CLASSPATH.

A process can have only one JVM, which reads the environment once. Therefore everything is located, and the environment
set, before the JVM starts. A forked child cannot use its parent's JVM.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import os
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dtap_dask.errors import StorageError

JARS = ("/opt/bdfs/bluedata-dtap.jar", "/opt/bluedata/bluedata-dtap.jar")
PATIENCE = 10.0  # seconds to wait for a jar that a pod's sidecar copies when it starts
_CLASS = "com/bluedata/hadoop/bdfs/Bdfs.class"
_JNI = "libjni_memq_cnode.so"  # a library that the JVM loads; older containers have it next to the jar
_LIBRARIES = ("/usr/lib/hadoop/lib/native", "/usr/local/hadoop/lib/native", "/usr/lib64", "/usr/lib")
_JVMS = ("/etc/alternatives/jre", "/usr/lib/jvm/default-java", "/usr/lib/jvm/java", "/usr/java/latest")
_IN_JVM = ("lib/server", "jre/lib/server", "jre/lib/amd64/server", "jre/lib/aarch64/server", "lib/amd64/server")
_COMMAND = 60.0  # seconds for `hadoop classpath --glob`, which may start a JVM of its own
_STARTING = threading.Lock()


class _Started:
    """The process that started or first found the JVM now in memory, and the CLASSPATH at that time."""

    pid: int | None = None
    classpath = ""


def missing(jar: str | None = None, *, dtap: bool = True, wait: float = PATIENCE) -> list[str]:
    """The reasons why libhdfs cannot be used in this process; each names what is missing, where, and what to set.

    Empty if nothing is missing. With `dtap`, HPE's jar is needed too: `jar`, or one of JARS, or its class on CLASSPATH.
    If the jar is missing but its folder, which the sidecar shares, exists, this waits up to `wait` seconds for the jar.
    Nothing is started or loaded, and the environment is not changed.
    """
    if _jvm_runs():
        return _unfit(jar, dtap, wait)
    reasons = [_no_library(), _no_jvm(), _no_hadoop(), _no_folder()]
    if dtap:
        reasons.insert(0, _no_jar(jar, wait))
    return [reason for reason in reasons if reason]


def prepare(jar: str | None = None, *, dtap: bool = True, wait: float = PATIENCE) -> None:
    """Set this process's JAVA_HOME, ARROW_LIBHDFS_DIR, CLASSPATH and LIBHDFS_OPTS before a JVM starts.

    Values already set are kept, and extended where necessary. Raises StorageError with all reasons given by `missing`,
    and in a child that was forked while its parent's JVM was running.
    """
    check_process()
    with _STARTING:
        reasons = missing(jar, dtap=dtap, wait=wait)
        if reasons:
            raise StorageError(f"libhdfs cannot be used in this process: {' '.join(reasons)}")
        if not _jvm_runs():
            _set_environment(jar, dtap)


def started() -> None:
    """Record that this process has a JVM, if it has one, so that forked children can be recognized."""
    with _STARTING:
        if _Started.pid is None and _jvm_runs():
            _Started.pid, _Started.classpath = os.getpid(), os.environ.get("CLASSPATH", "")


def check_process() -> None:
    """Raise StorageError if this process was forked from one whose JVM was running: every call would hang."""
    if _Started.pid is not None and _Started.pid != os.getpid():
        raise StorageError(
            f"Process {os.getpid()} was forked from process {_Started.pid}, where libhdfs had started a Java machine, "
            "which a forked copy cannot use: it would hang. Start workers by 'spawn' or 'forkserver' "
            "(multiprocessing.set_start_method; Dask: distributed.worker.multiprocessing-method), or fork before the "
            "first use."
        )


def _jvm_runs() -> bool:
    """Whether this process has a JVM, no matter what started it. Loads no library."""
    try:
        library = ctypes.CDLL("libjvm.so", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return False
    count = ctypes.c_int(0)
    library.JNI_GetCreatedJavaVMs(None, 0, ctypes.byref(count))
    return count.value > 0


def _unfit(jar: str | None, dtap: bool, wait: float) -> list[str]:
    """The reasons why the running JVM cannot be used: its CLASSPATH is fixed since it started."""
    entries = (_Started.classpath if _Started.pid else os.environ.get("CLASSPATH", "")).split(os.pathsep)
    if not dtap or (any(map(_has_class, entries)) if jar is None else jar in entries):
        return []
    found = _find_jar(jar, wait)
    wanted = found or jar or " or ".join(JARS)
    return [
        f"A Java machine is already running in process {os.getpid()}. Its CLASSPATH, which can no longer be changed, "
        f"lacks {wanted}. Open the DataTap before anything else that uses Java in this process, or put the jar on "
        "CLASSPATH in the environment that the process starts with."
    ]


def _no_jar(jar: str | None, wait: float) -> str:
    if jar is None and any(map(_has_class, _set_classpath())):
        return ""
    if _find_jar(jar, wait):
        return ""
    if jar is not None:
        return (
            f"There is no jar {jar} (dtap.jar, DTAP_JAR), or the file is incomplete. If its folder exists, up to "
            f"{wait:g} s were spent waiting for it. Correct the setting, or put HPE's jar there."
        )
    return (
        f"HPE's jar was not found; looked for {' and '.join(JARS)}, and on CLASSPATH. Either the pod lacks the label "
        "hpecp.hpe.com/dtap: hadoop2 (or hadoop3), or its sidecar is not up yet; elsewhere set dtap.jar (DTAP_JAR)."
    )


def _find_jar(jar: str | None, wait: float) -> str | None:
    """The jar, or None if it does not appear within `wait` seconds. A jar still being copied does not count."""
    places = [jar] if jar is not None else [place for place in JARS if os.path.isdir(os.path.dirname(place))]
    end = time.monotonic() + wait
    while True:
        for place in places:
            if os.path.isdir(place) or (os.path.isfile(place) and zipfile.is_zipfile(place)):
                return place
        if time.monotonic() >= end or not any(os.path.isdir(os.path.dirname(place)) for place in places):
            return None
        time.sleep(min(0.2, wait))


def _has_class(entry: str) -> bool:
    """Whether an entry of CLASSPATH holds HPE's class. Only jars with a likely name are opened."""
    if os.path.isdir(entry):
        return os.path.exists(os.path.join(entry, _CLASS))
    name = os.path.basename(entry)
    if not any(word in name for word in ("dtap", "bdfs", "bluedata")) or not os.path.isfile(entry):
        return False
    try:
        with zipfile.ZipFile(entry) as jar:
            return _CLASS in jar.namelist()
    except zipfile.BadZipFile:
        return False


def _no_library() -> str:
    if _find_library():
        return ""
    tried = ", ".join(str(place / "libhdfs.so") for place in _library_folders())
    return f"libhdfs.so was not found; looked for {tried}. Set ARROW_LIBHDFS_DIR to its folder, or HADOOP_HOME."


def _find_library() -> Path | None:
    return next((place for place in _library_folders() if (place / "libhdfs.so").is_file()), None)


def _library_folders() -> list[Path]:
    """The folders that pyarrow searches, and those where distributions install libhdfs."""
    home = _hadoop_home()
    folders = [os.environ.get("ARROW_LIBHDFS_DIR"), f"{home}/lib/native" if home else None]
    folders += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [Path(folder) for folder in _once([*folders, *_LIBRARIES])]


def _no_jvm() -> str:
    if _find_jvm():
        return ""
    tried = ", ".join(f"{home}/{{{','.join(_IN_JVM)}}}/libjvm.so" for home in _java_homes())
    return f"A Java machine was not found; looked for {tried}. Set JAVA_HOME to a Java that Hadoop runs on (8, 11, 17)."


def _find_jvm() -> str | None:
    places = ((home, Path(home, folder, "libjvm.so")) for home in _java_homes() for folder in _IN_JVM)
    return next((home for home, place in places if place.is_file()), None)


def _java_homes() -> Iterator[str]:
    """Possible homes of Java. Only JAVA_HOME if it is set, as users expect no other Java then."""
    if home := os.environ.get("JAVA_HOME"):
        yield home
        return
    if command := shutil.which("java"):
        yield from (str(place) for place in list(Path(command).resolve().parents)[1:3])
    yield from _JVMS


def _no_hadoop() -> str:
    if _set_classpath() or _hadoop_command():
        return ""
    return (
        "CLASSPATH is not set, and there is no `hadoop` to ask for it on PATH or in $HADOOP_HOME/bin (HADOOP_HOME is "
        f"{os.environ.get('HADOOP_HOME') or 'not set'}). Set HADOOP_HOME, or CLASSPATH to all of Hadoop's jars: the "
        "output of `hadoop classpath --glob`."
    )


def _no_folder() -> str:
    folder = os.environ.get("HADOOP_CONF_DIR")
    if not folder or os.path.isdir(folder):
        return ""
    return f"HADOOP_CONF_DIR is {folder}, which is not a folder here. Correct or unset it."


def _hadoop_command() -> str | None:
    home = os.environ.get("HADOOP_HOME")
    return (shutil.which("hadoop", path=f"{home}/bin") if home else None) or shutil.which("hadoop")


def _hadoop_home() -> str | None:
    if home := os.environ.get("HADOOP_HOME"):
        return home
    command = shutil.which("hadoop")
    return str(Path(command).resolve().parents[1]) if command else None


def _set_classpath() -> list[str]:
    return [entry for entry in os.environ.get("CLASSPATH", "").split(os.pathsep) if entry]


def _set_environment(jar: str | None, dtap: bool) -> None:
    """Set the variables. An embedded JVM does not expand wildcards, and without -Xrs it takes over Python's signals."""
    entries = _set_classpath() or _ask_hadoop()
    found = None
    if dtap and (jar is not None or not any(map(_has_class, entries))):
        found = _find_jar(jar, 0.0)
    whole = [os.environ.get("HADOOP_CONF_DIR"), *(place for entry in entries for place in _spread(entry)), found]
    os.environ["CLASSPATH"] = os.pathsep.join(_once(whole))
    os.environ["JAVA_HOME"] = _find_jvm() or ""
    os.environ["ARROW_LIBHDFS_DIR"] = str(_find_library())
    if found and os.path.isfile(os.path.join(os.path.dirname(found), _JNI)):
        native = [os.path.dirname(found), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(_once(native))
    options = os.environ.get("LIBHDFS_OPTS", "").split()
    if "-Xrs" not in options:  # without it Ctrl-C and SIGTERM end the process without Python's handlers
        os.environ["LIBHDFS_OPTS"] = " ".join([*options, "-Xrs"])


def _ask_hadoop() -> list[str]:
    command = _hadoop_command() or "hadoop"
    return _classpath_of(command)


@functools.cache
def _classpath_of(command: str) -> list[str]:
    try:
        asked = [command, "classpath", "--glob"]
        done = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=_COMMAND)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StorageError(
            f"`{command} classpath --glob` failed: {error}. Set CLASSPATH to all of Hadoop's jars."
        ) from error
    if done.returncode or not done.stdout.strip():
        raise StorageError(
            f"`{command} classpath --glob` ended with code {done.returncode}: {done.stderr.strip()[-500:]}. Run it "
            "in a terminal and fix the error it reports, or set CLASSPATH to all of Hadoop's jars."
        )
    return [entry for entry in done.stdout.strip().splitlines()[-1].split(os.pathsep) if entry]


def _spread(entry: str) -> list[str]:
    """The entry itself, or the folder's jars for `folder/*`, as Java's launcher expands it."""
    return sorted(glob.glob(f"{glob.escape(entry[:-2])}/*.jar")) if entry.endswith("/*") else [entry]


def _once(entries: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(entry for entry in entries if entry))
