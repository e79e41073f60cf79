"""Reads PDUs (PS3.8 9.3) through one small buffer that is used again and again.

A PDU's length is a number to check here, never an allocation: what a peer announces costs nothing
until it was sent, and then no more than the buffer.
"""

import mmap
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from struct import Struct
from typing import Final

from scp.config.schema import LimitsSection
from scp.errors import AssociationError, ConnectionLostError

BUFFER_BYTES: Final = 2**18
"""The greatest PDU of common senders (128 KiB) twice: one recv takes what the kernel has."""
SMALL_BUFFER_BYTES: Final = 2**16
"""Where many associations are open: all of them together have to stay within bounds."""

MAX_CONTROL_PDU_BYTES: Final = 2**12
"""For any PDU but P-DATA-TF and A-ASSOCIATE-RQ: what a requestor sends of them has 4 bytes."""

_PDU_HEADER: Final = Struct(">BxL")
_PDV_HEADER: Final = Struct(">LBB")
_PDU_HEADER_BYTES: Final = _PDU_HEADER.size
_PDV_HEADER_BYTES: Final = _PDV_HEADER.size
_TIMEVAL: Final = Struct("@ll")

_LOOK_SECONDS: Final = 1.0
"""How long a thread that waits for TLS may take to see that it was stopped."""

_TICKS: Final = 4
"""A silent peer wakes its thread so often before its time is over, and may overstay by one."""


