"""Explanations, of one paragraph each, for filesystem failures that a user can fix."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from dtap_dask.errors import StorageError

_TRANSIENT = (  # besides ConnectionError and TimeoutError
    *(errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.EPIPE, errno.ENOTCONN),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
_KINDS = {IsADirectoryError: errno.EISDIR, NotADirectoryError: errno.ENOTDIR}  # some filesystems set no errno
_REMEDIES = {
    errno.ENOTDIR: "A part of this path is a file where a folder is meant: correct the path.",
    errno.EISDIR: "This is a folder where a file is meant: correct the path.",
    errno.ELOOP: "Symbolic links on this path lead in a circle: repair or remove them.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
    errno.EMFILE: "Raise the limit of open files, `ulimit -n`, and run again.",
}


@contextlib.contextmanager
def explaining(verb: str, place: str) -> Iterator[None]:
    """Turn failures that a user can fix into StorageError.

    FileNotFoundError, FileExistsError and transient failures pass unchanged.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except PermissionError as error:
        raise StorageError(
            f"No permission to {verb} {place}{_detail(error)}. Ask for access, or check which user runs this process."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"No space left to {verb} {place}{_detail(error)}. Free some, then continue with --resume (in "
                "Python resume=True)."
            ) from error
        if error.errno == errno.EROFS:
            raise StorageError(f"{place} is read-only. Choose another output.path.") from error
        number = error.errno or _KINDS.get(type(error))
        if _is_transient(error, number):
            raise  # the caller may retry
        remedy = _REMEDIES.get(number or 0, "Check the path and its filesystem, then run again.")
        raise StorageError(f"Cannot {verb} {place}: {error.strerror or os.strerror(number or 0)}. {remedy}") from error


def _detail(error: OSError) -> str:
    """The filesystem client's own explanation, beyond the name of the error."""
    said = (error.strerror or "").rstrip(".")
    return "" if not said or said == os.strerror(error.errno or 0) else f" ({said})"


def _is_transient(error: OSError, number: int | None) -> bool:
    """Whether a retry may help; assumed if the filesystem's client gives no reason."""
    return number is None or number in _TRANSIENT or isinstance(error, ConnectionError | TimeoutError)
