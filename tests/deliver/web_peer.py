"""A DICOMweb server that does what a test says: it stores, refuses, hangs, forgets."""

import contextlib
import json
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pydicom

type Answer = str | int
"""``stored``, ``xml``, ``forgotten`` (said to be stored), ``silent`` (200 without a body), ``nothing`` (a
dataset that names nobody), ``half`` (closes in the middle of the request), ``close`` (after it),
``silence``, ``kept`` (silence, but it stores), ``page`` (409 and a page for people), a failure reason as
``reason A700``, ``unnamed A700`` (of nobody in particular), a warning as ``warning B000``; or a status of
HTTP."""


@dataclass
class WebPeer:
    """One server, on a port of its own."""

    answer: Callable[[int], Answer] = lambda number: "stored"
    """By the number of the request to store."""
    refuses: Callable[[str], bool] = lambda transfer_syntax: False
    """Transfer syntaxes that are answered with C122."""
    authorization: str = ""
    """What the header has to say; empty: anything."""
    tls: ssl.SSLContext | None = None
    retry_after: str = ""
    """The header of that name, with whatever is no success."""
    date: str | None = None
    """The header of that name; None: the time."""
    searches: bool = True
    page: int = 1000
    """How many instances it finds at a time, whatever is asked for."""
    port: int = 0
    """0: any."""
    stored: dict[str, list[bytes]] = field(default_factory=dict)
    """Files by SOP Instance UID, in order."""
    requests: list[list[str]] = field(default_factory=list)
    """Of each request to store: the Content-Type of each part."""
    offered: Counter[str] = field(default_factory=Counter)
    """How often each SOP Instance UID was in a request that came whole."""
    authorized: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._ending = threading.Event()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", self.port), type("Handler", (_Handler,), {"web": self})
        )
        self._server.daemon_threads = False
        self._connections: list[socket.socket] = []
        self.port = self._server.server_port
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="web-peer"
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._server.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._server.server_close()

    @property
    def url(self) -> str:
        scheme, host = ("http", "127.0.0.1") if self.tls is None else ("https", "localhost")
        return f"{scheme}://{host}:{self.port}/dicom-web"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebPeer

    def setup(self) -> None:
        self.web._connections.append(self.request)
        super().setup()

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(timestamp) if self.web.date is None else self.web.date

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self._is_stranger():
            return
        if not self.web.searches:
            self._say(501, b"")
            return
        if self.web.retry_after:
            self._say(503, b"")
            return
        query = parse_qs(urlsplit(self.path).query)
        asked, first = query.get("SOPInstanceUID", []), int(query.get("offset", ["0"])[0])
        found = [uid for uid in self.web.stored if not asked or uid in asked]
        found = found[first : first + self.web.page]
        datasets = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in found]
        self._say(200 if found else 204, json.dumps(datasets).encode() if found else b"")

    def do_POST(self) -> None:
        assert self.path == "/dicom-web/studies", self.path
        length = int(self.headers["Content-Length"])
        answer = self.web.answer(len(self.web.requests))
        if answer == "half":
            self.rfile.read(length // 2)
            self.web.requests.append([])
            self.close_connection = True
            return
        body = self.rfile.read(length)
        parts = list(_parts(self.headers["Content-Type"], body))
        self.web.requests.append([kind for kind, _ in parts])
        if self._is_stranger():
            return
        files = {
            str(pydicom.dcmread(BytesIO(f), stop_before_pixels=True).SOPInstanceUID): f
            for _, f in parts
        }
        self.web.offered.update(files.keys())
        match answer:
            case "close":
                self.close_connection = True
            case "silence" | "kept":
                if answer == "kept":
                    self._keep(files)
                self.web._ending.wait(60)
                self.close_connection = True
            case "page":
                self._say(409, b"<html><body>Conflict</body></html>", "text/html")
            case int():
                self._say(answer, b"")
            case _:
                self._store(answer, files)

    def _store(self, answer: str, files: dict[str, bytes]) -> None:
        how, _, number = answer.partition(" ")
        reason = int(number, 16) if number else 0
        referenced, failed, others = {}, {}, []
        for uid, content in files.items():
            syntax = str(
                pydicom.dcmread(
                    BytesIO(content), stop_before_pixels=True
                ).file_meta.TransferSyntaxUID
            )
            if self.web.refuses(syntax):
                failed[uid] = 0xC122
            elif how == "reason":
                failed[uid] = reason
            elif how == "unnamed":
                others.append(reason)
            else:
                referenced[uid] = reason
                if how != "forgotten":
                    self._keep({uid: content})
        status = 409 if not referenced else 202 if failed or reason else 200
        if answer == "silent":
            self._say(200, b"")
        elif answer == "nothing":
            self._say(200, b'{"00081199": {"vr": "SQ"}}', "application/dicom+json")
        elif answer == "xml":
            self._say(status, _xml(referenced), "application/dicom+xml")
        else:
            said = _json(referenced, failed, others)
            self._say(status, said, "application/dicom+json")

    def _keep(self, files: dict[str, bytes]) -> None:
        for uid, content in files.items():
            self.web.stored.setdefault(uid, []).append(content)

    def _is_stranger(self) -> bool:
        given = self.headers.get("Authorization", "")
        self.web.authorized.append(given)
        if self.web.authorization and given != self.web.authorization:
            self._say(401, b"")
            return True
        return False

    def _say(self, status: int, body: bytes, kind: str = "") -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if self.web.retry_after and status >= 400:
            self.send_header("Retry-After", self.web.retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _parts(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    assert content_type.startswith('multipart/related; type="application/dicom"; boundary=')
    boundary = content_type.rpartition("boundary=")[2].encode()
    pieces = body.split(b"--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    found = []
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        kind = re.search(rb"Content-Type: ([^\r]+)", head)
        assert kind is not None
        assert content.endswith(b"\r\n")
        found.append((kind[1].decode(), content[:-2]))
    return found


def _json(referenced: dict[str, int], failed: dict[str, int], others: list[int]) -> bytes:
    def number(value: int) -> dict[str, Any]:
        return {"vr": "US", "Value": [value]}

    def items(reasons: dict[str, int], tag: str) -> list[dict[str, Any]]:
        return [
            {"00081155": {"vr": "UI", "Value": [uid]}} | ({tag: number(reason)} if reason else {})
            for uid, reason in reasons.items()
        ]

    dataset: dict[str, Any] = {}
    if referenced:
        dataset["00081199"] = {"vr": "SQ", "Value": items(referenced, "00081196")}
    if failed:
        dataset["00081198"] = {"vr": "SQ", "Value": items(failed, "00081197")}
    if others:
        dataset["0008119A"] = {"vr": "SQ", "Value": [{"00081197": number(each)} for each in others]}
    return json.dumps(dataset).encode()


def _xml(referenced: dict[str, int]) -> bytes:
    items = "".join(
        f'<Item number="{number}"><DicomAttribute tag="00081155" vr="UI">'
        f'<Value number="1">{uid}</Value></DicomAttribute></Item>'
        for number, uid in enumerate(referenced, 1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
        '<DicomAttribute tag="00081199" vr="SQ">'
        f"{items}</DicomAttribute></NativeDicomModel>"
    ).encode()
