"""Connections to peers, plain or through TLS, with limits on every wait."""

import socket
import ssl
import struct
from collections.abc import Sequence
from functools import lru_cache

from scp import tls
from scp.config.network import RequestorTls
from scp.config.schema import DicomDestination
from scp.errors import CertificateError, PeerRejectedError, PeerUnavailableError


def connect(section: DicomDestination) -> socket.socket:
    """A connection on which no single wait is longer than ``answer_seconds``.

    Raises
    ------
    PeerRejectedError
        The peer cannot be believed, or does not believe us, or our certificate cannot be used: a
        person has to look at it.
    PeerUnavailableError
        It cannot be reached, or does not shake hands.
    """
    try:
        connection = socket.create_connection(
            (section.host, section.port), timeout=section.connect_seconds
        )
    except OSError as error:
        raise PeerUnavailableError(f"no connection: {error.strerror or error}") from error
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if section.tls is not None:
            connection = _shake_hands(connection, section.tls, section.host)
        else:
            # Limits of the kernel cost nothing a call, where settimeout adds a poll to each.
            connection.settimeout(None)
        limit_waiting(connection, section.answer_seconds)
    except BaseException:
        connection.close()
        raise
    return connection


def limit_waiting(connection: socket.socket, seconds: float) -> None:
    """Let no single call wait longer; it fails with BlockingIOError or TimeoutError then."""
    try:
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(seconds)  # OpenSSL would try again where the kernel gives up.
            return
        limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000) or 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    except OSError as error:
        raise PeerUnavailableError(f"connection lost: {error.strerror}") from error


def write(connection: socket.socket, parts: Sequence[bytes | memoryview]) -> int:
    """Send as much of ``parts`` as goes at once; returns how many bytes that was."""
    if isinstance(connection, ssl.SSLSocket):
        return connection.send(b"".join(parts))
    return connection.sendmsg(parts)


def write_last(connection: socket.socket, data: bytes) -> None:
    """Send without waiting, if it can be done; the connection is closed afterwards."""
    try:
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(0)
            connection.send(data)
        else:
            connection.send(data, socket.MSG_DONTWAIT)
    except OSError:
        pass
    finally:
        connection.close()


def _shake_hands(connection: socket.socket, section: RequestorTls, host: str) -> ssl.SSLSocket:
    try:
        context = _context(section).current()
        return context.wrap_socket(connection, server_hostname=host)
    except CertificateError as error:
        raise PeerRejectedError(f"TLS: {error}") from error
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message
        raise PeerRejectedError(f"TLS: the peer's certificate is not believed: {why}") from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        # What stands before a server that is down takes the connection and hangs up.
        raise PeerUnavailableError("TLS: no handshake: the peer hung up") from error
    except ssl.SSLError as error:
        why = (error.reason or str(error)).replace("_", " ").lower()
        raise PeerRejectedError(f"TLS: no handshake: {why}") from error
    except OSError as error:
        raise PeerUnavailableError(f"TLS: no handshake: {error.strerror or error}") from error


@lru_cache(maxsize=256)
def _context(section: RequestorTls) -> tls.FreshContext:
    """Reading the system's authorities takes longer than an association."""
    files = [path for path in (section.ca, section.certificate, section.key) if path is not None]
    return tls.FreshContext(
        lambda: tls.client_context(
            ca=section.ca,
            certificate=section.certificate,
            key=section.key,
            check_host=section.check_host,
        ),
        files,
    )
