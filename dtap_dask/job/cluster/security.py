"""Whom a client may speak to: TLS by certificates, this machine, and in the clear only what it is told to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
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
    "Check the address (`dask scheduler` prints it) and that this machine may reach it; without --scheduler the job "
    "runs here."
)


def refuse_unknown(address: str) -> None:
    """JobError where the address begins with a protocol that Dask does not know."""
    scheme = parse_address(address)[0]
    try:
        get_backend(scheme)
    except ValueError as error:
        raise JobError(
            f"The address {address} of the scheduler begins with {scheme}://, which Dask does not know here. Most "
            "begin with tcp:// or tls://."
        ) from error


def is_safe(address: str) -> bool:
    """Whether what goes to the address is encrypted, or stays on this machine. Names other than localhost do not."""
    scheme, location = parse_address(address)
    if scheme in _ENCRYPTED or scheme == "inproc":
        return True
    host = parse_host_port(location, 0)[0]
    try:
        return bool(ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return str(host) == "localhost" or str(host).endswith(".localhost")


def refuse_open(address: str, insecure: bool) -> None:
    """JobError where the address is another machine's, unencrypted, and nobody has said that this is wanted."""
    if not insecure and not is_safe(address):
        raise JobError(
            f"The scheduler {address} is on the network and not encrypted: whoever reaches it, or listens, can run "
            "code as you and read your data. Start it with TLS (`dask scheduler --protocol tls` and certificates) and "
            "give its tls:// address; or say --insecure (in Python insecure=True), if you trust everybody on that "
            "network."
        )


def security_for(address: str, ca_file: str | None, cert: str | None, key: str | None) -> Security | None:
    """What a client needs for the address: the certificates given, else those of Dask's configuration.

    JobError where some are missing, cannot be read or are given for an address that is not encrypted.
    """
    given = {flag: value for flag, value in zip(_NAMES, (ca_file, cert, key), strict=True) if value}
    if parse_address(address)[0] not in _ENCRYPTED:
        if given:
            raise JobError(f"{', '.join(given)} are for a scheduler at a tls:// address; {address} is none.")
        return None
    security = Security(require_encryption=True, **{_NAMES[flag][0]: value for flag, value in given.items()})
    needed = {"--tls-ca-file": security.tls_ca_file, "--tls-cert": security.tls_client_cert}
    missing = [flag for flag, value in needed.items() if not value]
    if missing:
        raise JobError(
            f"{address} needs certificates, and there is no {' and no '.join(map(_named, missing))}. A key may lie in "
            f"the certificate's file; else give {_named('--tls-key')}."
        )
    _refuse_unreadable(security)
    return security


def _named(flag: str) -> str:
    setting = _NAMES[flag][1]
    return f"{setting} in Dask's configuration (nor {flag})"


def _refuse_unreadable(security: Security) -> None:
    for flag, (field, setting) in _NAMES.items():
        path = getattr(security, field)
        if path and "\n" not in path:  # Dask takes the text of a certificate, too
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
    """ClusterError unless a Dask scheduler answers at the address in so many seconds.

    Dask's own client waits for ever where something takes the connection and says nothing.
    """
    try:
        with ThreadPoolExecutor(1) as pool:  # there may be a loop in this thread already, as in a notebook
            found = pool.submit(asyncio.run, _asked(address, security or Security(), seconds)).result()
    except Exception as error:  # the bytes of another protocol raise errors of any kind
        raise ClusterError(
            f"No Dask scheduler answers at {address} within {seconds:g} s ({_why(error)}). {_CHECK}"
        ) from error
    if found != "Scheduler":
        raise ClusterError(f"No Dask scheduler answers at {address}: it is a {found}. {_CHECK}")


async def _asked(address: str, security: Security, seconds: float) -> str:
    return await asyncio.wait_for(_kind(address, security, seconds), seconds)


async def _kind(address: str, security: Security, seconds: float) -> str:
    """What kind of Dask server answers. Greets it as Dask's `connect` does, which leaves connections open that fail."""
    comm = await _connected(address, security, seconds)
    try:
        await comm.write(comm.handshake_info())
        await comm.read()
        await comm.write({"op": "identity", "reply": True})
        return str((await comm.read())["type"])
    finally:
        comm.abort()


async def _connected(address: str, security: Security, seconds: float) -> Any:
    """A connection; one that is refused is tried again, as schedulers take some seconds to start."""
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
    said = f"{error} {error.__cause__ or ''}"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "its certificate is not of the certificate authority that is configured here"
    if "ALERT" in said or "SSLEOFError" in said:
        return "it does not accept the certificate that is configured here"
    if "WRONG_VERSION_NUMBER" in said or "cannot convert to SSL" in said:
        return "what listens there does not speak TLS"
    if "reset by peer" in said or isinstance(error, MemoryError):
        return "what listens there speaks another protocol; for TLS the address begins with tls://"
    return str(error) or "something listens there, but says nothing"


def on_loopback(port: int) -> str:
    """Where to listen on this machine alone: the port, or any where it is taken (Dask would warn and choose one)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            port = 0
    return f"127.0.0.1:{port}"
