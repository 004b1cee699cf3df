"""What Ctrl-C does: it reaches this process alone, stops it in good order the first time, and at once the second."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
_SHOW_CURSOR = b"\x1b[?25h\n"  # bars hide it
_ENDED = b"Ended at once. What is written stays: go on with --resume (in Python resume=True).\n"


def handle_signals() -> None:
    """Have a command take SIGINT, SIGTERM and a terminal that hangs up as a wish to stop in good order.

    A second one of the same kind ends the process at once, with status 4. Where the signal is ignored, as below nohup,
    it stays so.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, _end)
    raise KeyboardInterrupt


def _end(_number: int, _frame: FrameType | None) -> None:
    """The worker processes end with this one: they notice that it is gone.

    Whatever was interrupted may hold the locks of streams and bars, so this writes past them.
    """
    with suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + _ENDED)
    os._exit(4)


@contextmanager
def unheard() -> Iterator[None]:
    """Threads and processes that are begun in this block, and those that they begin, never receive Ctrl-C.

    A terminal sends it to all processes of a command: each would print a traceback beside what the command says.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker  # a command that begins no process does without

    resource_tracker.ensure_running()  # the thread that first begins a process would have the signal unblocked by it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def started_unheard(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """`make()`, in a thread, as it starts threads and processes that are not to receive Ctrl-C.

    Who presses it meanwhile is heard here: what was made is undone again.
    """
    made: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="dtap_dask-starting", daemon=True)
    with unheard():
        thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()
        for one in made:
            undo(one)
        raise
    if failed:
        raise failed[0]
    return made[0]
