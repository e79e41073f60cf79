"""Between the node and a server: passes everything on, or does what it is told instead."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

type Sign = Callable[[bytes], bool]


class Proxy:
    """One server's, on a port of its own."""

    def __init__(self, server: int, how: str = "", *, sign: Sign = lambda data: True) -> None:
        self.how = how
        """Empty: pass on; ``down``: nobody listens; ``silence``; a status of HTTP; ``half``: close in the
        middle of what has the sign; ``mute``: from there on the server's answers are lost."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))  # From here on nobody else is given the port.
        self.port: int = self._listener.getsockname()[1]
        self._server = server
        self._sign = sign

    def __enter__(self) -> Self:
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_up = False
        if self.how != "down":
            self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)

    def heal(self) -> None:
        """Pass everything on from now."""
        self.how = ""
        if not self._is_up:
            self._listen()

    def _listen(self) -> None:
        self._is_up = True
        self._listener.listen()
        self._start(self._serve)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy")
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._start(self._talk, connection)

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self.how == "silence":
                while connection.recv(2**16):
                    pass
            elif self.how.isdigit():
                connection.recv(2**16)
                head = f"HTTP/1.1 {self.how} No\r\nETag: x\r\nConnection: close\r\n"
                connection.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
            else:
                self._pass_on(connection)

    def _pass_on(self, connection: socket.socket) -> None:
        muted = threading.Event()
        with socket.create_connection(("127.0.0.1", self._server)) as onward:
            self._open.append(onward)
            self._start(_copy, onward, connection, muted)
            while data := connection.recv(2**16):
                if self.how == "half" and self._sign(data):
                    onward.sendall(data[: len(data) // 2])
                    break
                if self.how == "mute" and self._sign(data):
                    muted.set()
                onward.sendall(data)
            with contextlib.suppress(OSError):
                onward.shutdown(socket.SHUT_WR)
                if self.how == "half":
                    onward.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket, muted: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            if not muted.is_set():
                target.sendall(data)
    if not muted.is_set():
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
