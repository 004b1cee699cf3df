"""The file objects of the Hadoop filesystems: a range reader, and a writer that leaves no partial files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

BUFFER = 1 << 20  # bytes that a buffered reader requests, and that a writer collects, at a time


class RangeReader(io.RawIOBase):
    """A file for reading on top of `fetch(offset, size) -> bytes`, called only for ranges within the file.

    Each read fetches exactly the bytes that it returns. `size` is the file's length in bytes when it was opened.
    """

    mode = "rb"

    def __init__(self, fetch: Callable[[int, int], bytes], size: int):
        self._fetch = fetch
        self._at = 0
        self.size = size

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        self._checked()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, possibly past the end, and return the new position in bytes. Raises ValueError before the start."""
        self._checked()
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}
        if whence not in starts:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        if starts[whence] + offset < 0:
            raise ValueError(f"negative seek position {starts[whence] + offset}")
        self._at = starts[whence] + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fewer only at the end of the file; everything that is left if negative or None."""
        self._checked()
        left = max(0, self.size - self._at)
        size = left if size is None or size < 0 else min(size, left)
        data = self._fetch(self._at, size) if size else b""
        self._at += len(data)
        return data

    def readall(self) -> bytes:
        """All bytes from the current position to the end."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, partly only at the end of the file. Returns the number of bytes read."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _checked(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class BufferedRange(io.BufferedReader):
    """A RangeReader that reads ahead, for lines and small reads. `size` is the file's length in bytes."""

    def __init__(self, raw: RangeReader, buffer_size: int = BUFFER):
        super().__init__(raw, buffer_size)
        self.size = raw.size


def reader(
    fetch: Callable[[int, int], bytes], size: int, block_size: int | str | None = None, cache_type: str | None = None
) -> RangeReader | BufferedRange:
    """The file for fsspec's arguments: unbuffered with `cache_type="none"`, otherwise buffered."""
    bare = RangeReader(fetch, size)
    if cache_type == "none":
        return bare
    return BufferedRange(bare, block_size if isinstance(block_size, int) and block_size > 0 else BUFFER)


class Sink(Protocol):
    """The destination of a Writer's bytes."""

    def write(self, data: bytes | memoryview) -> object:
        """Append all of `data`."""

    def close(self) -> object:
        """Finish the file, durably."""


class Writer(io.RawIOBase):
    """A file for writing. It is complete after `close`; if a `with` block raises, no file is left.

    `remove` deletes what a failed write has left. With `rename`, `close` completes the file but `commit`, which
    fsspec's transactions call, gives it its name. Up to 1 MiB is buffered before it is passed to the sink.
    """

    def __init__(
        self,
        sink: Sink,
        remove: Callable[[], object],
        rename: Callable[[], object] | None = None,
        *,
        mode: str = "wb",
        start: int = 0,
    ):
        self._sink: Sink | None = sink
        self._remove = remove
        self._rename = rename
        self._buffer = bytearray()
        self._at = start
        self.mode = mode

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in bytes; always the end of the file."""
        self._open()
        return self._at

    def write(self, data: Any) -> int:
        """Append a bytes-like object; returns its size in bytes."""
        sink = self._open()
        view = memoryview(data)
        view = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
        self._at += view.nbytes
        if self._buffer or view.nbytes < BUFFER:
            self._buffer += view
            if len(self._buffer) >= BUFFER:
                self._drain(sink)
        else:
            sink.write(view)
        return view.nbytes

    def flush(self) -> None:
        """Pass buffered bytes to the sink. They are durable only after `close`."""
        if self._sink is not None:
            self._drain(self._sink)

    def close(self) -> None:
        """Finish the file; a second call does nothing. If that fails, no file is left."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            self._drain(sink)
            sink.close()
        except BaseException:
            self._remove_quietly()
            raise
        finally:
            super().close()

    def commit(self) -> None:
        """Give the file its final name. Called by fsspec's transactions."""
        self.close()
        if self._rename is not None:
            self._rename()

    def discard(self) -> None:
        """Delete the file, finished or not."""
        self._sink = None
        self._buffer.clear()
        super().close()
        self._remove()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._sink is not None:
            self._abandon()

    def _abandon(self) -> None:
        self._sink = None
        self._rename = None
        self._buffer.clear()
        super().close()
        self._remove_quietly()

    def _remove_quietly(self) -> None:
        """Remove the file but ignore an OSError, which would hide the exception being raised."""
        try:
            self._remove()
        except OSError:
            return

    def _drain(self, sink: Sink) -> None:
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            sink.write(data)

    def _open(self) -> Sink:
        if self._sink is None:
            raise ValueError("I/O operation on closed file")
        return self._sink


class TextWriter(io.TextIOWrapper):
    """Text on top of a Writer: here too, if a `with` block raises, no file is left."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            cast("Writer", self.buffer).__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)


class CompressedWriter(io.RawIOBase):
    """A compressor on top of a Writer. Closes both, because gzip's file does not close the file below it."""

    mode = "wb"

    def __init__(self, outer: IO[bytes], inner: Writer):
        self._outer = outer
        self._inner = inner

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """Compress a bytes-like object; returns its size in bytes."""
        self._outer.write(data)
        return memoryview(data).nbytes

    def close(self) -> None:
        """Finish both."""
        if not self.closed:
            try:
                self._outer.close()
                self._inner.close()
            finally:
                super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError, ValueError):
                self._outer.close()
            self._inner.__exit__(kind, error, trace)
        self.close()
