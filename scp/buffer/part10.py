"""The file that the spool makes of a received dataset (PS3.10 section 7), and its routing header."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from struct import Struct, pack

from scp.durable import StrPath
from scp.elements import (
    Buffer,
    Element,
    Encoding,
    bounded_inflate,
    encoding_of,
    is_deflated,
    walk,
)
from scp.errors import (
    InvalidUidError,
    MalformedError,
    TruncatedError,
    UidMismatchError,
    UnreadableInstanceError,
)
from scp.header import open_header
from scp.model import IMPLEMENTATION_CLASS_UID, Identity, Origin, SpooledInstance, StoreRequest
from scp.part10 import FileMeta, file_meta_of

IMPLEMENTATION_VERSION_NAME = "DCMPRESS_" + version("dcmpress").replace(".", "")[:7]
PREAMBLE = b"\0" * 128 + b"DICM"

_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_STUDY = 0x0020000D
_SERIES = 0x0020000E
_ROUTING = {_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES}

_GROUP_LENGTH = Struct("<HH2sHL")
_UID = re.compile(r"[0-9.]{1,128}")
_FIRST_READ = 16 * 1024
_HEADER_LIMIT = 4 * 2**20
"""What is walked or inflated to find the UIDs, values that are passed over apart; what needs more is
refused as unreadable."""
_MOST_HEADER_ELEMENTS = 20_000
_MOST_KINDS = 64
"""Of instances whose arrangement is remembered at a time."""
_MOST_ELEMENTS = 512
"""Of an arrangement; real headers have 40 to 100 before the Series Instance UID."""


def file_head(request: StoreRequest) -> bytes:
    """Preamble and file meta group for a received dataset; the origin is kept in it."""
    before, after = _around(request.sop_class_uid, request.transfer_syntax, request.origin)
    instance = _short(0x0003, b"UI", request.sop_instance_uid)
    size = len(before) + len(instance) + len(after)
    return b"".join((PREAMBLE, _GROUP_LENGTH.pack(2, 0, b"UL", 4, size), before, instance, after))


@lru_cache(maxsize=256)
def _around(sop_class_uid: str, transfer_syntax: str, origin: Origin) -> tuple[bytes, bytes]:
    """What comes before and after the instance's UID: the same for nearly all of an association."""
    before = pack("<HH2sHL", 2, 0x0001, b"OB", 0, 2) + b"\0\1"
    return (
        before + _short(0x0002, b"UI", sop_class_uid),
        _short(0x0010, b"UI", transfer_syntax) + _origin(origin),
    )


def _origin(origin: Origin) -> bytes:
    """The elements that say who wrote the file, and for whom."""
    address = f"[{origin.peer_address}]" if ":" in origin.peer_address else origin.peer_address
    return b"".join(
        (
            _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _short(0x0016, b"AE", origin.calling_ae_title),
            _short(0x0017, b"AE", origin.calling_ae_title),
            _short(0x0018, b"AE", origin.called_ae_title),
            _long(0x0026, b"UR", f"dicom://{address}"),
        )
    )


def read_identity(dataset: Buffer, transfer_syntax: str) -> Identity:
    """Find the routing UIDs among the dataset's top-level elements.

    Raises
    ------
    TruncatedError
        More bytes are needed.
    UnreadableInstanceError
        No bytes that follow can help: a UID is missing, empty or no UID.
    """
    if is_deflated(transfer_syntax):
        try:
            dataset = bounded_inflate(dataset, _HEADER_LIMIT)
        except MalformedError as error:
            raise UnreadableInstanceError(str(error)) from error
    return _identity(_routing_values(dataset, encoding_of(transfer_syntax)))


