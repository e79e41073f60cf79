"""Writes a collapsed object (PS3.10): header by header and frame by frame, never all frames at once."""

import hashlib
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import BinaryIO, Final, cast

from pydicom.charset import convert_encodings
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, writers
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, VR

from scp.convert.encapsulation import EncapsulatedPixels
from scp.convert.enhanced.build import Draft
from scp.convert.enhanced.placeholders import data_element
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.slices import SliceHeader
from scp.convert.enhanced.unassigned import PER_FRAME, SHARED
from scp.convert.recode import element_header
from scp.convert.transcode import LOSSLESS, LOSSLESS_RPCL
from scp.elements import EXPLICIT_LITTLE, walk
from scp.model import IMPLEMENTATION_CLASS_UID, CollapseReason

BASIC_TABLE_ENDS: Final = 2**32
"""An offset of the Basic Offset Table has 32 bits (PS3.5 A.4)."""

_VERBATIM: Final = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH SQ ST TM UC UI UR UT".split())
"""VRs whose bytes mean the same in the object as in its sources."""
_PLAIN: Final = frozenset(
    VR(vr)
    for vr in (
        *("AE", "AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO"),
        *("SH", "SL", "SS", "TM", "UI", "UL", "US"),
    )
)
"""VRs of nearly all elements of functional groups, written by pydicom's writers of values."""
_LONGEST: Final = 0xFFFF
"""Bytes of a value whose length field has 16 bits; pydicom has another VR for longer ones."""
_CHARACTER_SET: Final = 0x00080005
_SHARED_GROUPS, _PER_FRAME_GROUPS = 0x52009229, 0x52009230


def transfer_syntax_of(headers: Iterable[SliceHeader]) -> str:
    """The better label only where every frame has earned it (PS3.5 A.4.4, 10.18.1)."""
    labels = {header.transfer_syntax for header in headers}
    return LOSSLESS_RPCL if labels == {LOSSLESS_RPCL} else LOSSLESS


def write(
    file: BinaryIO,
    draft: Draft,
    shared_unassigned: bytes,
    frame_unassigned: Sequence[bytes],
    *,
    basic_table_ends: int = BASIC_TABLE_ENDS,
) -> int:
    """Write the object into an empty file; where its header ends and the pixel data's group begins.

    highdicom joins all frames in memory, with the byte that pads each where it is of odd length.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.

    Parameters
    ----------
    shared_unassigned, frame_unassigned
        Encoded sequences, as :func:`scp.convert.enhanced.unassigned.unassigned` makes them.
    basic_table_ends
        Bytes of frames from which on an Extended Offset Table is needed.

    Raises
    ------
    NotCollapsedError
        A value cannot be written (``library_refused``), or a frame is cut (``proof_failed``).
    """
    headers = draft.volume.headers
    character_set = headers[0].texts(0x00080005)
    encoder = _Encoder(character_set)
    image = draft.image
    file.write(file_meta(image.SOPClassUID, image.SOPInstanceUID, transfer_syntax_of(headers)))
    file.write(encoder.top_level(draft.image, headers))
    item = _with_sequence(encoder.dataset(draft.shared), SHARED, shared_unassigned)
    file.write(element_header(_SHARED_GROUPS, b"SQ", 8 + len(item)))
    file.write(_item(item))
    file.write(element_header(_PER_FRAME_GROUPS, b"SQ", 0))
    start = file.tell()
    for frame, unassigned in zip(draft.frames, frame_unassigned, strict=True):
        file.write(_item(_with_sequence(encoder.dataset(frame), PER_FRAME, unassigned)))
    end = file.tell()
    file.seek(start - 4)
    file.write(struct.pack("<L", end - start))
    file.seek(end)
    _write_frames(file, headers, basic_table_ends)
    return end


def _write_frames(file: BinaryIO, headers: Sequence[SliceHeader], basic_table_ends: int) -> None:
    sizes = [8 + length + length % 2 for _, length in (header.frame for header in headers)]
    is_extended = sum(sizes[:-1]) >= basic_table_ends
    pixels = EncapsulatedPixels(file, len(headers), is_extended=is_extended)
    for header in headers:
        pixels.add(read_codestream(header))
    pixels.finish()


def check_encoded(headers: Iterable[SliceHeader]) -> None:
    """Hash the encoded files, of which digests are known.

    Raises
    ------
    NotCollapsedError
        One has changed since it was verified (``proof_failed``).
    """
    for header in headers:
        expected = header.source.encoded_sha256
        if not expected:
            continue
        with header.source.encoded.open("rb", buffering=0) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise NotCollapsedError(CollapseReason.PROOF_FAILED, "an encoded file has changed")


def read_codestream(header: SliceHeader) -> bytes:
    """The frame's codestream from the encoded file.

    Raises
    ------
    NotCollapsedError
        The file is shorter than it was (``proof_failed``).
    """
    offset, length = header.frame
    descriptor = os.open(header.source.encoded, os.O_RDONLY | os.O_CLOEXEC)
    try:
        codestream = os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    if len(codestream) != length:
        raise NotCollapsedError(CollapseReason.PROOF_FAILED, "an encoded file is cut")
    return codestream


