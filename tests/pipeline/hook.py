"""A webhook: a real HTTP server that keeps what is posted to it."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self


@dataclass
class Hook:
    """Answers ``status`` and notes everything."""

    status: int = 204
    posted: list[dict[str, Any]] = field(default_factory=list)
    tries: list[tuple[str, str]] = field(default_factory=list)
    """(path, Authorization) of each."""

    def __enter__(self) -> Self:
        self._server = HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hook": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?key=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def notices(self) -> list[tuple[str, str, str]]:
        """(notice, subject, state) of each that was taken."""
        return [(each["notice"], each["subject"], each["state"]) for each in self.posted]


class _Handler(BaseHTTPRequestHandler):
    hook: Hook

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.hook.tries.append((self.path, self.headers.get("Authorization", "")))
        if self.hook.status < 300:
            self.hook.posted.append(body)
        self.send_response(self.hook.status)
        self.send_header("Content-Length", "0")
        self.end_headers()
