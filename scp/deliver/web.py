"""HTTP to the server of a destination: one connection, kept alive, and every wait has an end."""

import base64
import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, cast
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from scp.config.secrets import ClientTls, Secret
from scp.errors import CertificateError, DeliveryError, PeerUnavailableError
from scp.tls import client_context

SLOWEST: Final = 32 * 1024
"""Bytes a second below which a server takes a request too slowly."""
LONGEST_ANSWER: Final = 16 * 2**20
LONGEST_PAUSE: Final = 24 * 3600.0
"""Seconds for which a server may ask to be left alone; who waits has a bound of its own."""
_READ: Final = 1 << 16
_HTTP_1_1: Final = 11
_AGENT: Final = "dcmpress"
_SECONDS: Final = re.compile(r"[0-9]+")
_TOKEN: Final = re.compile(r"[!-~]+( [!-~]+)*")
"""One line of what a header may have."""

type Buffer = bytes | memoryview
type Authorization = Callable[[], str]
"""The value of the Authorization header at this moment; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said."""

    status: int
    content_type: str
    body: bytes
    retry_after: float = 0.0
    """Seconds until it wants to be asked again; 0: it does not say."""


class WebClient:
    """Asks one server. Used by one thread. Redirects are answers like others."""

    def __init__(
        self,
        url: str,
        tls: ClientTls,
        *,
        connect_seconds: float,
        answer_seconds: float,
        authorization: Authorization,
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = parts.path
        self._is_tls = parts.scheme == "https"
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._authorization = authorization
        self._connection: HTTPConnection | None = None

    def connect(self) -> None:
        """Have a connection.

        Raises
        ------
        PeerUnavailableError
            There is none, or the server does not show a certificate that is trusted.
        """
        if self._connection is not None and self._connection.is_connected:
            return
        self.close()
        connection = self._new_connection()
        try:
            connection.connect()
            connection.timeout = self._answer_seconds
            connection.sock.settimeout(self._answer_seconds)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except (OSError, HTTPError) as error:
            connection.close()
            raise PeerUnavailableError(f"no connection: {_why(error)}") from error
        self._connection = connection

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Iterable[Buffer] | None = None,
        size: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask and wait for the whole answer, which may come before all of the body was taken.

        Parameters
        ----------
        path
            Below the path of the server's URL.
        size
            Of ``body``, in bytes.

        Raises
        ------
        PeerUnavailableError
            There is no connection, it broke, or the answer came too late or was too long.
        ScpError
            Whatever ``body`` raises; the server gets no whole request then.
        """
        self.connect()
        connection = self._connection
        assert connection is not None
        sent = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
        if authorization := self._authorized():
            sent["Authorization"] = authorization
        if body is not None:
            sent["Content-Length"] = str(size)
        is_late = threading.Event()
        longest = self._answer_seconds + size / SLOWEST
        watch = threading.Timer(longest, _give_up, [connection, is_late])
        watch.daemon = True
        watch.start()
        is_whole = False
        try:
            # Who closes while we send may have answered already, and wants no more.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # Any buffer is sent; only the annotation is narrower.
                whole = cast(Iterable[bytes] | None, body)
                connection.request(method, self._path + path, whole, sent, preload_content=False)
            answer = self._read(connection.getresponse(), time.monotonic() + self._answer_seconds)
            is_whole = True
            return answer
        except TimeoutError as error:
            raise PeerUnavailableError("timeout: the server does not answer") from error
        except (OSError, HTTPError, http.client.HTTPException) as error:
            if is_late.is_set():
                raise PeerUnavailableError("timeout: the server is too slow") from error
            raise PeerUnavailableError(f"connection lost: {_why(error)}") from error
        finally:
            watch.cancel()
            if not is_whole:
                self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _new_connection(self) -> HTTPConnection:
        if not self._is_tls:
            return HTTPConnection(self._host, self._port, timeout=self._connect_seconds)
        tls = self._tls
        try:
            context = client_context(
                ca=tls.ca, certificate=tls.certificate, key=tls.key, check_host=True
            )
        except CertificateError as error:
            raise PeerUnavailableError(str(error)) from error
        return HTTPSConnection(
            self._host, self._port, timeout=self._connect_seconds, ssl_context=context
        )

    def _authorized(self) -> str:
        try:
            return self._authorization()
        except DeliveryError as error:
            raise PeerUnavailableError(str(error)) from error

    def _read(self, response: HTTPResponse, deadline: float) -> Answer:
        body = bytearray()
        while chunk := response.read1(_READ):
            body += chunk
            if len(body) > LONGEST_ANSWER:
                raise PeerUnavailableError("the server's answer is too long")
            if time.monotonic() > deadline:
                raise PeerUnavailableError("timeout: the server answers too slowly")
        is_last = response.headers.get("Connection", "").lower() == "close"
        content_type = response.headers.get("Content-Type", "")
        if is_last or response.version < _HTTP_1_1:
            self.close()
        return Answer(
            status=response.status,
            content_type=content_type,
            body=bytes(body),
            retry_after=_retry_after(response.headers),
        )


def basic(user: str, password: Secret) -> Authorization:
    """Basic authentication (RFC 7617)."""

    def authorization() -> str:
        pair = f"{user}:{password.read()}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"

    return authorization


def bearer(token: Secret) -> Authorization:
    """A token (RFC 6750)."""

    def authorization() -> str:
        found = token.read()
        if not _TOKEN.fullmatch(found):
            # Said here, because who refuses it below quotes it, and it would be in the log.
            raise DeliveryError(f"the secret in {token.where} is no token: it has other characters")
        return f"Bearer {found}"

    return authorization


def nobody() -> str:
    """No authentication."""
    return ""


def _retry_after(headers: Mapping[str, str]) -> float:
    """Retry-After (RFC 9110 section 10.2.3) in seconds; 0 where it is missing or makes no sense."""
    said = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(said):
        return min(float(said), LONGEST_PAUSE)
    until = _moment(said)
    if until is None:
        return 0.0
    # By the server's own clock, which need not be ours.
    now = _moment(headers.get("Date", "")) or time.time()
    return min(max(0.0, until - now), LONGEST_PAUSE)


def _moment(date: str) -> float | None:
    """A date of HTTP in seconds since the epoch."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _give_up(connection: HTTPConnection, is_late: threading.Event) -> None:
    """Wake who waits on it."""
    is_late.set()
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    """In a few words, without what libraries say about themselves."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}"
