"""Handles Ctrl-C: only this process receives it; the first stops it in good order, the second at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from dtap_dask.errors import RESUMABLE

T = TypeVar("T")
_SHOW_CURSOR = b"\x1b[?25h\n"  # progress bars hide it
_ENDED = f"Ended at once. {RESUMABLE}\n".encode()


def handle_signals() -> None:
    """Make SIGINT, SIGTERM and SIGHUP (the terminal is closed) stop the command in good order.

    A second signal of the same kind ends the process at once, with status 4. A signal that is ignored, as under nohup,
    stays ignored.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, _end)
    raise KeyboardInterrupt


def _end(_number: int, _frame: FrameType | None) -> None:
    """End this process at once; worker processes notice that and end, too.

    The interrupted code may hold the locks of streams and progress bars, so this bypasses them.
    """
    with suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + _ENDED)
    os._exit(4)


@contextmanager
def shielded() -> Iterator[None]:
    """Threads and processes started in this block, and those that they start, never receive Ctrl-C.

    A terminal sends it to all processes of a command, each of which would print a traceback.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker  # not needed by commands that start no process

    resource_tracker.ensure_running()  # starting it later would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_shielded(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """`make()`, run in a thread so that the threads and processes it starts never receive Ctrl-C.

    If Ctrl-C is pressed meanwhile, this thread receives it, and `undo` is called with what was made.
    """
    made: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="dtap_dask-starting", daemon=True)
    try:
        with shielded():
            thread.start()
        thread.join()  # a Ctrl-C that came as the thread was started is raised as the block ends
    except BaseException:
        if thread.ident is not None:
            thread.join()
        for one in made:
            undo(one)
        raise
    if failed:
        raise failed[0]
    return made[0]