class PduReader:
    """One connection, plain or TLS, read PDU by PDU.

    Time is counted while waiting for the peer only: what our own disk takes is not held against it.

    Parameters
    ----------
    buffer_bytes
        At least 12.
    """

    def __init__(
        self, connection: socket.socket, limits: LimitsSection, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self._connection = connection
        self._pdu_seconds = limits.pdu_seconds
        # Unlike a bytearray's, its pages cost nothing until something was received into them.
        self._view = memoryview(mmap.mmap(-1, buffer_bytes))
        self._start = 0
        self._end = 0
        self._patience = 0.0
        self._impatience = ""
        self._silent_since: float | None = None
        self._stop = threading.Event()
        self._why_stopped = ""
        self._full_at = buffer_bytes // 4 * 3
        self.before_refill: Callable[[bool], bool] = _hold_nothing
        """Called before waiting for more; with True, the bytes that :meth:`take` gave out must not be
        looked at any more. Returns whether that is so."""
        connection.settimeout(None)
        self._set_timeout(socket.SO_SNDTIMEO, self._pdu_seconds)
        self.set_idle_seconds(limits.idle_seconds)

    @property
    def connection(self) -> socket.socket:
        """What to send by; another one after :meth:`secure`."""
        return self._connection

    def set_idle_seconds(self, seconds: float) -> None:
        """How long the peer may be silent between two PDUs."""
        self._idle_seconds = seconds
        self._tick = max(min(seconds, self._pdu_seconds) / _TICKS, 0.001)
        self._wake_every(self._tick)

    def secure(self, context: ssl.SSLContext, seconds: float) -> ssl.SSLSocket:
        """Shake hands within ``seconds``; from here on everything goes through TLS.

        Raises
        ------
        AssociationError
            The peer took too long, or was gone before the first byte, or :meth:`stop`.
        ConnectionLostError
            Peer and node could not agree, or the connection is gone. What the peer may still send
            is plain bytes again, for :meth:`drop_until_closed`.
        """
        try:
            secured = context.wrap_socket(
                self._connection, server_side=True, do_handshake_on_connect=False
            )
        except OSError as error:
            # Reset already, by one who only looks whether the port is open; ssl drops the socket.
            raise AssociationError(f"no TLS: {_why(error)}") from error
        self._connection = secured
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            secured.settimeout(max(min(left, self._tick, _LOOK_SECONDS), 0.001))
            try:
                secured.do_handshake()
            except TimeoutError as error:
                if left > 0 and not self._stop.is_set():
                    continue
                raise AssociationError("the TLS handshake took too long") from error
            except OSError as error:
                if self._stop.is_set():
                    raise AssociationError(self._why_stopped) from error
                # The peer is to get the alert that says why: closing now might take it away.
                self._connection = socket.socket(fileno=secured.detach())
                self._connection.settimeout(None)
                raise ConnectionLostError(f"no TLS: {_why(error)}") from error
            break
        self._wake_every(self._tick)
        return secured

    def send(self, pdus: bytes) -> None:
        """Send all of it, within the time for one PDU.

        Raises
        ------
        ConnectionLostError
            The peer is gone, or does not read.
        """
        connection = self._connection
        try:
            if not isinstance(connection, ssl.SSLSocket):
                connection.sendall(pdus)
            else:
                connection.settimeout(self._pdu_seconds)
                connection.sendall(pdus)
                self._wake_every(self._tick)
        except OSError as error:
            raise ConnectionLostError("connection lost before an answer") from error

    def stop(self, why: str = "the node stops", *, at_once: bool = False) -> None:
        """Make the thread that reads give up; may be called by any other.

        Parameters
        ----------
        at_once
            Also where nothing can be sent any more after it, as through TLS.
        """
        self._why_stopped = why
        self._stop.set()
        if isinstance(self._connection, ssl.SSLSocket) and not at_once:
            return  # it looks often enough; an end of its input would end its output too
        try:
            # Not the method of an SSLSocket, which takes its TLS away from the thread that uses it.
            socket.socket.shutdown(self._connection, socket.SHUT_RD)
        except OSError:
            return  # closed meanwhile, which is what stopping is for

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """Leave the peer alone for so long, or until :meth:`stop`, which raises AssociationError."""
        if self._stop.wait(seconds):
            raise AssociationError(self._why_stopped)

    @property
    def has_unread(self) -> bool:
        """Whether the peer has sent what nobody has received yet; asked by another thread."""
        look = select.poll()
        try:
            look.register(self._connection, select.POLLIN)
            return bool(look.poll(0))
        except (OSError, ValueError):  # closed meanwhile
            return False

    @property
    def silent_seconds(self) -> float:
        """For how long the peer has sent nothing between two PDUs; 0 inside of one."""
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    def pdu_header(self, seconds: float | None = None) -> tuple[int, int]:
        """Wait for a PDU and return its type and length; its body is still to be read.

        Parameters
        ----------
        seconds
            For waiting and the PDU together, instead of what is configured for each.

        Raises
        ------
        AssociationError
            As by every method here: silence for too long, or :meth:`stop`.
        ConnectionLostError
            The peer closed the connection.
        """
        if seconds is not None:
            self._patience = seconds
        if self._start == self._end:
            if seconds is None:
                self._patience = self._idle_seconds
            self._impatience = "nothing came between two PDUs for too long"
            self._silent_since = time.monotonic()
            self._fill()
            self._silent_since = None
        if seconds is None:
            self._patience = self._pdu_seconds
        self._impatience = "a PDU took too long"
        if self._end - self._start < _PDU_HEADER_BYTES:
            self._fill_to(_PDU_HEADER_BYTES)
        start = self._start
        self._start = start + _PDU_HEADER_BYTES
        kind, length = _PDU_HEADER.unpack_from(self._view, start)
        return kind, length

    def pdv_header(self) -> tuple[int, int, int]:
        """Length, context ID and message control header of the next PDV (PS3.8 9.3.5.1)."""
        if self._end - self._start < _PDV_HEADER_BYTES:
            self._fill_to(_PDV_HEADER_BYTES)
        start = self._start
        self._start = start + _PDV_HEADER_BYTES
        length, context_id, control = _PDV_HEADER.unpack_from(self._view, start)
        return length, context_id, control

    def take(self, most: int) -> memoryview:
        """The next 1 to ``most`` bytes, as many as are here; see :attr:`before_refill`."""
        if self._start == self._end:
            self._fill()
        start = self._start
        self._start = stop = min(start + most, self._end)
        return self._view[start:stop]

    def take_all(self, length: int) -> bytes:
        """The next ``length`` bytes; the caller has checked the number."""
        stop = self._start + length
        if stop <= self._end:  # Also of nothing, for which :meth:`take` would wait.
            taken = bytes(self._view[self._start : stop])
            self._start = stop
            return taken
        parts = bytearray()
        while len(parts) < length:
            parts += self.take(length - len(parts))
        return bytes(parts)

    def drop(self, length: int) -> None:
        """Pass over the next ``length`` bytes."""
        while length:
            length -= len(self.take(length))

    def drop_until_closed(self, seconds: float) -> None:
        """Read and forget until the peer closes the connection, for so long at most."""
        self._patience = seconds
        self._impatience = "the peer did not close the connection"
        self._wake_every(max(seconds / _TICKS, 0.001))
        while True:
            self._start = self._end = 0
            self._fill()

    def _fill_to(self, length: int) -> None:
        """Receive until the next ``length`` bytes are here."""
        while self._end - self._start < length:
            self._fill()

    def _fill(self) -> None:
        """Receive at least one more byte."""
        if self.before_refill(self._end > self._full_at):
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        while True:
            began = time.monotonic()
            try:
                count = self._connection.recv_into(self._view[self._end :])
            except BlockingIOError:
                count = -1  # SO_RCVTIMEO
            except OSError as error:
                if not isinstance(error, TimeoutError) or error.errno is not None:
                    raise ConnectionLostError(f"connection lost: {_why(error)}") from error
                count = -1  # settimeout
            if self._stop.is_set():
                raise AssociationError(self._why_stopped)
            if count == 0:
                raise ConnectionLostError("connection closed by the peer")
            self._patience -= time.monotonic() - began
            if self._patience < 0:
                raise AssociationError(self._impatience)
            if count > 0:
                self._end += count
                return

    def _wake_every(self, seconds: float) -> None:
        if isinstance(self._connection, ssl.SSLSocket):
            self._connection.settimeout(min(seconds, _LOOK_SECONDS))
        else:
            self._set_timeout(socket.SO_RCVTIMEO, seconds)

    def _set_timeout(self, option: int, seconds: float) -> None:
        whole = int(seconds)
        self._connection.setsockopt(
            socket.SOL_SOCKET, option, _TIMEVAL.pack(whole, int((seconds - whole) * 1e6))
        )


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error)


def _hold_nothing(is_full: bool) -> bool:
    return True
