"""The end of a program in the middle of an epoch: TensorFlow must stop calling Python before Python is finalized.

From then on Python ends every thread that tries to run Python code, wherever in TensorFlow's code it is. The operation
that it was executing can then never finish, and the main thread, which deletes TensorFlow's objects, may wait for it.
(Programs that hung at their end were seen, though never with a stack that proves this.) So at the end of the program
sessions are stopped, which makes each call short; all iterators are deleted, which makes TensorFlow start no new calls;
and the present calls are waited for. They are not over when the last session is closed: closing it is part of such a
call.

This depends on TensorFlow's internals, the iterator's class and attributes and the stacks of its threads.
tests/train/test_tensorflow_internals.py fails where a release of TensorFlow changes them.
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

from dtap_dask.loading.shards.staging import open_sessions, stop_all

_DRAIN = 5.0  # the most seconds that the end of the program waits for TensorFlow's threads
_TICK = 0.02
_TENSORFLOW = str(Path(tf.__file__).parent)


@functools.cache
def prepare() -> None:
    """Make sure that this program can end; calls after the first do nothing."""
    atexit.register(_end)


def _end() -> None:
    stop_all()
    end = time.monotonic() + _DRAIN
    while True:
        _delete_iterators()
        if _quiet() or time.monotonic() > end:
            return
        while not _quiet() and time.monotonic() < end:
            time.sleep(_TICK)
        # Once more, because another thread may have started an epoch since.


def _delete_iterators() -> None:
    """Delete TensorFlow's iterators. One that another thread waits for is deleted by that thread."""
    iterator_class: Any = type(iter(tf.data.Dataset.range(0)))
    for instance in gc.get_objects():
        if issubclass(type(instance), iterator_class):
            instance._iterator_resource = None


def _quiet() -> bool:
    """Whether no other thread has a frame of TensorFlow's Python code on its stack, and no session is open."""
    me = threading.get_ident()
    busy = any(_in_tensorflow(frame) for thread, frame in sys._current_frames().items() if thread != me)
    return not busy and not open_sessions


def _in_tensorflow(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_TENSORFLOW):
            return True
        frame = frame.f_back
    return False
