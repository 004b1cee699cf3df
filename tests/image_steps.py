"""The steps of docker/Dockerfile as scripts in a virtual environment, which stands for a stage of the image.

The folders of the image are folders of the test. What needs root and would change this machine is only written down.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDING = """#!/bin/sh
echo "$(basename "$0") $*" >> '{log}'
"""


def pins(name: str) -> dict[str, str]:
    """The versions by package that docker/NAME.txt pins."""
    lines = [line for line in (ROOT / "docker" / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines), name
    return dict(line.split("==") for line in lines)


class Image:
    """A stage: its environment in `folder`, its files under `folder`/root; `shared` holds what stages hand on."""

    def __init__(self, folder: Path, shared: Path):
        self._folder, self._shared = folder, shared
        venv.create(folder / "venv", with_pip=True)
        self.bin = folder / "venv" / "bin"
        (folder / "stubs").mkdir()
        for name in ("useradd", "install"):
            stub = folder / "stubs" / name
            stub.write_text(RECORDING.format(log=folder / "as_root"))
            stub.chmod(0o755)
        self._cwd, self._set = folder / "root", dict[str, str]()
        self._cwd.mkdir()

    def build(self, steps: list[tuple[str, str, str]]) -> None:
        """Do (stage, instruction, text) in order; those that only describe the image do nothing."""
        for _, name, text in steps:
            if name == "ENV":
                self._set |= dict(pair.split("=", 1) for pair in text.split())
            elif name == "WORKDIR":
                self._cwd = self._place(text)
                self._cwd.mkdir(parents=True, exist_ok=True)
            elif name == "COPY":
                self._copy(*text.split())
            elif name == "RUN":
                script = re.sub(r"--mount=\S+ ", "", text)
                script = re.sub(r"(?<!\S)(/wheels|/requirements)", lambda found: str(self._place(found[0])), script)
                self.say("sh", "-ec", script)

    def _place(self, path: str) -> Path:
        if path.startswith("/wheels"):
            return self._shared / path[1:]
        return self._folder / "root" / path[1:] if path.startswith("/") else self._cwd / path

    def _copy(self, *words: str) -> None:
        *sources, target = words
        for source in map(ROOT.joinpath, sources):
            into = self._place(target)
            into = into / source.name if target.endswith("/") else into
            into.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(source, into)

    @property
    def as_root(self) -> list[str]:
        """What was asked of useradd and install."""
        return (self._folder / "as_root").read_text().splitlines()

    def say(self, *command: str) -> str:
        """What a command of the image prints; AssertionError with all of it where it fails."""
        path = os.pathsep.join((str(self._folder / "stubs"), str(self.bin), os.environ["PATH"]))
        kept = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        ran = subprocess.run(
            command,
            cwd=self._cwd,
            env={**kept, **self._set, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stdout[-3000:]}"
        return ran.stdout

    def packages(self) -> dict[str, str]:
        """What is installed, by normalised name."""
        found: list[Any] = json.loads(self.say("python", "-m", "pip", "list", "--format", "json"))
        return {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in found}
