"""The end of a program in the middle of an epoch: when Python is taken down, TensorFlow must be calling it no more.

From that moment on Python ends each thread that asks for it, wherever in TensorFlow's code the thread is. An operation
that it was in then cannot end, and the main thread, which deletes TensorFlow's objects, may wait for it: programs that
hung at their end were seen, though never with the stack that would prove this. So at the end of the program the
sessions are stopped, which makes each call short, all iterators are let go of, which makes TensorFlow call no more, and
the calls that are under way are waited for. That the last session is closed is no sign that they are over: its closing
is itself a part of such a call.
"""

from __future__ import annotations

import atexit
import functools
import gc
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import tensorflow as tf

from dtap_dask.train.staging import open_sessions, stop_all

_DRAIN = 5.0  # seconds that the end of the program waits at most for TensorFlow's threads
_TICK = 0.02
_TENSORFLOW = str(Path(tf.__file__).parent)


@functools.cache
def prepare() -> None:
    """See to it that this program can end; once is enough."""
    atexit.register(_end)


def _end() -> None:
    stop_all()
    end = time.monotonic() + _DRAIN
    while True:
        _let_go()
        if _quiet() or time.monotonic() > end:
            return
        while not _quiet() and time.monotonic() < end:
            time.sleep(_TICK)
        # Once more: meanwhile another thread may have begun an epoch.


def _let_go() -> None:
    """Delete TensorFlow's iterators. One that another thread is waiting for is deleted by that thread."""
    kind: Any = type(iter(tf.data.Dataset.range(0)))
    for each in gc.get_objects():
        if issubclass(type(each), kind):
            each._iterator_resource = None


def _quiet() -> bool:
    """Whether no other thread is in TensorFlow and will come back to Python, or in Python, called by TensorFlow."""
    me = threading.get_ident()
    busy = any(_in_tensorflow(frame) for thread, frame in sys._current_frames().items() if thread != me)
    return not busy and not open_sessions


def _in_tensorflow(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_TENSORFLOW):
            return True
        frame = frame.f_back
    return False