class _Encoder:
    """Explicit VR Little Endian by pydicom."""

    def __init__(self, character_set: Sequence[str]) -> None:
        self._encodings = convert_encodings(list(character_set) or "iso8859")
        self._buffer = DicomBytesIO()
        self._buffer.is_implicit_VR, self._buffer.is_little_endian = False, True

    def dataset(self, dataset: Dataset) -> bytes:
        try:
            with disable_value_validation():
                return self._content(dataset)
        except (
            Exception
        ) as error:  # pydicom raises whatever a value provokes; its message may quote it
            raise NotCollapsedError(
                CollapseReason.LIBRARY_REFUSED, f"{type(error).__name__} when writing"
            ) from error

    def _content(self, dataset: Dataset) -> bytes:
        """As pydicom writes it, without what it looks at for other syntaxes and lengths."""
        pieces: list[bytes] = []
        for tag in sorted(dataset.keys()):
            element = dataset.get_item(tag)
            content = self._plain(tag, element) if isinstance(element, DataElement) else None
            if content is not None:
                pieces += (element_header(tag, element.VR.encode(), len(content)), content)
                continue
            if isinstance(element, DataElement) and " or " not in element.VR:
                # There is more to it than to a short element of those few VRs.
                pieces.append(self._by_pydicom(Dataset({tag: element})))
                continue
            # What it is depends on the dataset that it is in.
            return self._by_pydicom(dataset)
        return b"".join(pieces)

    def _by_pydicom(self, dataset: Dataset) -> bytes:
        output = DicomBytesIO()
        output.is_implicit_VR, output.is_little_endian = False, True
        write_dataset(output, dataset, self._encodings)
        return output.getvalue()

    def _plain(self, tag: int, element: DataElement) -> bytes | None:
        if element.is_undefined_length:
            return None
        if element.VR == "SQ":
            return self._plain_items(element)
        if element.VR in _PLAIN and tag != _CHARACTER_SET and tag & 0xFFFF:
            return self._plain_value(element)
        return None

    def _plain_items(self, sequence: DataElement) -> bytes | None:
        items: list[bytes] = []
        for item in sequence.value:
            if item.is_undefined_length_sequence_item or _CHARACTER_SET in item:
                return None
            items.append(_item(self._content(item)))
        return b"".join(items)

    def _plain_value(self, element: DataElement) -> bytes | None:
        if element.is_empty:
            return b""
        buffer, writer = self._buffer, writers[VR(element.VR)]
        write_value, form = cast("tuple[Callable[..., None], str | None]", writer)
        buffer.seek(0)
        if element.VR in CUSTOMIZABLE_CHARSET_VR:
            write_value(buffer, element, encodings=convert_encodings(self._encodings))
        elif form is None:
            write_value(buffer, element)
        else:
            write_value(buffer, element, form)
        length = buffer.tell()
        return buffer.getvalue()[:length] if length <= _LONGEST else None

    def top_level(self, image: Dataset, headers: Sequence[SliceHeader]) -> bytes:
        """The dataset, with the sources' own bytes wherever it says what all of them say.

        Text that is not in the character set it claims to be in would come out otherwise.
        """
        first = headers[0].elements
        verbatim: dict[int, bytes] = {}
        for element in image:
            source = first.get(element.tag)
            if (
                source is not None
                and source[4:6] in _VERBATIM
                and source[4:6].decode() == element.VR
                and all(header.elements.get(element.tag) == source for header in headers)
                and self._value(element.tag, source) == element.value
            ):
                verbatim[element.tag] = source
        rest = Dataset({element.tag: element for element in image if element.tag not in verbatim})
        encoded = self.dataset(rest)
        pieces = {e.tag: encoded[e.start : e.end] for e in walk(encoded, EXPLICIT_LITTLE)}
        pieces.update(verbatim)
        return b"".join(pieces[tag] for tag in sorted(pieces))

    def _value(self, tag: int, element: bytes) -> object:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return data_element(tag, element, self._encodings).value


def _item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def _with_sequence(item: bytes, tag: int, sequence: bytes) -> bytes:
    """The item with an encoded sequence in its place."""
    at = len(item)
    for element in walk(item, EXPLICIT_LITTLE):
        if element.tag > tag:
            at = element.start
            break
    return item[:at] + sequence + item[at:]


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str) -> bytes:
    """Preamble and file meta group (PS3.10 7.1) of every object that is written here."""
    group = b"".join(
        (
            element_header(0x00020001, b"OB", 2) + b"\0\1",
            _text(0x00020002, b"UI", sop_class_uid),
            _text(0x00020003, b"UI", sop_instance_uid),
            _text(0x00020010, b"UI", transfer_syntax),
            _text(0x00020012, b"UI", IMPLEMENTATION_CLASS_UID),
            _text(0x00020013, b"SH", "DCMPRESS_" + version("dcmpress").replace(".", "")[:7]),
        )
    )
    length = element_header(0x00020000, b"UL", 4) + struct.pack("<L", len(group))
    return bytes(128) + b"DICM" + length + group


def _text(tag: int, vr: bytes, text: str) -> bytes:
    value = text.encode()
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return element_header(tag, vr, len(value)) + value
