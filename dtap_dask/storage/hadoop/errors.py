"""Explanations for the errors of a Hadoop filesystem, derived from the few details that libhdfs reports."""

from __future__ import annotations

import errno
import getpass
import os
from dataclasses import dataclass

from dtap_dask.storage.hadoop.names import REFUSED, Names

_SLOW = 2.0  # seconds; a call about a name that took longer to fail was waiting for a server
_CHANGING = ("create", "write", "make", "delete", "rename")
_CAUSES = (  # words in Java's root cause, and the errno that they mean
    (("Quota",), errno.EDQUOT),
    (("could only be written to 0", "could only be replicated to 0", "No space left", "DiskOutOfSpace"), errno.ENOSPC),
    (("AccessControl", "Permission denied", "Kerberos", "GSS", "Sasl", "SIMPLE authentication"), errno.EACCES),
    (("SafeMode", "safe mode"), errno.EROFS),
    (("ConnectException", "Connection refused", "UnknownHost", "NoRouteToHost", "Timeout", "Standby"), errno.ENOTCONN),
)


@dataclass(frozen=True)
class Attempt:
    """A failed operation: a verb, the filesystem's URL, a path on it, and the user if one was given."""

    verb: str
    url: str
    path: str
    user: str | None


def explained(error: OSError, attempt: Attempt, names: Names | None, took: float) -> OSError:
    """The error to raise in place of pyarrow's or libhdfs's own; its type is the one that Python's files raise.

    The operation failed after `took` seconds. If Java's reason has no errno, the root of the filesystem is queried: if
    that fails too, the filesystem cannot be reached. The query is skipped if it would have to wait again.
    """
    cause = names.cause() if names is not None and error.errno == REFUSED else None
    code, verb, where = _code(error, cause), attempt.verb, f"{attempt.url}{attempt.path}"
    java = f"Java says: {cause}." if cause else "Java's reason is on this process's standard error."
    if code == REFUSED and not _answers(names, attempt, took):
        code = errno.ENOTCONN
    if code == REFUSED and verb in ("create", "make") and attempt.url.startswith("dtap://"):
        code = errno.EACCES
    texts = {
        errno.EACCES: f"No permission to {verb} {where}: {_permission(attempt)}",
        errno.ENOTCONN: f"Cannot {verb} {where}: {attempt.url} cannot be reached. {_advice(attempt.url)}",
        errno.EROFS: f"Cannot {verb} {where}: HDFS is in safe mode, read only, as after a start. Try again later.",
        errno.EINVAL: f"Hadoop does not accept the name {where}, for example because of a ':'.",
        errno.EIO: f"Hadoop refused to {verb} {where}."
        + (" A full disk or a quota may be the reason." if verb == "write" else ""),
    }
    code = errno.EIO if code == REFUSED else code
    plain = f"{os.strerror(code)}: {cause}" if cause else os.strerror(code)
    text = f"{texts[code]} {java}" if code in texts else plain
    if code == errno.ENOTCONN:
        return ConnectionError(code, text, where)
    return OSError(errno.EBUSY if code == errno.EROFS else code, text, where)


def _code(error: OSError, cause: str | None) -> int:
    if cause is not None:
        known = (code for words, code in _CAUSES if any(word in cause for word in words))
        return next(known, REFUSED)
    return error.errno or REFUSED


def _answers(names: Names | None, attempt: Attempt, took: float) -> bool:
    if names is None:
        return False
    if attempt.verb not in ("read", "write") and (attempt.path == "/" or took > _SLOW):
        return False
    try:
        names.info("/")
    except OSError as error:
        return error.errno != REFUSED
    return True


def _permission(attempt: Attempt) -> str:
    user = f"user {attempt.user or os.environ.get('HADOOP_USER_NAME') or getpass.getuser()}"
    if attempt.url.startswith("dtap://"):
        first = "DataTap may be read-only, or " if attempt.verb in _CHANGING else ""
        return f"{first}{user} lacks permission (listed owner may not be the real one)."
    return f"{user} lacks it, or a Kerberos ticket (kinit, or the setting kerb_ticket)."


def _advice(url: str) -> str:
    if url.startswith("dtap://"):
        return (
            f"Is {url.removeprefix('dtap://')} a DataTap of this tenant, in this case of letters? Does the pod's "
            "sidecar (container dtap) run, and does its jar fit Hadoop's major version (label hpecp.hpe.com/dtap: "
            "hadoop2 or hadoop3)? With Kerberos passthrough, is there a ticket?"
        )
    return (
        "Is the NameNode up, and are host and port right (core-site.xml: fs.defaultFS)? A name service must be "
        "described in HADOOP_CONF_DIR. With Kerberos, is there a ticket (kinit)?"
    )
