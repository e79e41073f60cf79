"""The control socket: one JSON request a connection, one JSON answer. For the same user on the machine."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scp.errors import NodeError, ScpError

logger = logging.getLogger(__name__)

_LONGEST_REQUEST = 2**20
_PEER_SECONDS = 5.0
_STOP_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
_ROOM_SECONDS = 0.02

type Request = dict[str, Any]
type Reply = dict[str, Any]


class ControlServer:
    """Answers on the socket from a thread of its own; ``handle`` is called there.

    A client has ``peer_seconds`` for its request, and as long to take the answer: others wait for it.
    """

    def __init__(
        self,
        path: Path,
        handle: Callable[[Request], Reply],
        *,
        peer_seconds: float = _PEER_SECONDS,
    ) -> None:
        self._path = path
        self._handle = handle
        self._peer_seconds = peer_seconds
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        with short_path(path) as short:
            self._listener.bind(short)
        path.chmod(0o600)
        self._listener.listen(16)
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer what is being asked, up to a few seconds, and take the socket away."""
        self._is_stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_STOP_SECONDS)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._is_stopping.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError as error:
                if not self._is_stopping.is_set():
                    logger.error("the control socket: %s; tried again", error.strerror)
                    self._is_stopping.wait(_AGAIN_SECONDS)
                continue
            # A client that hangs or is gone: its business.
            with peer, contextlib.suppress(OSError):
                line = _read_line(peer, self._peer_seconds, _LONGEST_REQUEST)
                answer = self._answer(line)
                peer.settimeout(self._peer_seconds)
                peer.sendall(answer + b"\n")

    def _answer(self, line: bytes) -> bytes:
        if len(line) > _LONGEST_REQUEST:
            return _refusal("no request that this node understands: too long")
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return _refusal(f"no request that this node understands: {error}")
        if fault := _fault_of(request):
            return _refusal(f"no request that this node understands: {fault}")
        try:
            return json.dumps({"ok": self._handle(request)}).encode()
        except ScpError as error:
            return _refusal(str(error))
        except Exception:
            logger.exception("a control request failed")
            return _refusal("the node could not answer; its log says why")


def _fault_of(request: Any) -> str:
    """What no command could do anything with; empty where there is no such thing."""
    if not isinstance(request, dict):
        return "no mapping"
    for key in ("command", "job", "reason"):
        if not isinstance(request.get(key), str | None):
            return f"{key} is no text"
    jobs = request.get("jobs")
    if not isinstance(jobs, list | None) or not all(isinstance(job, str) for job in jobs or ()):
        return "jobs is no list of texts"
    if request.get("command") == "discard" and not request.get("job"):
        return "discard needs a job"
    return ""


def ask(path: Path, request: Request, seconds: float = 30.0) -> Reply | None:
    """Ask the running node; None when none answers there.

    Raises
    ------
    NodeError
        It answered that it cannot, or it is there and could not be asked.
    """
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX) as node:
        node.settimeout(seconds)
        try:
            with short_path(path) as short:
                _connect(node, short, deadline)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except PermissionError as error:
            why = "only the user that runs it may; run the command as that user"
            raise NodeError(f"the node cannot be asked on {path}: {why}") from error
        except BlockingIOError as error:
            why = "too many others are asking; try again in a while"
            raise NodeError(f"the node cannot be asked on {path}: {why}") from error
        except OSError as error:
            why = error.strerror or str(error)
            raise NodeError(f"the node cannot be asked on {path}: {why}") from error
        try:
            node.sendall(json.dumps(request).encode() + b"\n")
            reply = json.loads(_read_line(node, seconds, None))
        except (OSError, ValueError) as error:
            raise NodeError(f"the node did not answer on {path}: {error}") from error
    if isinstance(reply, dict) and "error" in reply:
        raise NodeError(str(reply["error"]))
    if not isinstance(reply, dict) or not isinstance(answer := reply.get("ok"), dict):
        raise NodeError(f"the node did not answer on {path}: no answer that this version knows")
    return answer


def _connect(node: socket.socket, path: str, deadline: float) -> None:
    """Wait for room in the queue of those who ask, which a Unix socket's connect does not."""
    while True:
        try:
            node.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_ROOM_SECONDS)


def _refusal(why: str) -> bytes:
    return json.dumps({"error": why}).encode()


def _read_line(peer: socket.socket, seconds: float, limit: int | None) -> bytes:
    """What comes before the first newline or the end; of what is longer than ``limit``, its start.

    Raises
    ------
    TimeoutError
        It did not come whole in time.
    """
    received = bytearray()
    deadline = time.monotonic() + seconds
    while not received.endswith(b"\n") and (limit is None or len(received) <= limit):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        peer.settimeout(left)
        chunk = peer.recv(65536)
        if not chunk:
            break
        received += chunk
    return bytes(received)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of at most 107 bytes for the socket, however deep its folder lies (unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