class IdentityReader:
    """As :func:`read_identity`, for many instances of which most lie as others of their sender did.

    Their elements as far as the Series Instance UID have the same tags and lengths, which is seen at
    once where it would take a third of all that receiving does to walk them again. For many threads.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], _Arrangement] = {}
        self._missed: set[tuple[object, ...]] = set()

    def read(self, dataset: Buffer, request: StoreRequest) -> Identity:
        """What :func:`read_identity` returns or raises."""
        kind = (
            request.origin,
            request.sop_class_uid,
            request.transfer_syntax,
            len(request.sop_instance_uid),
        )
        known = self._known.get(kind)
        found = None if known is None else known.values_in(dataset)
        if found is not None:
            if self._missed:
                self._missed.discard(kind)
            return _identity(found)
        identity = read_identity(dataset, request.transfer_syntax)
        if kind not in self._missed:
            if len(self._missed) >= _MOST_KINDS:
                self._missed.clear()
            self._missed.add(kind)
        elif not is_deflated(request.transfer_syntax):
            # Only what came twice: to learn takes as long as to walk some four times.
            self._missed.discard(kind)
            self._learn(kind, dataset, encoding_of(request.transfer_syntax))
        return identity

    def _learn(self, kind: tuple[object, ...], dataset: Buffer, encoding: Encoding) -> None:
        if len(self._known) >= _MOST_KINDS:
            self._known.clear()
            self._missed.clear()
        learnt = _arrangement_of(dataset, encoding)
        if learnt is not None:
            self._known[kind] = learnt


class _Arrangement:
    """The headers of all elements as far as the routing UIDs, and the tag that comes after them."""

    def __init__(self, elements: Sequence[Element], dataset: Buffer) -> None:
        parts = [f"{each.value - each.start}s{each.length}x" for each in elements]
        self._headers = Struct("<" + "".join(parts) + "4s")
        self._expected = self._headers.unpack_from(dataset)
        self._size = self._headers.size
        self._places = {
            each.tag: (each.value, each.end)
            for each in reversed(elements)  # The first of several counts.
            if each.tag in _ROUTING
        }

    def values_in(self, dataset: Buffer) -> dict[int, str] | None:
        """The routing values; None where the elements lie otherwise."""
        if len(dataset) < self._size or self._headers.unpack_from(dataset) != self._expected:
            return None
        return {tag: _text(dataset[start:end]) for tag, (start, end) in self._places.items()}


def _arrangement_of(dataset: Buffer, encoding: Encoding) -> _Arrangement | None:
    """None where headers alone do not tell, as of undefined lengths, or there are too many of them."""
    try:
        elements = list(walk(dataset, encoding, stop_before=_SERIES + 1))
    except (MalformedError, TruncatedError):
        return None
    if not 0 < len(elements) <= _MOST_ELEMENTS or elements[-1].end + 4 > len(dataset):
        return None
    if any(each.is_undefined_length for each in elements):
        return None
    return _Arrangement(elements, dataset)


def _identity(found: Mapping[int, str]) -> Identity:
    """Refuse what is no UID."""
    identity = Identity(
        sop_class_uid=found.get(_SOP_CLASS, ""),
        sop_instance_uid=found.get(_SOP_INSTANCE, ""),
        study_instance_uid=found.get(_STUDY, ""),
        series_instance_uid=found.get(_SERIES, ""),
    )
    for name, uid in (
        ("SOP Instance UID", identity.sop_instance_uid),
        ("Study Instance UID", identity.study_instance_uid),
        ("Series Instance UID", identity.series_instance_uid),
    ):
        if not _UID.fullmatch(uid):
            raise UnreadableInstanceError(f"the dataset's {name} is missing, empty or no UID")
    return identity


def _routing_values(dataset: Buffer, encoding: Encoding) -> dict[int, str]:
    found: dict[int, str] = {}
    try:
        for element in walk(dataset, encoding, stop_before=_SERIES + 1, only=_ROUTING):
            # The first of several: it is the same however much of the dataset is there yet.
            found.setdefault(element.tag, _text(dataset[element.value : element.value_end]))
    except MalformedError as error:
        raise UnreadableInstanceError(str(error)) from error
    except TruncatedError:
        if _SERIES not in found:
            raise
    if _SERIES not in found:
        end = max((e.end for e in walk(dataset, encoding, stop_before=_SERIES + 1)), default=0)
        if end >= len(dataset):
            raise TruncatedError("the bytes end before the Series Instance UID")
    return found


def _text(value: Buffer) -> str:
    return bytes(value).decode("ascii", "replace").strip("\0 ")


def check_request(request: StoreRequest) -> None:
    """Refuse UIDs that are none, before anything is kept under them.

    Raises
    ------
    InvalidUidError
        The SOP Instance UID (PS3.7 annex C, status 0117).
    UnreadableInstanceError
        The SOP Class or the transfer syntax.
    """
    if not _UID.fullmatch(request.sop_class_uid) or not _UID.fullmatch(request.transfer_syntax):
        raise UnreadableInstanceError("the SOP Class or the transfer syntax is no UID")
    if not _UID.fullmatch(request.sop_instance_uid):
        raise InvalidUidError("the command's Affected SOP Instance UID is empty or no UID")


def check_identity(request: StoreRequest, identity: Identity) -> None:
    """Refuse a dataset that is not the one that the command announced."""
    if identity.sop_instance_uid != request.sop_instance_uid:
        raise UidMismatchError("the dataset's SOP Instance UID is not the command's")
    if identity.sop_class_uid != request.sop_class_uid:
        raise UidMismatchError("the dataset's SOP Class UID is not the command's")


def open_instance(path: StrPath) -> SpooledInstance:
    """Read back what the spool knows of an instance.

    Raises
    ------
    UnreadableInstanceError
        The file is none of ours, or damaged.
    """
    found: dict[int, str] = {}
    try:
        with open_header(Path(path), _HEADER_LIMIT) as header:
            meta = header.meta
            try:
                for number, element in enumerate(header.elements(_SERIES + 1)):
                    if number == _MOST_HEADER_ELEMENTS:
                        raise MalformedError(f"more than {number} elements before the Series")
                    if element.tag in _ROUTING:
                        # The first of several, as while the instance arrived.
                        found.setdefault(element.tag, _text(header.value(element)))
            except TruncatedError:
                if _SERIES not in found:
                    raise
    except (MalformedError, TruncatedError) as error:
        raise UnreadableInstanceError(str(error)) from error
    return SpooledInstance(
        path=Path(path),
        identity=_identity(found),
        origin=meta.origin,
        transfer_syntax=meta.transfer_syntax,
        file_bytes=os.stat(path).st_size,
    )


def _meta_of(head: Buffer) -> FileMeta:
    """The meta group, which :func:`file_head` kept short."""
    try:
        return file_meta_of(head, is_whole=len(head) < _FIRST_READ)
    except (MalformedError, TruncatedError) as error:
        raise UnreadableInstanceError(f"file meta group: {error}") from error


def same_instance(first: StrPath, second: StrPath) -> bool:
    """Whether two files hold the same transfer syntax and dataset bytes, from the same peer.

    Rules may send what another peer sent elsewhere. A file that the disk has spoiled is the same as
    none.
    """
    with open(first, "rb") as a, open(second, "rb") as b:
        try:
            head_a, head_b = (
                _meta_of(a.read(_FIRST_READ)),
                _meta_of(b.read(_FIRST_READ)),
            )
        except UnreadableInstanceError:
            return False
        if (head_a.transfer_syntax, head_a.origin) != (head_b.transfer_syntax, head_b.origin):
            return False
        a.seek(head_a.dataset_start)
        b.seek(head_b.dataset_start)
        while True:
            chunk_a, chunk_b = a.read(1 << 20), b.read(1 << 20)
            if chunk_a != chunk_b:
                return False
            if not chunk_a:
                return True


def _short(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return pack("<HH2sH", 2, element, vr, len(value)) + value


def _long(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    value += b" " * (len(value) % 2)
    return pack("<HH2sHL", 2, element, vr, 0, len(value)) + value
