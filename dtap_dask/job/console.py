"""The standard streams of a command: progress that cannot be written is lost, and never ends a run."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO


class Unfailing(io.TextIOBase):
    """A stream for progress over one that may be full, closed or without a reader: what cannot be written is lost.

    It writes past the buffer of the stream below, which would keep what failed, and fail again when Python ends.
    """

    def __init__(self, out: TextIO | None):
        self._out = out
        raw = None
        with suppress(ValueError):  # a stream that was detached
            raw = getattr(getattr(out, "buffer", None), "raw", None)
        self._raw = raw if isinstance(raw, io.FileIO) else None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream below, for those who draw."""
        return getattr(self._out, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether the stream below is a terminal."""
        try:
            return self._out is not None and self._out.isatty()
        except ValueError:
            return False

    def write(self, text: str) -> int:
        """Write what can be written."""
        if self._out is not None:
            with suppress(OSError, ValueError):
                self._out.flush()  # what others have written comes first
            with suppress(OSError, ValueError):
                if self._raw is None:
                    self._out.write(text)
                    self._out.flush()
                else:
                    _write_all(self._raw, text.encode(self.encoding, "backslashreplace"))
        return len(text)


def _write_all(raw: io.FileIO, data: bytes) -> None:
    """Write bytes; the rest is lost where the file takes no more for the moment."""
    while data and (count := raw.write(data)):
        data = data[count:]


def say(text: str) -> None:
    """Print a line for a person to standard error, if that can be written."""
    Unfailing(sys.stderr).write(f"{text}\n")


def open_standard_streams() -> None:
    """Give a command that was started without some of the streams 0, 1 and 2 empty ones.

    Otherwise the next file that is opened, such as a shard, would get that number, and with it what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def reader_gone(out: TextIO | None) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    if out is None or not hasattr(select, "poll"):
        return False
    try:
        asked = select.poll()
        asked.register(out.fileno(), 0)
        return any(event & select.POLLERR for _, event in asked.poll(0))
    except (OSError, ValueError):
        return False


def settle_standard_streams() -> OSError | None:
    """Write out what standard output and error still hold; at its end Python would fail to, loudly, with status 120.

    Returns the error of an output that somebody is still waiting for, such as that of a full disk.
    """
    lost: OSError | None = None
    for out in (sys.stdout, sys.stderr):
        try:
            if out is not None:
                out.flush()
        except (OSError, ValueError) as error:
            if out is sys.stdout and isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                lost = error
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return lost
