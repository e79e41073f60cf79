"""The ledger's database on a server: PostgreSQL, by pg8000.

A server may be away. The node goes on without it: each call fails soon, and after one that failed the
next ones fail at once for a while, because some of them are made where others wait.
"""

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import pg8000.dbapi
from sqlalchemy import Connection, ExceptionContext, Table, create_engine, event
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.exc import DBAPIError

from scp.config.ledger import LedgerSection
from scp.errors import DeliveryError, LedgerError, ScpError

ANSWER_SECONDS: Final = 10.0
"""For the connection, and for each answer of the server."""
REST_SECONDS: Final = 3.0
"""After a failure no call tries the server."""
_DEFAULT_PORT: Final = 5432

_DEFECTS: Final = ("22", "23", "42")
"""Classes of SQLSTATE that say what is wrong with the statement or its data (appendix A of the
manual); the rest are about the server, its disk, or who may do what."""
_NOT_ALLOWED: Final = "42501"


class PostgresDatabase:
    """A server, as :class:`~scp.ledger.database.Database`."""

    def __init__(
        self,
        section: LedgerSection,
        node: str = "",
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        assert section.url is not None
        self.node = node
        self._section = section
        self._now = now
        self._rest_until = 0.0
        self._lock = threading.Lock()
        parts = urlsplit(section.url)
        self._folder = parse_qs(parts.query).get("host", [""])[0]
        self._host, self._port = parts.hostname or "", parts.port or _DEFAULT_PORT
        self._user = unquote(parts.username or "dcmpress")
        self._password = unquote(parts.password) if parts.password else None
        self._database = unquote(parts.path.removeprefix("/"))
        where = self._folder or f"{self._host}:{self._port}"
        self.name = f"postgresql://{self._user}@{where}/{self._database}"
        self.engine = create_engine(
            "postgresql+pg8000://",
            creator=self._connect,
            pool_pre_ping=True,  # A server that was restarted meanwhile is no failure.
            hide_parameters=True,
        )
        event.listen(self.engine, "handle_error", _give_up)

    def check(self) -> None:
        with self._lock:
            left = self._rest_until - self._now()
        if left > 0:
            raise LedgerError(
                f"the ledger {self.name} was not reached and is left alone for {left:.0f} s"
            )

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def mark_version(self, connection: Connection, version: int) -> None:
        """No version without migrations has ever written here."""

    def meaning_of(self, error: Exception) -> ScpError | None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = _said(cause)
        code = said.get("C", "")
        if code[:2] in _DEFECTS and code != _NOT_ALLOWED:
            return None
        if not isinstance(cause, (pg8000.dbapi.Error, OSError, DeliveryError)):
            return None
        # Of what the server says the message only: details may hold values.
        reason = said.get("M") or getattr(cause, "strerror", "") or str(cause) or code
        with self._lock:
            self._rest_until = self._now() + REST_SECONDS
        return LedgerError(f"the ledger {self.name}: {reason}")

    def _connect(self) -> pg8000.dbapi.Connection:
        password, tls = self._password, self._section.tls
        if self._section.password is not None:
            password = self._section.password.read()
        context: ssl.SSLContext | None = None
        if tls is not None:
            context = ssl.create_default_context(cafile=tls.ca)
            if tls.certificate is not None:
                context.load_cert_chain(tls.certificate, tls.key)
        connected = self._connected()
        try:
            connected.settimeout(ANSWER_SECONDS)
            return _Connection(
                self._user,
                host=self._host,
                database=self._database,
                password=password,
                sock=connected,
                ssl_context=context,
                application_name="dcmpress",
            )
        except BaseException:
            _give_back(connected)
            raise

    def _connected(self) -> socket.socket:
        if not self._folder:
            return socket.create_connection((self._host, self._port), ANSWER_SECONDS)
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(f"{self._folder}/.s.PGSQL.{self._port}")
        except OSError:
            connected.close()
            raise
        return connected


class _Connection(pg8000.dbapi.Connection):  # type: ignore[misc]
    """Closes its socket whatever has happened to it, and says nothing of that."""

    def __init__(self, user: str, *, sock: socket.socket, **options: Any) -> None:
        self._socket = sock
        super().__init__(user, sock=sock, **options)

    def close(self) -> None:
        with contextlib.suppress(pg8000.dbapi.Error, OSError):
            super().close()
        _give_back(self._socket)


def _give_back(connected: socket.socket) -> None:
    """Close a socket that a file object may still count on."""
    with contextlib.suppress(OSError):
        os.close(connected.detach())


def _give_up(context: ExceptionContext) -> None:
    """A connection in whose middle something broke, a time limit for one, is of no use."""
    if not _said(context.original_exception):
        context.is_disconnect = True


def _said(error: BaseException | None) -> dict[str, str]:
    """The fields of an error that the server sent; none of others."""
    if isinstance(error, pg8000.dbapi.Error) and error.args and isinstance(error.args[0], dict):
        return error.args[0]
    return {}
