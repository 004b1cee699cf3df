"""What `docker compose up` does with docker/compose.yaml, done with plain processes on loopback.

The services' own commands, environments and health checks are run in the order that `depends_on` asks for. Only names
are changed: hosts to 127.0.0.1, ports to free ones, the folders of a container to folders of the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from waiting import HANG

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
Instruction = tuple[str, str, str]


def instructions() -> list[Instruction]:
    """The Dockerfile: (stage, instruction, its text), continued lines joined; before the first FROM the stage is ''."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#"))
    found, stage = [], ""
    for line in filter(None, re.sub(r"\\\n\s*", "", text).splitlines()):
        name, rest = line.split(maxsplit=1)
        if name == "FROM":
            stage = rest.split()[-1]
        found.append((stage, name, rest))
    return found


def stages() -> dict[str, list[Instruction]]:
    """Each stage's instructions with those of the stages that it stands on before them."""
    found: dict[str, list[Instruction]] = {}
    for stage, name, rest in instructions():
        if name == "FROM":
            found[stage] = list(found.get(rest.split()[0], ()))
        elif stage:
            found[stage].append((stage, name, rest))
    return found


def image_health(target: str) -> list[str] | None:
    """The command of an image's HEALTHCHECK, None where it has none."""
    last = [rest for _, name, rest in stages()[target] if name == "HEALTHCHECK"][-1]
    return None if last == "NONE" else json.loads(last[last.index("CMD") + 3 :])


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to connections meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Stack:
    """The services as processes in `folder`. `words` are further texts of the file and what stands for them here.

    Commands are looked for in the folders of `path` first, then beside this Python.
    """

    def __init__(self, folder: Path, words: Mapping[str, str], path: Sequence[Path] = ()):
        self.services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
        self.folder, self.running = folder, dict[str, subprocess.Popen[bytes]]()
        self.order: list[str] = []
        folders = [*map(str, path), str(Path(sys.executable).parent), os.environ["PATH"]]
        self._path = os.pathsep.join(folders)
        for name in ("tls", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "jobs").symlink_to(ROOT / "jobs")
        self._words = {
            "tls://scheduler:8786": f"tls://127.0.0.1:{(port := str(free_port()))}",
            "8786": port,
            "0.0.0.0": "127.0.0.1",
            "/tls": str(folder / "tls"),
            "/tmp": str(folder / "tmp"),
            "$$": "$",
            **words,
        }
        self._pages = {name: str(free_port()) for name in self.services}

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self.order):
            self.kill(name)

    def here(self, service: str, text: str) -> str:
        """`text` of a service with this machine's names in it, replaced all at once."""
        words = {**self._words, "8787": self._pages[service]}
        longest = sorted(words, key=len, reverse=True)
        # A folder is a word of its own only where no longer path contains it.
        pattern = "|".join(re.escape(word) if word[0] != "/" else rf"(?<![\w.]){word}\b" for word in longest)
        return re.sub(pattern, lambda match: words[match[0]], text)

    def environment(self, service: str) -> dict[str, str]:
        given = {name: self.here(service, text) for name, text in self.services[service].get("environment", {}).items()}
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("DASK_", "DTAP_", "HADOOP"))}
        return {**kept, "PATH": self._path, "TMPDIR": str(self.folder / "tmp"), **given}

    def start(self, service: str) -> None:
        """Start a service after all that it depends on, in the states that it asks for."""
        if service in self.running:
            return
        for other, needed in self.services[service].get("depends_on", {}).items():
            self.start(other)
            self.wait(other, needed["condition"])
        said = self.services[service]
        words = [self.here(service, word) for word in (*said.get("entrypoint", ()), *said["command"])]
        command, environment = self.process(service, words)
        with self.log(service).open("wb") as log:
            self.running[service] = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.order.append(service)

    def process(self, service: str, words: list[str]) -> tuple[list[str], dict[str, str]]:
        """The process, with its environment, that does what `words` do in the service's container."""
        return words, self.environment(service)

    def wait(self, service: str, condition: str, seconds: float = HANG) -> None:
        """Until a service is healthy, or has ended with 0; AssertionError with its log otherwise."""
        process, end = self.running[service], time.monotonic() + seconds
        while time.monotonic() < end:
            code = process.poll()
            if condition == "service_completed_successfully" and code == 0:
                return
            assert code is None, f"{service} ended with {code}:\n{self.log(service).read_text()[-3000:]}"
            begun = time.monotonic()
            if condition == "service_healthy" and self.healthy(service):
                return
            time.sleep(0.1 + time.monotonic() - begun)  # checks, some in Java, take no more than half of the time
        raise AssertionError(f"{service} is not {condition}:\n{self.log(service).read_text()[-3000:]}")

    def healthy(self, service: str) -> bool:
        """One run of the service's health check, or of its image's."""
        said = self.services[service]
        command = (
            said["healthcheck"]["test"][1:] if "healthcheck" in said else image_health(said["image"].split(":")[1])
        )
        assert command, f"{service} has no health check"
        words, environment = self.process(service, [self.here(service, word) for word in command])
        ran = subprocess.run(words, env=environment, capture_output=True, timeout=HANG, check=False)
        return ran.returncode == 0

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def kill(self, service: str) -> None:
        """End a service with every process it started."""
        process = self.running[service]
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
