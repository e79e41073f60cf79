"""The control socket: one JSON request a connection, one JSON answer. For the same user on the machine."""

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scp.errors import NodeError, ScpError

logger = logging.getLogger(__name__)

_LONGEST_REQUEST = 2**20
_PEER_SECONDS = 5.0

type Request = dict[str, Any]
type Reply = dict[str, Any]


class ControlServer:
    """Answers on the socket from a thread of its own; ``handle`` is called there."""

    def __init__(self, path: Path, handle: Callable[[Request], Reply]) -> None:
        self._path = path
        self._handle = handle
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        with _short_path(path) as short:
            self._listener.bind(short)
        path.chmod(0o600)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PEER_SECONDS)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(_PEER_SECONDS)
                with contextlib.suppress(OSError):
                    peer.sendall(json.dumps(self._answer(peer)).encode() + b"\n")

    def _answer(self, peer: socket.socket) -> Reply:
        try:
            request = json.loads(_read_line(peer))
            return {"ok": self._handle(request)}
        except ScpError as error:
            return {"error": str(error)}
        except ValueError as error:
            return {"error": f"no request that this node understands: {error}"}
        except Exception:
            logger.exception("a control request failed")
            return {"error": "the node could not answer; its log says why"}


def ask(path: Path, request: Request, seconds: float = 30.0) -> Reply | None:
    """Ask the running node; None when none answers there.

    Raises
    ------
    NodeError
        It answered that it cannot.
    """
    with socket.socket(socket.AF_UNIX) as node:
        node.settimeout(seconds)
        try:
            with _short_path(path) as short:
                node.connect(short)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        try:
            node.sendall(json.dumps(request).encode() + b"\n")
            reply = json.loads(_read_line(node, limit=None))
        except (OSError, ValueError) as error:
            raise NodeError(f"the node did not answer on {path}: {error}") from error
    if "error" in reply:
        raise NodeError(str(reply["error"]))
    answer: Reply = reply["ok"]
    return answer


def _read_line(peer: socket.socket, limit: int | None = _LONGEST_REQUEST) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = peer.recv(65536)
        if not chunk:
            break
        received += chunk
        if limit is not None and len(received) > limit:
            raise ValueError("too long")
    return bytes(received)


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A name of at most 107 bytes for the socket, however deep its folder lies (unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
