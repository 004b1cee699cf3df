"""Programs that start at once: forks of one process that has imported Dask, PyArrow and this package already.

`python()` is a command that takes the arguments of Python's own: `-m MODULE`, `-c CODE` or a file, and what follows.
It hands these, its environment, folder, standard streams and network namespace to a server, whose fork does the work
and ends as any interpreter does. Signals are passed on to the fork; where the command is killed, the fork is killed.
Worker processes of its nannies are forks of it, too (`--workers`, `dask worker`). Not for tests of how programs
and their workers start, end on a terminal, or find their streams closed.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from multiprocessing import forkserver, util
from pathlib import Path

_IMPORTED = """
    bokeh.server.server dask.cli distributed.cli.dask_scheduler distributed.cli.dask_worker distributed.nanny
    distributed.dashboard.scheduler distributed.dashboard.worker distributed.http.scheduler.prometheus.core
    distributed.http.worker.prometheus.core dtap_dask.cli dtap_dask.job.dashboard.board dtap_dask.job.preview
    dtap_dask.job.running.ask dtap_dask.job.taps pandas pyarrow.parquet
"""
_COMMAND = """#!{python} -IS
import os, signal, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({address!r})
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: line.send(b"%d" % number))
request = repr([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode(errors="surrogateescape")
socket.send_fds(line, [request], [0, 1, 2, os.open("/proc/self/ns/net", os.O_RDONLY)])
os.closerange(0, 3)
status = int(line.recv(64) or 1)
if status < 0:
    if status != -signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def python() -> str:
    """The command."""
    return str(folder() / "python")


def path() -> str:
    """What PATH is where `dtap-dask`, `dask` and `python` are to start at once."""
    return os.pathsep.join((str(folder()), str(Path(sys.executable).parent), os.environ["PATH"]))


@functools.cache
def folder() -> Path:
    """The folder with these commands. The server is started at the first call, and ends with this process."""
    place = Path(tempfile.mkdtemp(prefix="warm-", dir="/tmp"))  # a socket's path is short
    address = str(place / "socket")
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    lines = server.stdin, server.stdout

    def end() -> None:
        for line in lines:
            line.close()
        server.wait()
        shutil.rmtree(place)

    atexit.register(end)
    assert lines[1].readline() == b"ready\n"
    commands = {"python": _COMMAND.format(python=sys.executable, address=address)}
    for name, module in {"dtap-dask": "dtap_dask", "dask": "dask"}.items():
        commands[name] = f'#!/bin/sh\nexec {place}/python -m {module} "$@"\n'
    for name, text in commands.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return place


class Server:
    """Forks, and says to each one's command how it has ended."""

    def __init__(self, address: str):
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(address)
        self._listener.listen(100)
        self._forks: dict[socket.socket, int] = {}
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who presses Ctrl-C means the tests
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for what in (self._listener, sys.stdin, self._woken):
            self._selector.register(what, selectors.EVENT_READ)

    def next_fork(self) -> bytes | None:
        """In each fork: its request. In the server: None, as soon as standard input closes."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is self._listener:
                    request = self._fork()
                    if request is not None:
                        return request
                elif key.fileobj == self._woken:
                    os.read(self._woken, 4096)
                elif key.fileobj in self._forks:
                    self._pass_on(key.fileobj)
            self._reap()

    def _fork(self) -> bytes | None:
        line, _ = self._listener.accept()
        request, given, _, _ = socket.recv_fds(line, 1 << 20, 4)
        if not request:  # killed already
            line.close()
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            enter_network(given[3])
            for target, source in enumerate(given[:3]):
                os.dup2(source, target)
            for own in (*self._forks, line, self._listener, self._selector):
                own.close()
            for number in (*given, self._woken, self._wake):
                os.close(number)
            return request
        for number in given:
            os.close(number)
        self._forks[line] = pid
        self._selector.register(line, selectors.EVENT_READ)
        return None

    def _pass_on(self, line: socket.socket) -> None:
        """A signal; SIGKILL where the command is gone, which is asked about once."""
        word = line.recv(64)
        os.kill(self._forks[line], int(word) if word else signal.SIGKILL)
        if not word:
            self._selector.unregister(line)

    def _reap(self) -> None:
        for line, pid in list(self._forks.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._forks[line]
                with contextlib.suppress(KeyError):
                    self._selector.unregister(line)
                with contextlib.suppress(OSError):
                    line.send(b"%d" % os.waitstatus_to_exitcode(status))
                line.close()


def enter_network(namespace: int) -> None:
    """Make a network namespace, an open file of /proc/PID/ns/net, that of this process."""
    if os.fstat(namespace).st_ino != os.stat("/proc/self/ns/net").st_ino:
        assert ctypes.CDLL(None).setns(namespace, 0) == 0, "setns needs root"


def adopt(request: bytes) -> list[str]:
    """Take over the folder and environment of a request; its arguments."""
    import dask

    words, folder, environment = ast.literal_eval(request.decode(errors="surrogateescape"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "--workers" in words or ("worker" in words and "--no-nanny" not in words):
        fork_workers()
    tempfile.tempdir = None
    dask.config.refresh()
    sys.path[0] = folder if words[0] == "-m" else ""
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(line_buffering=stream.isatty())  # type: ignore[union-attr]
    return list(words)


def fork_workers() -> None:
    """Let nannies take worker processes from multiprocessing's fork server, which becomes a fork of this process."""
    spawn = util.spawnv_passfds

    def start(path: str, arguments: list[str], passed: list[int]) -> int:
        if "forkserver" not in arguments[-1]:
            return int(spawn(path, arguments, passed))
        pid = os.fork()
        if pid == 0:
            for number in map(int, os.listdir("/proc/self/fd")):
                if number > 2 and number not in passed:
                    with contextlib.suppress(OSError):  # the folder that was listed
                        os.close(number)
            with contextlib.suppress(SystemExit):
                forkserver.main(*passed, [])
            os._exit(0)
        return pid

    os.environ["DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"] = "forkserver"
    util.spawnv_passfds = start
    forkserver.ensure_running()
    util.spawnv_passfds = spawn


def become(words: list[str]) -> None:
    """Do what Python does with these arguments."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for name in _IMPORTED.split():
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    server = Server(sys.argv[1])
    print("ready", flush=True)
    wanted = server.next_fork()
    if wanted is not None:
        become(adopt(wanted))
