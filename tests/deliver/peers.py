"""Peers to deliver to: one spoken by hand, byte by byte, and DCMTK's storescp."""

import contextlib
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from scp.config.schema import DicomDestination
from tests.conftest import peer_program

type Answer = int | str
"""A status, or: abort, close, release, silence, drip (0000 byte by byte), stranger (another
message's answer), nonsense."""


@dataclass(frozen=True)
class Stored:
    """One C-STORE-RQ as it came."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    dataset: bytes


@dataclass
class HandPeer:
    """A storage SCP that does what a test says; one connection after the other."""

    answer: Callable[[int], Answer] = lambda number: 0x0000
    """By the number of the instance, counted over all associations."""
    accepts: Callable[[str, str], bool] = lambda sop_class, syntax: True
    max_pdu: int = 65536
    reject: tuple[int, int, int] | None = None
    rejects_callers: frozenset[str] | set[str] = frozenset()
    """As calling AE titles that are not recognised, for good."""
    breaks_at: frozenset[str] = frozenset()
    """SOP classes at whose proposal it closes the connection."""
    tls: ssl.SSLContext | None = None
    on_request: str = ""
    """What to do instead of answering the A-ASSOCIATE-RQ: abort, close, silence, nonsense."""
    port: int = 0
    """0: any."""
    stored: list[Stored] = field(default_factory=list)
    """Whatever was sent to it, also what it then refused."""
    answers: list[Answer] = field(default_factory=list)
    """To each of these."""
    pdu_lengths: list[int] = field(default_factory=list)
    associations: int = 0
    released: int = 0
    proposed: list[tuple[str, str]] = field(default_factory=list)
    called: str = ""
    calling: str = ""
    callers: list[str] = field(default_factory=list)
    """Of all associations that were accepted."""
    faults: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._ending = threading.Event()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="hand-peer")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        assert not self.faults, self.faults

    def section(self, **more: object) -> DicomDestination:
        values = {"answer_seconds": 5.0, "connect_seconds": 5.0, **more}
        return DicomDestination.model_validate(
            {"kind": "dicom", "host": "127.0.0.1", "port": self.port, "ae_title": "HAND", **values}
        )

    def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            with connection:
                try:
                    if self.tls is not None:
                        connection = self.tls.wrap_socket(connection, server_side=True)
                    with connection:
                        self._talk(connection)
                except (ConnectionError, EOFError, ssl.SSLError):
                    pass
                except BaseException as fault:
                    self.faults.append(fault)

    def _talk(self, connection: socket.socket) -> None:
        kind, body = read_pdu(connection)
        assert kind == 1, f"PDU type {kind} to begin with"
        self.associations += 1
        if self._misbehave(connection, self.on_request):
            return
        if any(each.encode() in body for each in self.breaks_at):
            return
        if self.reject:
            connection.sendall(struct.pack(">BxLx3B", 3, 4, *self.reject))
            return
        caller = body[20:36].decode().strip()
        if caller in self.rejects_callers:
            connection.sendall(struct.pack(">BxLx3B", 3, 4, 1, 1, 3))
            return
        self.callers.append(caller)
        contexts = self._accept(connection, body)
        command, dataset = b"", b""
        while True:
            kind, body = read_pdu(connection)
            if kind == 5:
                self.released += 1
                connection.sendall(struct.pack(">BxL4x", 6, 4))
                return
            if kind == 7:
                return
            assert kind == 4, f"PDU type {kind}"
            self.pdu_lengths.append(len(body))
            while body:
                length, context, flags = struct.unpack_from(">LBB", body)
                data, body = body[6 : 4 + length], body[4 + length :]
                if flags & 1:
                    command += data
                else:
                    dataset += data
                if flags == 2 and not self._take(connection, contexts[context], command, dataset):
                    return
                if flags == 2:
                    command, dataset = b"", b""

    def _accept(self, connection: socket.socket, body: bytes) -> dict[int, str]:
        self.called = body[4:20].decode().strip()
        self.calling = body[20:36].decode().strip()
        contexts: dict[int, str] = {}
        items = item(0x10, b"1.2.840.10008.3.1.1.1")
        for kind, content in split_items(body[68:]):
            if kind != 0x20:
                continue
            (abstract,) = [v.decode() for k, v in split_items(content[4:]) if k == 0x30]
            (syntax,) = [v.decode() for k, v in split_items(content[4:]) if k == 0x40]
            self.proposed.append((abstract, syntax))
            is_accepted = self.accepts(abstract, syntax)
            if is_accepted:
                contexts[content[0]] = syntax
            result = 0 if is_accepted else 4
            items += item(0x21, bytes((content[0], 0, result, 0)) + item(0x40, syntax.encode()))
        user = item(0x51, struct.pack(">L", self.max_pdu)) + item(0x52, b"1.2.3.4")
        answer = struct.pack(">H2x", 1) + body[4:68] + items + item(0x50, user)
        connection.sendall(struct.pack(">BxL", 2, len(answer)) + answer)
        return contexts

    def _take(self, connection: socket.socket, syntax: str, command: bytes, dataset: bytes) -> bool:
        """Answer one instance; False when the association is over."""
        values = command_values(command)
        assert values[0x0100] == b"\1\0"
        number = len(self.stored)
        self.stored.append(
            Stored(
                sop_class_uid=values[0x0002].rstrip(b"\0").decode(),
                sop_instance_uid=values[0x1000].rstrip(b"\0").decode(),
                transfer_syntax=syntax,
                dataset=dataset,
            )
        )
        answer = self.answer(number)
        self.answers.append(answer)
        if isinstance(answer, str) and self._misbehave(connection, answer):
            return False
        message_id = int.from_bytes(values[0x0110], "little") + (answer == "stranger")
        status = answer if isinstance(answer, int) else 0
        response = response_set(message_id, status)
        if answer == "drip":
            half = len(response) // 2
            pdus = p_data(response[:half], 1) + p_data(b"", 1) + p_data(response[half:], 3)
            for byte in pdus:
                connection.sendall(bytes((byte,)))
        else:
            connection.sendall(p_data(response, 3))
        return True

    def _misbehave(self, connection: socket.socket, how: str) -> bool:
        """Whether the association is over."""
        match how:
            case "abort":
                connection.sendall(struct.pack(">BxLxxBB", 7, 4, 2, 0))
                drain(connection)
            case "close":
                return True
            case "release":
                connection.sendall(struct.pack(">BxL4x", 5, 4))
                drain(connection)
            case "silence":
                drain(connection)
            case "nonsense":
                connection.sendall(struct.pack(">BxL", 4, 3) + b"abc")
                drain(connection)
            case _:
                return False
        return True


def drain(connection: socket.socket) -> None:
    """Read until the other side closes."""
    while connection.recv(65536):
        pass


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxL", read_exactly(connection, 6))
    return kind, read_exactly(connection, length)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def split_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def command_values(command: bytes) -> dict[int, bytes]:
    values = {}
    while command:
        group, element, length = struct.unpack_from("<HHL", command)
        assert group == 0
        values[element] = command[8 : 8 + length]
        command = command[8 + length :]
    return values


def response_set(message_id: int, status: int) -> bytes:
    elements = ((0x0100, 0x8001), (0x0120, message_id), (0x0800, 0x0101), (0x0900, status))
    body = b"".join(struct.pack("<HHLH", 0, element, 2, value) for element, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def p_data(data: bytes, flags: int) -> bytes:
    return struct.pack(">BxLLBB", 4, len(data) + 6, len(data) + 2, 1, flags) + data


@contextlib.contextmanager
def storescp(folder: Path, port: int, *options: str) -> Iterator[DicomDestination]:
    """DCMTK's storescp, writing to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [peer_program("storescp"), "-od", str(folder), "+B", *options, str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "TCP_NODELAY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None, "storescp ended"
            assert time.monotonic() < deadline, "storescp does not listen"
            time.sleep(0.02)
        yield DicomDestination(
            kind="dicom", host="127.0.0.1", port=port, ae_title="STORESCP", answer_seconds=10
        )
    finally:
        process.terminate()
        process.wait(10)
