"""Waiting for what happens at its own pace, and clocks that do not count how loaded the machine is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANG = 600.0  # seconds that only what hangs takes, on a machine with twenty times the load too


def until(condition: Callable[[], Any], what: str = "what the test waits for") -> None:
    """Return as soon as the condition holds; fail if it never does."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


def unhindered() -> float:
    """Seconds since some moment, without those in which any process of this machine waited for a processor.

    For upper bounds: on a quiet machine these are real seconds. Where the kernel does not count (Linux's
    /proc/pressure), all are real seconds.
    """
    now = time.monotonic()
    with contextlib.suppress(OSError):
        some = Path("/proc/pressure/cpu").read_text().split("\n")[0]
        now -= int(some.rpartition("total=")[2]) / 1e6
    return now


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The function, after a pause."""

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return function(*args, **options)

    return slow
