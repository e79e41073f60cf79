"""A store in memory that can be told to fail, and a listener on a free port in front of it."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scp.accept.commitment import CommitmentService
from scp.accept.door import Door
from scp.accept.listener import Listener
from scp.config.network import ListenerSection
from scp.config.schema import AccessSection, LimitsSection, NodeSection
from scp.model import Origin, StoreRequest


@dataclass
class KeptInstance:
    """An instance on its way into a :class:`MemoryStore`, or there."""

    store: "MemoryStore"
    request: StoreRequest
    data: bytearray = field(default_factory=bytearray)

    @property
    def may_gather(self) -> bool:
        return len(self.data) >= self.store.gather_from

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        for piece in pieces:
            self.data += piece
        if self.store.write_error is not None:
            raise self.store.write_error

    def commit(self, *pieces: bytes | bytearray | memoryview) -> None:
        if pieces:
            self.write(*pieces)
        self.store.is_committing.set()
        assert self.store.may_commit.wait(10)
        if self.store.commit_error is not None:
            raise self.store.commit_error
        self.store.kept.append(self)

    def tidy(self) -> None:
        assert self.store.may_tidy.wait(10)
        self.store.tidied.append(self)

    def abandon(self) -> None:
        self.store.abandoned.append(self)


@dataclass
class MemoryStore:
    """Keeps instances in the order of their commits."""

    kept: list[KeptInstance] = field(default_factory=list)
    abandoned: list[KeptInstance] = field(default_factory=list)
    tidied: list[KeptInstance] = field(default_factory=list)
    opened: list[Origin] = field(default_factory=list)
    closed: list[Origin] = field(default_factory=list)
    room: bool = True
    gather_from: int = 1
    """So many bytes of an instance are taken as they come."""
    begin_error: Exception | None = None
    write_error: Exception | None = None
    commit_error: Exception | None = None
    is_committing: threading.Event = field(default_factory=threading.Event)
    may_commit: threading.Event = field(default_factory=threading.Event)
    may_tidy: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_commit.set()
        self.may_tidy.set()

    def has_room(self) -> bool:
        return self.room

    def begin(self, request: StoreRequest) -> KeptInstance:
        if self.begin_error is not None:
            raise self.begin_error
        return KeptInstance(self, request)

    def association_opened(self, origin: Origin) -> None:
        self.opened.append(origin)

    def association_closed(self, origin: Origin) -> None:
        self.closed.append(origin)


@dataclass
class Node:
    """A listener that serves in a thread of its own."""

    listener: Listener
    store: MemoryStore
    address: tuple[str, int]
    thread: threading.Thread
    addresses: list[tuple[str, int]]
    """Of each port."""

    @property
    def port(self) -> int:
        return self.address[1]


@contextlib.contextmanager
def serving(
    store: MemoryStore | None = None,
    access: AccessSection | None = None,
    host: str = "127.0.0.1",
    stop_descriptors: tuple[int, ...] = (),
    ports: Sequence[ListenerSection] = (ListenerSection(port=0),),
    commitments: CommitmentService | None = None,
    is_alone: bool = True,
    **limits: Any,
) -> Iterator[Node]:
    """A node on free ports, ``limits`` as in the configuration; on exit nothing of it is left."""
    store = store or MemoryStore()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    doors = [
        Door(socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::"), section)
        for section in ports
    ]
    listener = Listener(
        doors,
        store,
        NodeSection(),
        access or AccessSection(),
        LimitsSection(**limits),
        commitments,
        is_alone=is_alone,
    )
    near = "127.0.0.1" if host == "::" else host
    addresses = [(near, door.socket.getsockname()[1]) for door in doors]
    thread = threading.Thread(target=listener.serve, args=(stop_descriptors,), name="listener")
    thread.start()
    try:
        yield Node(listener, store, addresses[0], thread, addresses)
    finally:
        store.may_commit.set()
        store.may_tidy.set()
        listener.stop()
        thread.join(10)
        listener.drain(0)
    assert not thread.is_alive()
    assert listener.open_associations == 0


def eventually(condition: Callable[[], object], seconds: float = 10) -> bool:
    """Whether the condition holds within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
