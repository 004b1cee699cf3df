"""docker/Dockerfile built and its images run by buildah, without a container daemon and without an image registry.

The base image is made of Debian's own packages, as no registry is at hand: bookworm with its Python 3.11. Everything
else is real: the Dockerfile, the layers, the user. Containers have no networks of their own: all share this machine's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

import compose

BASE = "localhost/python:3.11-slim-bookworm"
CACHE = Path("~/.cache/dtap-dask/images").expanduser()
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
FILES = 20_000  # open files; chroot isolation refuses the machine's own limit where that is higher than root's


class Buildah:
    """Images, kept in the cache so that the next build finds its layers, and containers, gone with `remove`.

    One process at a time: another waits until the first is done with the images. `folder` is for files of this one.
    """

    def __init__(self, folder: Path):
        CACHE.mkdir(parents=True, exist_ok=True)
        self._lock = (CACHE / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._store = ["--root", str(CACHE / "store"), "--runroot", str(folder / "run")]
        self._folder = folder

    def remove(self) -> None:
        """Remove the containers, and what builds left that no image needs."""
        self.say("rm", "--all")
        self.say("rmi", "--prune")
        self._lock.close()

    def command(self, verb: str, *words: str) -> list[str]:
        """The command line of one of buildah's verbs."""
        limited = ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh"]
        return [*limited, "buildah", *self._store, verb, *words]

    def say(self, verb: str, *words: str) -> str:
        """What it prints; AssertionError with the end of it where it fails."""
        ran = subprocess.run(self.command(verb, *words), capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"buildah {verb}:\n{ran.stdout[-2000:]}\n{ran.stderr[-3000:]}"
        return ran.stdout.strip()

    def make_base(self) -> None:
        """The stand-in for the Python image: a Debian that debootstrap made, kept for the next time."""
        if self.say("images", "--quiet", "--filter", f"reference={BASE}"):
            return
        archive = CACHE / "bookworm.tar"
        if not archive.exists():
            make_root(self._folder / "rootfs", archive)
        container = self.say("from", "scratch")
        self.say("add", "-q", container, str(archive), "/")
        self.say("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
        self.say("commit", "-q", "--rm", container, BASE)

    def build(self, target: str) -> None:
        """One target of docker/Dockerfile as dtap-dask:TARGET."""
        volumes = [f"--volume={source}:{place}:ro" for source, place in pip_settings(self._folder).items()]
        machine = ["--isolation", "chroot", "--network", "host", "--ulimit", f"nofile={FILES}:{FILES}", *volumes]
        what = ["--build-arg", f"BASE={BASE}", "-f", str(compose.DOCKERFILE), "--target", target]
        context = str(self._context(target))
        self.say("bud", "-q", "--layers", *machine, *what, "-t", f"dtap-dask:{target}", context)

    def _context(self, target: str) -> Path:
        """The files of the repository that are sent to the builder, each time with a README that no other build had.

        Layers are taken from an earlier build where they are the same, but buildah 1.28 cannot mount a stage
        (`RUN --mount=from=wheel`) all of whose layers are.
        """
        folder = self._folder / f"context-{target}"
        copied = [rest.split()[:-1] for _, name, rest in compose.instructions() if name == "COPY"]
        for source in {source for sources in copied for source in sources}:
            if (compose.ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(compose.ROOT / source, folder / source, ignore=ignored)
            else:
                (folder / source).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(compose.ROOT / source, folder / source)
        with (folder / "README.md").open("a") as readme:
            readme.write(f"\nBuild {uuid.uuid4().hex}.\n")
        return folder

    def container(self, image: str, hosts: Sequence[str] = ()) -> str:
        """A container of an image, in which `hosts` are names of this machine."""
        return self.say("from", "--pull-never", *(f"--add-host={host}:127.0.0.1" for host in hosts), image)

    def run(
        self,
        container: str,
        words: Sequence[str],
        volumes: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        host: str = "localhost",
    ) -> list[str]:
        """The command line that runs `words` in a container called `host`, without any of root's capabilities."""
        given = [f"--env={name}={text}" for name, text in (environment or {}).items()]
        mounted = [f"--volume={volume}" for volume in volumes]
        isolated = ["--isolation", "chroot", "--network", "host", "--hostname", host, "--cap-drop", "ALL"]
        return self.command("run", *isolated, *given, *mounted, container, "--", *words)

    def gigabytes(self, image: str) -> float:
        """The size of an image's layers, in GB."""
        (found,) = json.loads(self.say("images", "--json", image))
        number, unit = found["size"].split()
        return float(number) * {"MB": 1e-3, "GB": 1.0}[unit]


def make_root(folder: Path, archive: Path) -> None:
    """A minimal Debian bookworm with Python as `python`, packed into `archive`."""
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:]
    (folder / "usr/bin/python").symlink_to("python3")
    (folder / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    shutil.rmtree(folder / "var/cache/apt/archives")
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(f".{os.getpid()}")
    subprocess.run(["tar", "-C", str(folder), "--one-file-system", "-cf", str(partial), "."], check=True)
    partial.rename(archive)
    shutil.rmtree(folder)


def pip_settings(folder: Path) -> dict[str, str]:
    """What a build mounts so that its pip asks where this machine's asks: source to target, read-only."""
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    config = folder / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{name} = {text}\n" for name, text in sorted(found.items())))
    named = [word for text in found.values() for word in text.split()]
    indexes = [str(Path(word.removeprefix("file://")).parent) for word in named if word.startswith("file:///")]
    paths = [path for path in [*named, *indexes] if path.startswith("/") and Path(path).exists()]
    return {**{path: path for path in paths}, str(config): "/etc/pip.conf"}


class ImageStack(compose.Stack):
    """Compose's services in containers: each command as the image's own user, with its volumes.

    `hosts` are the services' names, which all stand for this machine, so that ports differ from compose's where two
    services have the same.
    """

    def __init__(self, folder: Path, buildah: Buildah, images: Mapping[str, str], words: Mapping[str, str]):
        super().__init__(folder, words)
        self._buildah, self._images = buildah, images
        self._containers: dict[str, str] = {}
        self.volumes: dict[str, list[str]] = {}
        for inside in ("/tls", "/tmp", "0.0.0.0", "tls://scheduler:8786"):  # containers have these themselves
            del self._words[inside]
        os.chown(folder / "tls", 10001, 10001)

    def process(self, service: str, words: list[str]) -> tuple[list[str], dict[str, str]]:
        """`words` in the service's container."""
        said = self.services[service]
        if service not in self._containers:
            self._containers[service] = self._buildah.container(self._images[said["image"]], list(self.services))
        given = {name: self.here(service, text) for name, text in said.get("environment", {}).items()}
        volumes = [self._volume(volume) for volume in said.get("volumes", ())]
        volumes += self.volumes.get(said["image"], [])
        command = self._buildah.run(self._containers[service], words, volumes, given, service)
        return command, dict(os.environ)

    def kill(self, service: str) -> None:
        """End a service: what runs in a container is not in the process group of the command that started it."""
        started = self.running[service]
        inside = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
        super().kill(service)
        for process in inside:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _volume(self, written: str) -> str:
        """A volume of compose.yaml as buildah takes it: a folder of the test for a named one."""
        source, rest = written.split(":", 1)
        folder = self.folder / source if "/" not in source else (compose.COMPOSE.parent / source).resolve()
        return f"{folder}:{rest}"


def pins(name: str) -> dict[str, str]:
    """The versions by package that docker/NAME.txt pins."""
    lines = [
        line for line in (compose.ROOT / "docker" / f"{name}.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines), name
    return dict(line.split("==") for line in lines)
