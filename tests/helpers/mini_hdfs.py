"""A real HDFS for tests: one NameNode and one DataNode (Hadoop 3.3.6) on loopback, and what pyarrow's libhdfs needs.

Where Java or Hadoop are missing the tests are skipped with the command that fetches them; where CI is set they fail.
"""

from __future__ import annotations

import functools
import hashlib
import os
import select
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import fetch_hadoop
from dtap_dask.storage import open_store
from needs import lacking
from waiting import HANG

HERE = Path(__file__).parent
_DEBIAN = """
jetty9-server jetty9-servlet jetty9-util jetty9-http jetty9-io jetty9-security jetty9-webapp jetty9-xml servlet-api
jersey1-core jersey1-server jersey1-servlet jsr311-api commons-codec jackson-core jackson-databind jackson-annotations
"""
DEBIAN = _DEBIAN.split()
JAVA = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]
LOGGING = """log4j.rootLogger=WARN,A
log4j.appender.A=org.apache.log4j.ConsoleAppender
log4j.appender.A.target=System.err
log4j.appender.A.layout=org.apache.log4j.SimpleLayout
"""


@dataclass(frozen=True)
class Hadoop:
    """Hadoop on this machine: `home` holds libhdfs.so, `classpath` all jars and the compiled classes of this folder."""

    home: Path
    classpath: str
    java: Path

    def environment(self) -> dict[str, str]:
        """What pyarrow's libhdfs needs in a process's environment."""
        return {"JAVA_HOME": str(self.java), "ARROW_LIBHDFS_DIR": str(self.home), "CLASSPATH": self.classpath}


@dataclass(frozen=True)
class Hdfs:
    """A running NameNode and DataNode. `url` is hdfs://127.0.0.1:PORT, or of the address where they were started."""

    url: str
    folder: Path
    process: subprocess.Popen[str]

    @classmethod
    def start(
        cls, hadoop: Hadoop, folder: Path, *settings: str, at: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> Hdfs:
        """Start one, `within` another command; fails with its log when it is not up in time."""
        folder.mkdir(parents=True, exist_ok=True)
        datanode = [f"dfs.datanode{kind}address={at}:0" for kind in (".", ".ipc.", ".http.")]
        place = [f"fs.defaultFS=hdfs://{at}:0", f"dfs.datanode.hostname={at}", *datanode]
        command = [*within, *JAVA, "-cp", hadoop.classpath, "MiniHdfs", str(folder), *place, *settings]
        with (folder / "hdfs.log").open("w") as log:
            process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=log, text=True)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], HANG)
        words = process.stdout.readline().split() if ready else []
        if words[:1] != ["READY"]:
            process.kill()
            pytest.fail("HDFS did not start:\n" + (folder / "hdfs.log").read_text()[-3000:])
        return cls(f"hdfs://{at}:{words[1]}", folder, process)

    def tell(self, command: str) -> None:
        """One of MiniHdfs's commands: stop, start, quota PATH BYTES, leave."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer == "OK", answer

    def calls(self) -> list[tuple[str, str]]:
        """What the NameNode was asked for so far, in order: (operation, path)."""
        lines = (self.folder / "calls.log").read_text().splitlines()
        return [(words[0], words[1]) for words in (line.split("\t") for line in lines)]

    def stop(self) -> None:
        """End both."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="session")
def hadoop() -> Hadoop:
    """Hadoop's jars, libhdfs.so and the classes of this folder, compiled."""
    wanted = [fetch_hadoop.HOME / name for name in (*(f"{jar}.jar" for jar in fetch_hadoop.JARS), "libhdfs.so")]
    debian = [Path(f"/usr/share/java/{name}.jar") for name in DEBIAN]
    missing = [str(path) for path in (*wanted, *debian) if not path.exists()]
    missing += [name for name in ("java", "javac") if shutil.which(name) is None]
    if missing:
        lacking(f"no Hadoop for tests ({missing[0]} and {len(missing) - 1} more): see .ci/run and fetch_hadoop.py")
    # client-runtime is of another version and comes last: only its protobuf is wanted.
    jars = sorted(fetch_hadoop.HOME.glob("*.jar"), key=lambda path: ("client-runtime" in path.name, path.name))
    libraries = os.pathsep.join(map(str, (*jars, *debian)))
    java = fetch_hadoop.java_home()
    return Hadoop(fetch_hadoop.HOME, f"{_compiled(libraries, java)}{os.pathsep}{libraries}", java)


def _compiled(libraries: str, java: Path) -> Path:
    """A folder with the classes of this one, kept for other processes and the next time."""
    sources = [HERE / "MiniHdfs.java", HERE / "Bdfs.java"]
    content = [LOGGING, libraries, str(java), *(source.read_text() for source in sources)]
    classes = fetch_hadoop.HOME / f"classes-{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}"
    if not classes.exists():
        new = Path(tempfile.mkdtemp(dir=fetch_hadoop.HOME))
        for name in ("hdfs", "datanode"):
            (new / "webapps" / name).mkdir(parents=True)  # both look for their pages, which the jars lack
        (new / "log4j.properties").write_text(LOGGING)
        subprocess.run(["javac", "-nowarn", "-cp", libraries, "-d", str(new), *map(str, sources)], check=True)
        try:
            new.rename(classes)
        except OSError:  # another process was faster
            shutil.rmtree(new)
    return classes


@pytest.fixture(scope="session")
def start_hdfs(hadoop: Hadoop) -> Callable[..., Hdfs]:
    """`Hdfs.start`, for tests that need one elsewhere."""
    return functools.partial(Hdfs.start, hadoop)


@pytest.fixture(scope="session")
def hdfs(hadoop: Hadoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """An HDFS shared by all tests; not to be stopped."""
    running = Hdfs.start(hadoop, tmp_path_factory.mktemp("hdfs"))
    yield running
    running.stop()


@pytest.fixture
def hdfs_url(hdfs: Hdfs) -> Iterator[str]:
    """An empty folder of the test's own on HDFS, which does not exist yet."""
    url = f"{hdfs.url}/{uuid.uuid4().hex[:8]}"
    yield url
    open_store(url).delete_tree("")


@pytest.fixture
def own_hdfs(hadoop: Hadoop, tmp_path: Path) -> Iterator[Hdfs]:
    """An HDFS of the test's own, which may be stopped and hurt."""
    running = Hdfs.start(hadoop, tmp_path / "own-hdfs")
    yield running
    running.stop()
