"""Programs in processes of their own that need not wait for TensorFlow's import: they are forked from one that has it.

`python tensorflow_programs.py FILE-DESCRIPTOR` is that process, which has imported TensorFlow and Keras, and nothing of
ours. A program ends as one of `python -c` does: the interpreter is taken down, with all that is registered for it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from waiting import HANG

LARGEST = 1 << 20  # bytes of a request


class Program:
    """A program that was started; what it prints goes to files."""

    def __init__(self, status: IO[str], out: IO[str], err: IO[str]):
        self._status, self._out, self._err = status, out, err
        self._process_id = int(status.readline())

    def kill(self) -> None:
        """End it by SIGKILL, if it has not ended. It is no zombie before its status was read."""
        if not select.select([self._status], [], [], 0)[0]:
            os.kill(self._process_id, signal.SIGKILL)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its end, as that of `subprocess.run`."""
        if not select.select([self._status], [], [], HANG)[0]:
            self.kill()
        with self._status, self._out, self._err:
            code = int(self._status.readline())
            found = []
            for file in (self._out, self._err):
                file.seek(0)
                found.append(file.read())
        return subprocess.CompletedProcess([], code, *found)


class Programs:
    """Starts programs."""

    def __init__(self, channel: socket.socket):
        self._channel = channel

    def start(
        self, code: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Program:
        """The process of `python -c CODE ARGUMENTS...` in a folder, with these environment variables."""
        request = {
            "code": code,
            "arguments": arguments,
            "environment": dict(os.environ if env is None else env),
            "folder": str(cwd or Path.cwd()),
        }
        out, err = (tempfile.TemporaryFile("w+") for _ in range(2))
        ours, theirs = os.pipe()
        socket.send_fds(self._channel, [json.dumps(request).encode()], [out.fileno(), err.fileno(), theirs])
        os.close(theirs)
        return Program(os.fdopen(ours), out, err)

    def run(self, code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        return self.start(code, *arguments, **options).wait()

    def run_script(self, path: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The process of `python PATH ARGUMENTS...`, to its end."""
        code = f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
        return self.run(code, *arguments, **options)


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """A process that has imported TensorFlow, for programs that use it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(theirs.fileno())]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], env=variables), theirs, ours:
        theirs.close()
        yield Programs(ours)


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork for each request that comes, until there is nobody to send one; the request, in the new processes."""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not channel:
                    selector.unregister(key.fileobj)
                    _report(int(key.fd), key.data)
                    continue
                data, files, _, _ = socket.recv_fds(channel, LARGEST, 3)
                if not data:
                    for left in {key.fd for key in selector.get_map().values()} - {channel.fileno()}:
                        signal.pidfd_send_signal(left, signal.SIGKILL)
                    return None
                process = os.fork()
                if not process:
                    running = [one for other in selector.get_map().values() for one in (other.fd, other.data) if one]
                    _become(*files, *running)
                    return dict(json.loads(data))
                os.write(files[2], f"{process}\n".encode())
                selector.register(os.pidfd_open(process), selectors.EVENT_READ, files[2])
                os.close(files[0])
                os.close(files[1])


def _report(process: int, status: int) -> None:
    """Write how a process ended, while its number is no other's."""
    ended = os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    os.write(status, f"{code}\n".encode())
    os.waitid(os.P_PIDFD, process, os.WEXITED)
    os.close(process)
    os.close(status)


def _become(out: int, err: int, *others: int) -> None:
    """Print to these files, and let go of all others."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    for one in (out, err, *others):
        os.close(one)


if __name__ == "__main__":
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    gc.collect()
    gc.freeze()  # at its end each program would go through all of this, which copies its memory
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv = ["-c", *request["arguments"]]
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
