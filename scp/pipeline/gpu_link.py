"""A GPU that another process has: frames in shared memory, words over a Unix socket, a deadline for each.

Whatever goes wrong on the way is a :class:`scp.convert.gpu_port.GpuUnavailableError`, and the CPU does the
work in hand. A work that the GPU's process died of is not sent to one again.
"""

import contextlib
import logging
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np

from scp.convert.gpu_backend import Pin
from scp.convert.gpu_port import EncodeSettings, Frame, GpuError, GpuUnavailableError, SharedGpu
from scp.elements import Buffer
from scp.pipeline.control import short_path
from scp.pipeline.processes import receive, send

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 45.0
"""Until a process that says nothing is given up. It has a shorter deadline for its device."""
_GREETING_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 1.0
_ALIGNED: Final = 64
_MOST_BYTES: Final = 3 * 2**27
"""Of one work in shared memory: the largest frame that is converted, and its codestream."""
_KEPT_BYTES: Final = 2**26
"""A larger area is given back after the work."""
_STEP: Final = 2**20
"""That areas grow by, or by an eighth where that is more."""
_BACKLOG: Final = 256

type _Kind = Literal["encode", "decode", "differing", "distrust"]
type _Bytes = np.ndarray[Any, np.dtype[np.uint8]]
type _Place = tuple[int, int]
"""Offset in the shared memory, and bytes."""


# Plain tuples: to pickle and unpickle dataclasses takes a fifth of what the GPU takes for a CT, and the
# process that has it does nothing else meanwhile.
class _Request(NamedTuple):
    kind: _Kind
    area: int = 0
    """Bytes of the shared memory."""
    settings: tuple[Any, ...] = ()
    """The values of EncodeSettings."""
    codestreams: tuple[_Place, ...] = ()
    frames: tuple[tuple[int, tuple[int, ...], str], ...] = ()
    """Offset, shape and type of each."""
    why: str = ""


class _Answer(NamedTuple):
    answers: list[Any]
    error: str = ""


_SETTINGS: Final = tuple(field.name for field in fields(EncodeSettings))


class _Area:
    """Anonymous memory that both processes see; it grows."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("dcmpress-frames", os.MFD_CLOEXEC)
        self.size = 0
        self._map: mmap.mmap | None = None

    def reserve(self, size: int) -> _Bytes:
        if size > self.size:
            step = max(_STEP, 1 << (size - 1).bit_length() - 3)
            self.size = -(-size // step) * step
            os.ftruncate(self.descriptor, self.size)
            self._map = mmap.mmap(self.descriptor, self.size)
        assert self._map is not None
        return np.frombuffer(self._map, np.uint8)

    def shrink(self) -> None:
        """Give a large area's memory back; the other side must be done with it."""
        if self.size > _KEPT_BYTES:
            self._map, self.size = None, 0
            os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        self._map = None
        os.close(self.descriptor)


