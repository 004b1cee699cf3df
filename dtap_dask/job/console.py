"""The standard streams of a command: a run never fails because progress cannot be written."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO


class BestEffortStream(io.TextIOBase):
    """Writes progress to a stream that may be full, closed or without a reader; what cannot be written is dropped.

    It bypasses the buffer of the stream, which would keep what failed, and fail again when Python exits.
    """

    def __init__(self, out: TextIO | None):
        self._out = out
        raw = None
        with suppress(ValueError):  # the stream was detached
            raw = getattr(getattr(out, "buffer", None), "raw", None)
        self._raw = raw if isinstance(raw, io.FileIO) else None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream, which determines what can be drawn."""
        return getattr(self._out, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self._out is not None and self._out.isatty()
        except ValueError:
            return False

    def write(self, text: str) -> int:
        """Write what can be written, and drop the rest."""
        if self._out is not None:
            with suppress(OSError, ValueError):
                self._out.flush()  # what was written before comes first
            with suppress(OSError, ValueError):
                if self._raw is None:
                    self._out.write(text)
                    self._out.flush()
                else:
                    _write_all(self._raw, text.encode(self.encoding, "backslashreplace"))
        return len(text)


def _write_all(raw: io.FileIO, data: bytes) -> None:
    """Write bytes; drop the rest if the file accepts no more for the moment."""
    while data and (count := raw.write(data)):
        data = data[count:]


def say(text: str) -> None:
    """Print a line to standard error, if that can be written."""
    BestEffortStream(sys.stderr).write(f"{text}\n")


def open_standard_streams() -> None:
    """Open /dev/null for each of the file descriptors 0, 1 and 2 that the command was started without.

    Otherwise the next opened file, such as a shard, would get that number, and whatever libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one


def reader_gone(out: TextIO | None) -> bool:
    """Whether a stream is a pipe whose reader is gone."""
    if out is None or not hasattr(select, "poll"):
        return False
    try:
        poll = select.poll()
        poll.register(out.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def settle_standard_streams() -> OSError | None:
    """Flush standard output and error here: if that fails when Python exits, the exit status is 120.

    Returns the error if output was lost that still had a reader, for example because a disk is full.
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
