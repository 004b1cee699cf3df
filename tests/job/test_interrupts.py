"""Ctrl-C while a cluster starts."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from dtap_dask.job.interrupts import start_shielded

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")


def test_what_is_made_is_undone_if_ctrl_c_comes_as_the_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is blocked at that moment, and raised as soon as it no longer is."""
    start, undone = threading.Thread.start, list[str]()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def make() -> str:
        time.sleep(0.05)  # it ends after the signal
        return "cluster"

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_shielded(make, undone.append)
    assert undone == ["cluster"]
