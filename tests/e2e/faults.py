"""What may go wrong at the far end of a delivery: peers of every kind with one fault each."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deliver.files import EXPLICIT, IMPLICIT
from tests.deliver.peers import HandPeer
from tests.deliver.places import BUCKET, credentials, object_store, objects_in
from tests.deliver.web_peer import WebPeer
from tests.e2e.node import Tree
from tests.e2e.peers import free_port, pynetdicom_archive

type Stored = Callable[[], list[bytes]]
"""Files or datasets, each as often as the peer got it."""

FAULTS = (
    "down",
    "rejects",
    "refuses the syntax",
    "refuses the instance",
    "fails half way",
    "warns",
    "out of resources",
    "hangs",
    "has it already",
    "accepts and forgets",
)
_SECONDS = 1.5
"""That a destination waits for an answer."""


@dataclass
class Cell:
    """One kind of destination with one fault."""

    kind: str
    fault: str
    section: Tree
    heal: Callable[[], None]
    stored: Stored
    convert: str = "original"
    ends: str = "delivered"
    """``held``: for good, whatever is tried."""
    keeps: bool = True
    """False: what it says it took, it does not have."""
    is_at_once: bool = False
    """It is delivered, or held, before anything is healed."""


def nothing() -> None:
    """It stays as it is."""


def folder_cells(stack: ExitStack, folder: Path) -> Iterator[Cell]:
    root = folder / "below-a-file" / "archive"
    root.parent.touch()

    def stored() -> list[bytes]:
        return [path.read_bytes() for path in root.rglob("*.dcm")]

    section = {"kind": "folder", "path": str(root)}
    yield Cell("folder", "down", section, root.parent.unlink, stored)


def dicom_cells(stack: ExitStack, folder: Path) -> Iterator[Cell]:
    def section(port: int) -> Tree:
        return {
            "kind": "dicom",
            "host": "127.0.0.1",
            "port": port,
            "ae_title": "PACS",
            "answer_seconds": _SECONDS,
        }

    def of(fault: str, peer: HandPeer, **more: object) -> Cell:
        stack.enter_context(peer)

        def heal() -> None:
            peer.reject, peer.on_request, peer.answer = None, "", lambda number: 0x0000

        def stored() -> list[bytes]:
            return [each.dataset for each in peer.stored]

        values: dict[str, object] = {"heal": heal, **more}
        return Cell("dicom", fault, section(peer.port), stored=stored, **values)  # type: ignore[arg-type]

    port, kept = free_port(), folder / "pacs"

    def up() -> None:
        stack.enter_context(pynetdicom_archive(kept, port=port))

    yield Cell(
        "dicom", "down", section(port), up, lambda: [p.read_bytes() for p in kept.glob("*.dcm")]
    )
    yield of("rejects", HandPeer(reject=(1, 1, 3)))
    yield of(
        "refuses the syntax",
        HandPeer(accepts=lambda sop_class, syntax: syntax in (EXPLICIT, IMPLICIT)),
        heal=nothing,
        convert="htj2k",
        is_at_once=True,
    )
    yield of(
        "refuses the instance",
        HandPeer(answer=lambda number: 0xA900),
        heal=nothing,
        ends="held",
        is_at_once=True,
    )
    yield of("fails half way", HandPeer(answer=lambda number: "close"))
    yield of("warns", HandPeer(answer=lambda number: 0xB000), heal=nothing, is_at_once=True)
    yield of("out of resources", HandPeer(answer=lambda number: 0xA700))
    yield of("hangs", HandPeer(answer=lambda number: "silence"))
    yield of(
        "has it already", HandPeer(answer=lambda number: 0x0111), heal=nothing, is_at_once=True
    )
    forgetful = HandPeer()
    yield of("accepts and forgets", forgetful, heal=nothing, keeps=False, is_at_once=True)


def dicomweb_cells(stack: ExitStack, folder: Path) -> Iterator[Cell]:
    def section(url: str) -> Tree:
        return {"kind": "dicomweb", "url": url, "answer_seconds": _SECONDS}

    def files(peer: WebPeer) -> Stored:
        return lambda: [content for each in peer.stored.values() for content in each]

    def of(fault: str, peer: WebPeer, **more: object) -> Cell:
        stack.enter_context(peer)

        def heal() -> None:
            peer.answer = lambda number: "stored"

        values: dict[str, object] = {"heal": heal, **more}
        return Cell("dicomweb", fault, section(peer.url), stored=files(peer), **values)  # type: ignore[arg-type]

    later = WebPeer(port=free_port())

    def up() -> None:
        stack.enter_context(later)

    yield Cell("dicomweb", "down", section(later.url), up, files(later))
    yield of("rejects", WebPeer(answer=lambda number: 401))
    yield of(
        "refuses the syntax",
        WebPeer(refuses=lambda syntax: syntax != EXPLICIT),
        heal=nothing,
        convert="htj2k",
        is_at_once=True,
    )
    yield of(
        "refuses the instance",
        WebPeer(answer=lambda number: "reason A900"),
        heal=nothing,
        ends="held",
        is_at_once=True,
    )
    yield of("fails half way", WebPeer(answer=lambda number: "half"))
    yield of("warns", WebPeer(answer=lambda number: "warning B000"), heal=nothing, is_at_once=True)
    yield of("out of resources", WebPeer(answer=lambda number: "reason A700"))
    yield of("hangs", WebPeer(answer=lambda number: "silence"))
    yield of(
        "has it already",
        WebPeer(answer=lambda number: "reason 0111"),
        heal=nothing,
        keeps=False,
        is_at_once=True,
    )
    yield of(
        "accepts and forgets",
        WebPeer(answer=lambda number: "forgotten"),
        heal=nothing,
        keeps=False,
        is_at_once=True,
    )


def s3_cells(stack: ExitStack, folder: Path) -> Iterator[Cell]:
    keys = {name: {"file": str(at["file"])} for name, at in credentials(folder).items()}
    store = stack.enter_context(object_store())

    def of(fault: str, how: str) -> Cell:
        proxy = Proxy(int(store.rpartition(":")[2]), how)
        prefix = how or "down"

        def heal() -> None:
            proxy.how = ""
            if how == "":
                stack.enter_context(proxy)

        if how:
            stack.enter_context(proxy)
        section = {
            "kind": "s3",
            "bucket": BUCKET,
            "prefix": prefix,
            "endpoint": f"http://127.0.0.1:{proxy.port}",
            "answer_seconds": _SECONDS,
            "max_connections": 1,
            **keys,
        }

        def stored() -> list[bytes]:
            return [content for key, content in objects_in(store).items() if key.startswith(prefix)]

        return Cell("s3", fault, section, heal, stored)

    yield of("down", "")
    yield of("rejects", "403")
    yield of("fails half way", "half")
    yield of("out of resources", "503")
    yield of("hangs", "silence")
    yield of("accepts and forgets", "200")


class Proxy:
    """Between us and a server: passes everything on, or does what it is told instead."""

    def __init__(self, server: int, how: str) -> None:
        self.how = how
        """Empty: pass on; ``half``: close in the middle; ``silence``; or a status of HTTP."""
        self.port = free_port()
        self._server = server

    def __enter__(self) -> "Proxy":
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._serve)
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
            if self.how == "":
                with socket.create_connection(("127.0.0.1", self._server)) as onward:
                    self._open.append(onward)
                    self._start(_copy, onward, connection)
                    _copy(connection, onward)
                return
            connection.recv(2**16 if self.how != "half" else 64)
            if self.how == "silence":
                while connection.recv(2**16):
                    pass
            elif self.how.isdigit():
                head = f"HTTP/1.1 {self.how} No\r\nETag: x\r\nConnection: close\r\n"
                said = f"{head}Content-Length: 0\r\n\r\n"
                connection.sendall(said.encode())


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def all_cells(folder: Path) -> Iterator[list[Cell]]:
    """Every kind with every fault that it can have."""
    with ExitStack() as stack:
        cells: list[Cell] = []
        for make in (folder_cells, dicom_cells, dicomweb_cells, s3_cells):
            here = folder / make.__name__
            here.mkdir()
            cells += make(stack, here)
        yield cells
