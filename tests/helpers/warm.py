"""Programs that start at once: forks of a process that has imported Dask or TensorFlow already.

`python()` is a command that takes the arguments of Python's own: `-m MODULE`, `-c CODE` or a file, and what follows.
It hands these, its environment, folder, standard streams and network namespace to a server, whose fork does the work
and ends as any interpreter does. Signals are passed on to the fork. Where the command is killed, the fork is killed a
moment later: who reads its streams to their end has waited for it. Worker processes of its nannies are forks of it,
too (`--workers`, `dask worker`). Not for tests of how programs and their workers start, end on a terminal, or behave
when their streams are closed.
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

IMPORTED = {
    "dask": """
        bokeh.server.server dask.cli distributed.cli.dask_scheduler distributed.cli.dask_worker distributed.nanny
        distributed.dashboard.scheduler distributed.dashboard.worker distributed.http.scheduler.prometheus.core
        distributed.http.worker.prometheus.core dtap_dask.cli dtap_dask.job.dashboard.board dtap_dask.job.preview
        dtap_dask.job.running.ask dtap_dask.job.taps pandas pyarrow.parquet
    """,
    "tensorflow": "keras tensorflow",  # and nothing of this package
}
_COMMAND = """#!{python} -IS
import os, signal, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({address!r})
request = repr([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode(errors="surrogateescape")
socket.send_fds(line, [request], [0, 1, 2, os.open("/proc/self/ns/net", os.O_RDONLY)])
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: line.send(b"%d" % number))
os.closerange(0, 3)
status = int(line.recv(64) or 1)
if status < 0:
    if status != -signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def python(imported: str = "dask") -> str:
    """The command, whose programs have the modules of `IMPORTED[imported]`."""
    return str(folder(imported) / "python")


def path() -> str:
    """What PATH is where `dtap-dask`, `dask` and `python` are to start at once."""
    return os.pathsep.join((str(folder("dask")), str(Path(sys.executable).parent), os.environ["PATH"]))


@functools.cache
def folder(imported: str) -> Path:
    """The folder with these commands. The server is started at the first call, and ends with this process."""
    place = Path(tempfile.mkdtemp(prefix="warm-", dir="/tmp"))  # a socket's path is short
    commands = {"python": _COMMAND.format(python=sys.executable, address=str(place / "socket"))}
    for name, module in {"dtap-dask": "dtap_dask", "dask": "dask"}.items():
        commands[name] = f'#!/bin/sh\nexec {place}/python -m {module} "$@"\n'
    for name, text in commands.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(place / "socket"))
        listener.listen(100)  # commands wait there until the server has imported
        number = listener.fileno()
        server = subprocess.Popen(
            [sys.executable, __file__, str(place), str(number), *IMPORTED[imported].split()],
            stdin=subprocess.PIPE,
            pass_fds=[number],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )
    atexit.register(server.communicate)  # closes its standard input
    return place


class Server:
    """Forks, and sends each one's command how it has ended."""

    def __init__(self, listener: socket.socket):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the tests
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        for what in (listener, sys.stdin):
            self._selector.register(what, selectors.EVENT_READ)

    def next_request(self) -> bytes | None:
        """In each fork: what it is to do. In the server: None, as soon as standard input closes."""
        while True:
            for key, _ in self._selector.select()[:1]:  # one at a time: it may close the file of another
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is self._listener:
                    self._selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                elif isinstance(key.fileobj, int):
                    self._report(key.fileobj, key.data)
                elif key.data is not None:
                    self._pass_on(key.fileobj, key.data)
                elif (request := self._fork(key.fileobj)) is not None:
                    return request

    def _fork(self, line: socket.socket) -> bytes | None:
        request, given, _, _ = socket.recv_fds(line, 1 << 20, 4)
        if not request:  # the command was killed before
            self._close(line)
            return None
        pid = os.fork()
        if pid == 0:
            self._leave(*given)
            return request
        for number in given:
            os.close(number)
        fork = os.pidfd_open(pid)
        self._selector.modify(line, selectors.EVENT_READ, fork)
        self._selector.register(fork, selectors.EVENT_READ, line)
        return None

    def _leave(self, *given: int) -> None:
        """Make a fork independent of the server. Signals that were passed on to it meanwhile arrive at the end."""
        enter_network(given[3])
        for target, source in enumerate(given[:3]):
            os.dup2(source, target)
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            elif key.fileobj is not sys.stdin:
                key.fileobj.close()
        self._selector.close()
        for number in given:
            os.close(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _pass_on(self, line: socket.socket, fork: int) -> None:
        """A signal; SIGKILL where the command is gone."""
        word = line.recv(64)
        signal.pidfd_send_signal(fork, int(word) if word else signal.SIGKILL)
        if not word:
            self._selector.unregister(line)

    def _report(self, fork: int, line: socket.socket) -> None:
        ended = os.waitid(os.P_PIDFD, fork, os.WEXITED)
        assert ended is not None
        status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with contextlib.suppress(OSError):  # the command is gone
            line.send(b"%d" % status)
        self._close(fork)
        self._close(line)

    def _close(self, what: socket.socket | int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(what)
        os.close(what) if isinstance(what, int) else what.close()

    def end(self) -> None:
        """Kill what is left."""
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, int):
                signal.pidfd_send_signal(key.fileobj, signal.SIGKILL)


def enter_network(namespace: int) -> None:
    """Make a network namespace, an open file of /proc/PID/ns/net, that of this process."""
    if os.fstat(namespace).st_ino != os.stat("/proc/self/ns/net").st_ino:
        assert ctypes.CDLL(None).setns(namespace, 0) == 0, "entering another network namespace needs root"


def adopt(request: bytes) -> list[str]:
    """Take over the folder and environment of a request; its arguments."""
    words, folder, environment = ast.literal_eval(request.decode(errors="surrogateescape"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "dask" in sys.modules:
        adopt_dask(words)
    tempfile.tempdir = None
    sys.path[0] = folder if words[0] == "-m" else ""
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(line_buffering=stream.isatty())  # type: ignore[union-attr]
    return list(words)


def adopt_dask(words: list[str]) -> None:
    """Prepare for worker processes, and take Dask's configuration from the environment."""
    import dask

    if "--workers" in words or ("worker" in words and "--no-nanny" not in words):
        fork_workers()
    dask.config.refresh()


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


def serve(place: str, listener: str, *modules: str) -> None:
    """Import, and fork until standard input closes. Each fork returns when its program has ended."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # at its end each fork would go through all of this, which copies its memory
    server = Server(socket.socket(fileno=int(listener)))
    request = server.next_request()
    if request is not None:
        become(adopt(request))
    else:
        server.end()
        shutil.rmtree(place)


if __name__ == "__main__":
    serve(*sys.argv[1:])