class GpuLink:
    """Some GPU of those that answer in a folder; see :class:`scp.convert.gpu_port.SharedGpu`.

    For one thread at a time.

    Parameters
    ----------
    name
        Of the library, for job records.
    folder
        Where the sockets are, by the number of the device. They come and go.
    first
        Which of them is tried first: another for each worker, so that they share alike.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        first: int = 0,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._folder = folder
        self._first = first
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._connection: Connection | None = None
        self._area: _Area | None = None
        self._next_try = clock()

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[bytes | None]:
        """See :class:`scp.convert.gpu_port.Gpu`."""
        return self._ask("encode", [], frames, settings)

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        """See :class:`scp.convert.gpu_port.Gpu`."""
        return self._ask("decode", codestreams, [], None)

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        """See :class:`scp.convert.gpu_port.Gpu`."""
        return self._ask("differing", codestreams, frames, None)

    def distrust(self, why: str) -> None:
        """See :class:`scp.convert.gpu_port.SharedGpu`."""
        with contextlib.suppress(GpuUnavailableError):
            self._exchange(_Request(kind="distrust", why=why))

    def close(self) -> None:
        """Let the GPU's process go."""
        self._leave(0.0)

    def _ask(
        self,
        kind: _Kind,
        codestreams: Sequence[Buffer],
        frames: Sequence[Frame],
        settings: EncodeSettings | None,
    ) -> list[Any]:
        self._connect()
        assert self._area is not None
        sizes = [frame.nbytes for frame in frames] + [len(each) for each in codestreams]
        starts = np.cumsum([0, *(-(-size // _ALIGNED) * _ALIGNED for size in sizes)]).tolist()
        if starts[-1] > _MOST_BYTES:
            raise GpuUnavailableError(f"{starts[-1]} bytes are too many for one work of the GPU")
        area = self._area.reserve(starts[-1])
        for start, frame in zip(starts, frames, strict=False):
            area[start : start + frame.nbytes] = frame.reshape(-1).view(np.uint8)
        places = list(zip(starts[len(frames) :], map(len, codestreams), strict=False))
        for (start, size), codestream in zip(places, codestreams, strict=True):
            area[start : start + size] = np.frombuffer(codestream, np.uint8)
        answers = self._exchange(
            _Request(
                kind=kind,
                area=self._area.size,
                settings=tuple(getattr(settings, name) for name in _SETTINGS) if settings else (),
                codestreams=tuple(places),
                frames=tuple(
                    (start, frame.shape, frame.dtype.str)
                    for start, frame in zip(starts, frames, strict=False)
                ),
            )
        )
        if kind == "encode":
            # What fits lies where its frame lay; the rest came with the answer.
            answers = [
                area[start : start + each].tobytes() if isinstance(each, int) else each
                for start, each in zip(starts, answers, strict=False)
            ]
        del area
        self._area.shrink()
        return answers

    def _exchange(self, request: _Request) -> list[Any]:
        if self._connection is None:
            raise GpuUnavailableError("no GPU answers")
        try:
            send(self._connection, request)
            if not self._connection.poll(self._answer_seconds):
                self._leave(self._answer_seconds)
                raise GpuUnavailableError(f"no answer after {self._answer_seconds:g} s")
            answer: _Answer = receive(self._connection)
        except (EOFError, OSError) as error:
            self._leave(_AGAIN_SECONDS)
            raise GpuUnavailableError("the process that has the GPU is gone") from error
        if answer.error:
            raise GpuUnavailableError(answer.error)
        return answer.answers

    def _connect(self) -> None:
        """Find a process that has a GPU ready, unless one is known."""
        if self._connection is not None:
            return
        if self._clock() < self._next_try:
            raise GpuUnavailableError("no GPU answers")
        self._next_try = self._clock() + _AGAIN_SECONDS
        try:
            paths = sorted(self._folder.iterdir(), key=lambda path: (len(path.name), path.name))
        except OSError:
            paths = []
        start = self._first % len(paths) if paths else 0
        for path in paths[start:] + paths[:start]:
            if self._reach(path):
                return
        raise GpuUnavailableError("no GPU answers")

    def _reach(self, path: Path) -> bool:
        area = _Area()
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.setblocking(False)  # A full queue is no reason to wait.
            with short_path(path) as short:
                peer.connect(short)
            peer.setblocking(True)
            socket.send_fds(peer, [b"\0"], [area.descriptor])
            connection = Connection(peer.detach())
        except OSError:
            peer.close()
            area.close()
            return False
        self._connection, self._area = connection, area
        try:
            if connection.poll(_GREETING_SECONDS) and receive(connection) == self.name:
                return True
        except (EOFError, OSError):
            pass
        self._leave(_AGAIN_SECONDS)
        return False

    def _leave(self, seconds: float) -> None:
        """Have nothing to do with that process any more; it may still read what it was given."""
        self._next_try = self._clock() + seconds
        if self._connection is not None:
            self._connection.close()
        if self._area is not None:
            self._area.close()
        self._connection = self._area = None


class ServedGpu(SharedGpu, Protocol):
    """A GPU of this process, for any number of threads."""

    def encode_in_place(
        self, frames: Sequence[Frame], settings: EncodeSettings
    ) -> list[int | bytes | None]:
        """As ``encode``; a codestream that fits is written over its frame, and its size answered."""
        ...


class GpuServer:
    """Answers :class:`GpuLink` on a socket, each from a thread of its own."""

    def __init__(self, path: Path, gpu: ServedGpu, pin: Pin | None = None) -> None:
        self._path = path
        self._gpu = gpu
        self._pin = pin
        self._listener = socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        with short_path(path) as short:
            self._listener.bind(short)
        path.chmod(0o600)
        self._listener.listen(_BACKLOG)
        threading.Thread(target=self._accept, name="gpu-accept", daemon=True).start()

    def close(self) -> None:
        """Take no one else; who is there is answered."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(peer,), name="gpu-client", daemon=True
            ).start()

    def _serve(self, peer: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            with peer:
                _, descriptors, _, _ = socket.recv_fds(peer, 1, 1)
                connection = Connection(peer.detach())
            with connection, contextlib.closing(_Shared(descriptors[0], self._pin)) as area:
                send(connection, self._gpu.name)
                while True:
                    send(connection, self._answer(receive(connection), area))
        except (EOFError, OSError, IndexError):
            return  # It has ended, or was killed.
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _answer(self, request: _Request, area: "_Shared") -> _Answer:
        try:
            return _Answer(answers=self._do(request, area))
        except GpuError as error:
            return _Answer(answers=[], error=str(error))

    def _do(self, request: _Request, shared: "_Shared") -> list[Any]:
        if request.kind == "distrust":
            self._gpu.distrust(request.why)
            return []
        area = shared.of_size(request.area)
        codestreams = [area[at : at + size].data for at, size in request.codestreams]
        frames: list[Frame] = [
            np.ndarray(shape, np.dtype(kind), area.data, at) for at, shape, kind in request.frames
        ]
        if request.kind == "encode":
            settings = EncodeSettings(**dict(zip(_SETTINGS, request.settings, strict=True)))
            # Through the socket they would take as long again as the GPU does.
            return list(self._gpu.encode_in_place(frames, settings))
        if request.kind == "decode":
            return list(self._gpu.decode(codestreams))
        return list(self._gpu.differing(codestreams, frames))


class _Shared:
    """A client's area as the server sees it, mapped and pinned as long as it has the same size."""

    def __init__(self, descriptor: int, pin: Pin | None) -> None:
        self._descriptor = descriptor
        self._pin = pin
        self._unpin: Callable[[], None] | None = None
        self._size = 0
        self._area: _Bytes = np.empty(0, np.uint8)

    def of_size(self, size: int) -> _Bytes:
        if size != self._size:
            self.close()
            self._area = np.frombuffer(mmap.mmap(self._descriptor, size), np.uint8)
            self._size = size
            # What is given back after the work may not be held here.
            if self._pin is not None and size <= _KEPT_BYTES:
                self._unpin = self._pin(self._area)
        return self._area

    def close(self) -> None:
        unpin, self._unpin = self._unpin, None
        if unpin is not None:
            unpin()
