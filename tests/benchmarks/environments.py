"""The other tools, each in a virtual environment of its own, made on first use; and running a script in one of them.

What cannot be installed or run raises Unavailable with the reason in one line: it becomes a line of the table.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "peers"
CACHE = Path.home() / ".cache" / "dtap-dask" / "peers"
SECONDS = 1200  # that an installation or a script may take
# What each environment is made of. Dependencies without a pin are what pip resolves on the day.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "ray": ("ray[data]==2.60.0", "pyarrow", "crc32c", "tensorflow"),
    "tft": ("tensorflow-transform==1.21.0",),
    "spark": ("pyspark==4.3.0", "numpy"),
    "grain": ("grain==0.2.18", "array_record==0.8.6", "pyarrow"),
    # Petastorm 0.13 does not import with pyarrow 13 and later.
    "petastorm": ("petastorm==0.13.1", "pyarrow==12.0.1", "numpy<2", "pandas<2.3", "tensorflow==2.18.1"),
    "mosaic": ("mosaicml-streaming==0.13.0", "torch==2.14.1", "pyarrow"),
    "lance": ("lancedb==0.40.0", "torch==2.14.1", "pyarrow", "numpy"),
    "nvtabular": ("nvtabular==23.8.0", "numpy<2", "pandas<2"),
}


class Unavailable(Exception):
    """The tool cannot be installed or does not run here; the text is the reason."""


def run(peer: str, script: str, *arguments: object, cache: Path = CACHE) -> dict[str, Any]:
    """Run a script of peers/ in the peer's environment, from an empty folder; returns the JSON of its last line."""
    return run_script(python_of(peer, cache), SCRIPTS / script, *arguments)


def python_of(peer: str, cache: Path = CACHE) -> Path:
    """The interpreter of a peer's environment, which is made where it is not there as REQUIREMENTS says today."""
    folder, wanted = cache / peer, "\n".join(REQUIREMENTS[peer])
    python, made = folder / "bin" / "python", folder / "requirements.txt"
    if not made.is_file() or made.read_text() != wanted:
        print(f"Installing {', '.join(REQUIREMENTS[peer])} to {folder}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        _checked([python, "-m", "pip", "install", "--disable-pip-version-check", *REQUIREMENTS[peer]])
        made.write_text(wanted)
    return python


def run_script(python: str | Path, script: Path, *arguments: object) -> dict[str, Any]:
    """Run a stand-alone script, which prints one line of JSON at last; returns that and its seconds as a `whole`."""
    start = time.perf_counter()
    out = _checked([python, script, *arguments])
    return {**json.loads(out.splitlines()[-1]), "whole": time.perf_counter() - start}


def _checked(command: Sequence[object]) -> str:
    """What a command prints, run from an empty folder: modules beside it could shadow what the tools import."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    with (
        tempfile.TemporaryDirectory() as empty,
        subprocess.Popen(
            list(map(str, command)),
            cwd=empty,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"not done after {SECONDS} s") from None
        finally:
            if process.poll() is None:  # too slow, or somebody pressed Ctrl-C: nothing of it is left behind
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode < 0:
        raise Unavailable(f"ended by signal {-process.returncode}")
    if process.returncode:
        raise Unavailable(reason(err) or reason(out) or f"exit code {process.returncode}")
    return out


def reason(text: str) -> str:
    """The line of a tool's complaint that says why: the last that names an error, else the last at all.

    Notices, hints and frames around it are left out, and paths, which name places of this machine.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if re.search(r"\w", line) and not re.match(r"(hint|note|\[notice\]|╰─>)", line)]
    telling = [line for line in lines if re.search(r"\w*(Error|Exception)\b|^(ERROR|error)\b", line)]
    last = next(reversed(telling or lines), "")
    return re.sub(r"(/[^\s/'\"]+)+/", "…/", last).removeprefix("ERROR: ").strip()[:200]
