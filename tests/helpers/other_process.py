"""Another process that does to a store what a test tells it: `python other_process.py FILE-DESCRIPTOR [USER-ID]`.

It gets pickles of (store, verb, arguments), says "ready" once the store is open, waits for the word, and sends back
what came of it: a value or an exception. Also loaded by conftest.py, whose threads do the same where no process can.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from dtap_dask.records.lock import lock
from dtap_dask.storage import Store
from waiting import HANG


def perform(store: Store, verb: str, arguments: tuple[Any, ...]) -> Any:
    """One of the verbs below, or else a method of the store."""
    if verb in VERBS:
        return VERBS[verb](store, *arguments)
    return getattr(store, verb)(*arguments)


def write(store: Store, path: str, data: bytes) -> None:
    """A file, whole."""
    with store.create(path) as file:
        file.write(data)


def die(store: Store, path: str, data: bytes) -> NoReturn:
    """End as a killed process does, in the middle of writing."""
    with store.create(path) as file:
        file.write(data)
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead processes do not get here")


def die_holding(store: Store) -> NoReturn:
    """End as a killed process does, with the lock of the output folder."""
    with lock(store):
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead processes do not get here")


def hold(store: Store, tried: str, everybody: int) -> str:
    """Take the lock of the output folder, and keep it until `everybody` has tried: each leaves a file in `tried`."""
    mine, until = Path(tried) / uuid.uuid4().hex, time.monotonic() + HANG
    try:
        with lock(store):
            mine.touch()
            while len(os.listdir(tried)) < everybody:
                assert time.monotonic() < until, "the others never tried"
                time.sleep(0.01)
            return "held"
    finally:
        mine.touch()


def each(store: Store, *calls: tuple[str, tuple[Any, ...]]) -> list[tuple[Any, float]]:
    """Several calls at the same time: what came of each, values and exceptions, and after how many seconds."""

    def call(wanted: tuple[str, tuple[Any, ...]]) -> tuple[Any, float]:
        begun = time.monotonic()
        return outcome(lambda: perform(store, *wanted)), time.monotonic() - begun

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


VERBS: dict[str, Callable[..., Any]] = {
    "write": write,
    "die": die,
    "die_holding": die_holding,
    "hold": hold,
    "each": each,
}


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the exception it raises."""
    try:
        return call()
    except Exception as error:  # whatever it is, the test wants to see it
        return error


def main() -> None:
    """Serve until the other end is gone."""
    line = Connection(int(sys.argv[1]))
    while True:
        try:
            message = line.recv_bytes()
        except EOFError:
            return
        order = outcome(lambda: pickle.loads(message))  # noqa: B023 - called at once
        line.send("ready")
        line.recv()
        if len(sys.argv) > 2 and os.geteuid() == 0:
            os.setuid(int(sys.argv[2]))  # late: by now everything is imported, also from folders that are root's
        line.send(order if isinstance(order, Exception) else outcome(lambda: perform(*order)))  # noqa: B023


if __name__ == "__main__":
    main()
