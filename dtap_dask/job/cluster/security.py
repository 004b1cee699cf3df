"""Which schedulers a client may connect to: encrypted ones, those on this machine, others only if allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from distributed.comm import parse_address, parse_host_port
from distributed.comm.core import FatalCommClosedError
from distributed.comm.registry import get_backend
from distributed.security import Security

from dtap_dask.errors import ClusterError, JobError

_PAUSE = 0.2
_ENCRYPTED = ("tls", "wss", "gateway")
# Flag, field of Dask's Security, setting of Dask's configuration.
_NAMES = {
    "--tls-ca-file": ("tls_ca_file", "distributed.comm.tls.ca-file"),
    "--tls-cert": ("tls_client_cert", "distributed.comm.tls.client.cert"),
    "--tls-key": ("tls_client_key", "distributed.comm.tls.client.key"),
}
_CHECK = (
    "Check the address (`dask scheduler` prints it) and that this machine can reach it; without --scheduler the job "
    "runs here."
)


def refuse_unknown(address: str) -> None:
    """JobError if the address begins with a protocol that Dask does not know."""
    scheme = parse_address(address)[0]
    try:
        get_backend(scheme)
    except ValueError as error:
        raise JobError(
            f"The address {address} of the scheduler begins with {scheme}://, which Dask does not know here. Most "
            "addresses begin with tcp:// or tls://."
        ) from error


def is_safe(address: str) -> bool:
    """Whether traffic to the address is encrypted or stays on this machine; of host names, only localhost does."""
    scheme, location = parse_address(address)
    if scheme in _ENCRYPTED or scheme == "inproc":
        return True
    host = parse_host_port(location, 0)[0]
    try:
        return bool(ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return str(host) == "localhost" or str(host).endswith(".localhost")


def refuse_open(address: str, insecure: bool) -> None:
    """JobError if the address is another machine's and unencrypted, unless `insecure`."""
    if not insecure and not is_safe(address):
        raise JobError(
            f"The scheduler {address} is on the network and not encrypted: anyone who can reach it or listen can "
            "run code as you and read your data. Start it with TLS (`dask scheduler --protocol tls` and certificates) "
            "and give its tls:// address; or pass --insecure (in Python insecure=True) if you trust everyone on that "
            "network."
        )


def security_for(address: str, ca_file: str | None, cert: str | None, key: str | None) -> Security | None:
    """The certificates for an address: those given, or those of Dask's configuration; None if it is unencrypted.

    JobError if some are missing, cannot be read, or are given for an unencrypted address.
    """
    given = {flag: value for flag, value in zip(_NAMES, (ca_file, cert, key), strict=True) if value}
    if parse_address(address)[0] not in _ENCRYPTED:
        if given:
            raise JobError(f"{', '.join(given)} are for a scheduler at a tls:// address, which {address} is not.")
        return None
    security = Security(require_encryption=True, **{_NAMES[flag][0]: value for flag, value in given.items()})
    needed = {"--tls-ca-file": security.tls_ca_file, "--tls-cert": security.tls_client_cert}
    missing = [flag for flag, value in needed.items() if not value]
    if missing:
        raise JobError(
            f"{address} needs certificates, but there is no {' and no '.join(map(_named, missing))}. The key may be "
            f"in the certificate's file; otherwise give {_named('--tls-key')}."
        )
    _refuse_unreadable(security)
    return security


def _named(flag: str) -> str:
    setting = _NAMES[flag][1]
    return f"{setting} in Dask's configuration (nor {flag})"


def _refuse_unreadable(security: Security) -> None:
    for flag, (field, setting) in _NAMES.items():
        path = getattr(security, field)
        if path and "\n" not in path:  # Dask accepts the text of a certificate, too
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise JobError(f"{flag} ({setting}): {path} cannot be read ({error.strerror}).") from error
    try:
        security.get_connection_args("client")
    except (ssl.SSLError, ValueError) as error:
        files = ", ".join(str(getattr(security, field)) for field, _ in _NAMES.values() if getattr(security, field))
        raise JobError(f"The certificates in {files} cannot be used together: {error}.") from error


def reach(address: str, security: Security | None, seconds: float) -> None:
    """ClusterError unless a Dask scheduler answers at the address within `seconds`.

    Dask's own client waits forever if something accepts the connection and stays silent.
    """
    try:
        with ThreadPoolExecutor(1) as pool:  # this thread may already run an event loop, as in a notebook
            found = pool.submit(asyncio.run, _kind_in_time(address, security or Security(), seconds)).result()
    except Exception as error:  # the bytes of another protocol cause errors of any kind
        raise ClusterError(
            f"No Dask scheduler answers at {address} within {seconds:g} s ({_why(error)}). {_CHECK}"
        ) from error
    if found != "Scheduler":
        raise ClusterError(f"No Dask scheduler answers at {address}: it is a {found}. {_CHECK}")


async def _kind_in_time(address: str, security: Security, seconds: float) -> str:
    return await asyncio.wait_for(_kind(address, security, seconds), seconds)


async def _kind(address: str, security: Security, seconds: float) -> str:
    """The kind of Dask server that answers. Greets it as Dask's `connect` does, which leaks failed connections."""
    comm = await _connected(address, security, seconds)
    try:
        await comm.write(comm.handshake_info())
        await comm.read()
        await comm.write({"op": "identity", "reply": True})
        return str((await comm.read())["type"])
    finally:
        comm.abort()


async def _connected(address: str, security: Security, seconds: float) -> Any:
    """A connection; refused ones are retried, as schedulers take some seconds to start."""
    scheme, location = parse_address(address)
    connector = get_backend(scheme).get_connector()
    end = time.monotonic() + seconds - _PAUSE
    while True:
        try:
            return await connector.connect(location, **security.get_connection_args("client"))
        except FatalCommClosedError:
            raise
        except OSError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(_PAUSE)


def _why(error: Exception) -> str:
    text = f"{error} {error.__cause__ or ''}"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not from the certificate authority configured here"
    if "ALERT" in text or "SSLEOFError" in text:
        return "it does not accept the certificate configured here"
    if "WRONG_VERSION_NUMBER" in text or "cannot convert to SSL" in text:
        return "what listens there does not speak TLS"
    if "reset by peer" in text or isinstance(error, MemoryError):
        return "what listens there speaks another protocol; an address with TLS begins with tls://"
    return str(error) or "something listens there but does not answer"


def on_loopback(port: int) -> str:
    """A loopback address to listen on: the port, or any port if it is taken (Dask would warn and choose one)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            port = 0
    return f"127.0.0.1:{port}"


@contextmanager
def without_port_warning() -> Iterator[None]:
    """Keep Dask from warning that it takes another port, as where a run that starts at the same time has this one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port [0-9]+ is already in use")
        yield
