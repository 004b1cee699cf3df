"""Waiting for what happens at its own pace, however loaded the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], what: str = "what the test waits for", seconds: float = 240) -> None:
    """Return as soon as the condition holds; fail if it does not within a time that only a hang takes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)
