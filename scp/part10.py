"""The file meta group of a DICOM file (PS3.10 section 7.1), read without trusting its group length."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scp.elements import EXPLICIT_LITTLE, Buffer, Element, element_at, is_deflated
from scp.errors import MalformedError, TruncatedError
from scp.model import Origin

META_START: Final = 132
"""Where the file meta group begins: after the preamble and ``DICM``."""

_GROUP: Final = b"\2\0"
_GROUP_LENGTH: Final = 0x00020000
_SOP_CLASS: Final = 0x00020002
_SOP_INSTANCE: Final = 0x00020003
_TRANSFER_SYNTAX: Final = 0x00020010
_CALLING: Final = (0x00020017, 0x00020016)
"""Sending Application Entity Title, else Source: both are who sent it (PS3.10 7.1)."""
_CALLED: Final = 0x00020018
_ADDRESS: Final = 0x00020026
_TEXT_VRS: Final = (b"UI", b"AE", b"SH", b"UR")

_FIRST_READ: Final = 4096
_LIMIT: Final = 2**20
"""What is read at most in search of the group's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """The file meta group of one file."""

    elements: tuple[Element, ...]
    """Offsets count from the start of the file."""
    texts: dict[int, str]
    """Values of UIDs, titles and addresses by tag, padding stripped."""
    dataset_start: int
    """Offset of the first byte of the dataset."""

    @property
    def transfer_syntax(self) -> str:
        return self.texts[_TRANSFER_SYNTAX]

    @property
    def sop_class_uid(self) -> str:
        return self.texts.get(_SOP_CLASS, "")

    @property
    def sop_instance_uid(self) -> str:
        return self.texts.get(_SOP_INSTANCE, "")

    @property
    def origin(self) -> Origin:
        """Who sent the dataset, as far as the file says."""
        return Origin(
            calling_ae_title=next((self.texts[t] for t in _CALLING if self.texts.get(t)), ""),
            called_ae_title=self.texts.get(_CALLED, ""),
            peer_address=_host(self.texts.get(_ADDRESS, "")),
        )


def read_file_meta(read: Callable[[int, int], Buffer]) -> FileMeta:
    """Read the meta group of a file of any size.

    Parameters
    ----------
    read
        Bytes of the file from an offset, fewer than asked for only at its end.

    Raises
    ------
    MalformedError, TruncatedError
        As of :func:`file_meta_of`.
    """
    head = read(0, _FIRST_READ)
    if len(head) == _FIRST_READ:
        try:
            return file_meta_of(head, is_whole=False)
        except TruncatedError:
            head = read(0, _LIMIT)
    return file_meta_of(head)


def file_meta_of(data: Buffer, *, is_whole: bool = True) -> FileMeta:
    """Read the meta group from the bytes of a file, or with ``is_whole`` false from its first bytes.

    Raises
    ------
    MalformedError
        It is no DICOM file, or names no transfer syntax.
    TruncatedError
        The bytes end inside the meta group.
    """
    if bytes(data[128:META_START]) != b"DICM":
        raise MalformedError("no DICOM file: DICM is missing at byte 128")
    elements: list[Element] = []
    texts: dict[int, str] = {}
    position, announced = META_START, -1
    while bytes(data[position : position + 2]) == _GROUP:
        if position == announced and not _goes_on(data, elements, texts.get(_TRANSFER_SYNTAX, "")):
            break
        element = _element(data, position)
        raw = bytes(data[element.value : element.end])
        if element.tag == _GROUP_LENGTH and len(raw) == 4:
            announced = element.end + int.from_bytes(raw, "little")
        if element.vr in _TEXT_VRS:
            texts.setdefault(element.tag, raw.decode("ascii", "replace").strip("\0 "))
        elements.append(element)
        position = element.end
    if position + 2 > len(data) and position != announced and not is_whole:
        raise TruncatedError(f"the bytes end at {len(data)}, inside the file meta group")
    if not texts.get(_TRANSFER_SYNTAX):
        raise MalformedError("the file meta group names no transfer syntax")
    return FileMeta(elements=tuple(elements), texts=texts, dataset_start=position)


def _goes_on(data: Buffer, elements: list[Element], transfer_syntax: str) -> bool:
    """Whether the group has more elements where its length says that it ends.

    Group lengths of foreign files lie. But a dataset may begin with the bytes of group 0002 too: a
    deflated one by chance, another because its sender put a meta group into it.
    """
    if not transfer_syntax:
        return True
    if is_deflated(transfer_syntax):
        return False
    try:
        return _element(data, elements[-1].end).tag > elements[-1].tag
    except (MalformedError, TruncatedError):
        return False


def _element(data: Buffer, position: int) -> Element:
    element = element_at(data, EXPLICIT_LITTLE, position)
    if element.is_undefined_length:
        raise MalformedError("the file meta group has an element of undefined length")
    if element.end > len(data):
        raise TruncatedError(f"the bytes end at {len(data)}, inside the file meta group")
    return element


def _host(address: str) -> str:
    """Of a Presentation Address, ``dicom://host:port`` or without scheme (PS3.10 7.1)."""
    host = address.partition("://")[2] if "://" in address else address
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
