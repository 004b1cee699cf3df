"""Programs that are forked from a warm process get every signal, wait for no other, and are not left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import warm
from waiting import HANG, until


@pytest.fixture(scope="module")
def python() -> str:
    """The command of a server that has imported nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(warm.IMPORTED, "nothing", "")
        return warm.python("nothing")


def connected(python: str) -> socket.socket:
    """A command that has not sent what it wants."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(str(Path(python).with_name("socket")))
    return line


def test_a_signal_that_comes_as_a_program_starts_is_not_lost(python: str) -> None:
    """The server passes it on while the fork has not run yet."""
    request = repr([["-c", "import time; time.sleep(20)"], os.getcwd(), dict(os.environ)]).encode()
    with Path(os.devnull).open("r+") as nowhere, Path("/proc/self/ns/net").open() as network, connected(python) as line:
        socket.send_fds(line, [request], [*[nowhere.fileno()] * 3, network.fileno()])
        line.send(b"%d" % signal.SIGINT)
        assert int(line.recv(64)) == -signal.SIGINT


def test_a_command_that_halts_before_its_request_delays_no_other(python: str) -> None:
    with connected(python):
        subprocess.run([python, "-c", ""], timeout=HANG, check=True)


def test_what_a_killed_command_started_ends_with_it(python: str) -> None:
    sleeping = [python, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(3600)"]
    with subprocess.Popen(sleeping, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    until(lambda: not psutil.pid_exists(number))


def test_programs_end_with_the_process_whose_tests_they_are_of() -> None:
    test = """
import subprocess, warm
warm.IMPORTED["nothing"] = ""
program = "import os, time; print(os.getpid(), flush=True); time.sleep(3600)"
left = subprocess.Popen([warm.python("nothing"), "-c", program], stdout=subprocess.PIPE)
print(int(left.stdout.readline()), warm.folder("nothing"))
"""
    command = [sys.executable, "-W", "ignore", "-c", test]
    environment = {**os.environ, "PYTHONPATH": str(Path(warm.__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=True)
    number, folder = done.stdout.split()
    until(lambda: not psutil.pid_exists(int(number)))
    assert not Path(folder).exists()
