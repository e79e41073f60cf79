"""Native copies for peers that refuse a transfer syntax, as true to the source as the proof can tell."""

import contextlib
import hashlib
from pathlib import Path
from typing import Final

from pydicom import uid

from scp.convert.attributes import (
    HTJ2K_LOSSLESS,
    LOSSLESS,
    LOSSY,
    NATIVE,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    PixelAttributes,
    read_attributes,
)
from scp.convert.decoders import decode_any_frame
from scp.convert.header import (
    Change,
    code_string,
    edited,
    explicit_header,
    recoded,
    unsigned_short,
)
from scp.convert.part10 import DicomFile, meta_with, open_dicom, sha256_of, windows
from scp.convert.recode import element_header, swapped
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import SourceLimits, locate_frames
from scp.elements import EXPLICIT_LITTLE, PIXEL_DATA, Element, encoding_of, walk
from scp.model import PassReason

_SYNTAXES: Final = (str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian))
_SOP_INSTANCE_UID = 0x00080018
_PIXEL_REPRESENTATION = 0x00280103
_LOSSY_IMAGE_COMPRESSION = 0x00282110
_DROPPED = (0x7FE00000, 0x7FE00001, 0x7FE00002, 0x7FE00003)
"""What describes the encapsulation, and the group length that counts it."""
_LONGEST_VALUE = 0xFFFFFFFE


def decode_for_peer(
    source: Path,
    target: Path,
    transfer_syntax: str,
    *,
    decode_lossy: bool,
    original: Path | None = None,
    sha256: str = "",
    original_dataset_sha256: str = "",
    limits: SourceLimits | None = None,
) -> None:
    """Write a copy of ``source`` that is not compressed; not synced to the disk.

    The words come back as two decoders agree on where there are two (HTJ2K, JPEG Lossless). Where the
    ``original`` is native and the same instance, nothing is decoded: it is copied instead.

    Parameters
    ----------
    transfer_syntax
        Explicit or Implicit VR Little Endian.
    decode_lossy
        Whether a lossy source may be decoded; the copy says that it was lossy (PS3.3 C.7.6.1.1.5).
    original
        The instance as it was received.
    sha256, original_dataset_sha256
        Of ``source``, and of the dataset in ``original``, where they are known: another file is not
        decoded, and another original not copied.

    Raises
    ------
    NotConvertibleError
        It cannot be decoded, or not proved; there is no ``target`` then.
    """
    limits = limits or SourceLimits()
    if transfer_syntax not in _SYNTAXES:
        raise NotConvertibleError(PassReason.UNKNOWN_TRANSFER_SYNTAX, transfer_syntax[:64])
    try:
        most, scratch = limits.inflated_bytes, target.parent
        file = open_dicom(source, max_inflated_bytes=most, scratch=scratch)
        elements = file.walk()
        digest = sha256
        if original is not None and file.transfer_syntax not in NATIVE:
            kept = open_dicom(original, max_inflated_bytes=most, scratch=scratch)
            kept_elements = kept.walk()
            if (
                kept.transfer_syntax in NATIVE
                and _same_instance(file, elements, kept, kept_elements)
                and original_dataset_sha256 in ("", _dataset_sha256(kept))
            ):
                file, elements, digest = kept, kept_elements, ""
        if digest and digest != sha256_of(file.whole).hexdigest():
            detail = "the file is not the one that was committed"
            raise NotConvertibleError(PassReason.UNREADABLE, detail)
        if file.transfer_syntax in NATIVE:
            _copy(file, elements, target, transfer_syntax)
        else:
            _decode(file, elements, target, transfer_syntax, decode_lossy, limits)
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        raise


def _dataset_sha256(file: DicomFile) -> str:
    return sha256_of(file.whole[file.dataset_start :]).hexdigest()


def _same_instance(
    one: DicomFile, one_elements: list[Element], other: DicomFile, other_elements: list[Element]
) -> bool:
    return _value(one, one_elements, _SOP_INSTANCE_UID) == _value(
        other, other_elements, _SOP_INSTANCE_UID
    )


def _value(file: DicomFile, elements: list[Element], tag: int) -> bytes:
    return next((bytes(file.dataset[e.value : e.end]) for e in elements if e.tag == tag), b"")


def _copy(file: DicomFile, elements: list[Element], target: Path, transfer_syntax: str) -> None:
    """The same values in the other encoding; pixel data, which may be large, a window after the other."""
    encoding = encoding_of(transfer_syntax)
    with target.open("wb") as out:
        out.write(meta_with(file, transfer_syntax)[0])
        if encoding == file.encoding:
            out.writelines(windows(file.dataset))
            return
        signed = 1 in _value(file, elements, _PIXEL_REPRESENTATION)

        def header(part: list[Element]) -> bytes:
            return recoded(file.dataset, part, file.encoding, encoding, signed=signed)

        at = next((i for i, e in enumerate(elements) if e.tag == PIXEL_DATA), len(elements))
        out.write(header(elements[:at]))
        if at == len(elements):
            return
        element = elements[at]
        if element.is_undefined_length:
            raise NotConvertibleError(PassReason.HEADER_NOT_EXPRESSIBLE, "encapsulated pixel data")
        vr = element.vr or b"OW"  # Which implicit VR means (PS3.5 A.1).
        out.write(element_header(PIXEL_DATA, vr, element.length, implicit=encoding.implicit))
        pixels = hashlib.sha256()
        for window in windows(file.dataset[element.value : element.end]):
            words = window if file.encoding.little else swapped(vr, window)
            pixels.update(words)
            out.write(words)
        out.write(header(elements[at + 1 :]))
    _prove(target, element.length, pixels.digest())


def _decode(
    file: DicomFile,
    elements: list[Element],
    target: Path,
    transfer_syntax: str,
    decode_lossy: bool,
    limits: SourceLimits,
) -> None:
    is_lossy = file.transfer_syntax in LOSSY
    if not is_lossy and file.transfer_syntax not in LOSSLESS | HTJ2K_LOSSLESS:
        raise NotConvertibleError(PassReason.UNKNOWN_TRANSFER_SYNTAX, file.transfer_syntax[:64])
    if is_lossy and not decode_lossy:
        raise NotConvertibleError(PassReason.LOSSY_SOURCE, "decode_lossy is off")
    attributes = read_attributes(file, elements)
    size = attributes.frame_bytes * attributes.frames
    if attributes.frame_bytes > limits.frame_bytes or size > _LONGEST_VALUE:
        raise NotConvertibleError(PassReason.FRAME_TOO_LARGE, f"{size} bytes of pixels")
    changes = _changes(file, elements, attributes, is_lossy)
    header = explicit_header(file, elements, signed=attributes.is_signed)
    encoding = encoding_of(transfer_syntax)

    def written(part: bytes | memoryview) -> bytes | memoryview:
        if encoding == EXPLICIT_LITTLE:
            return part
        view = memoryview(part)
        parts = list(walk(view, EXPLICIT_LITTLE))
        return recoded(view, parts, EXPLICIT_LITTLE, encoding, signed=attributes.is_signed)

    # 8.1.1: words of more than 8 bits are OW; implicit VR means OW in any case.
    vr = b"OW" if attributes.bits_allocated > 8 else b"OB"
    pixels = hashlib.sha256()
    with target.open("wb") as out:
        out.write(meta_with(file, transfer_syntax)[0])
        out.write(written(edited(header.before, changes)))
        out.write(element_header(PIXEL_DATA, vr, size + size % 2, implicit=encoding.implicit))
        for spans in locate_frames(file, elements, attributes) or ():
            data = b"".join(file.dataset[start:end] for start, end in spans)
            frame = decode_any_frame(file.transfer_syntax, data, attributes)
            pixels.update(frame.tobytes())
            out.write(frame.tobytes())
            file.release()
        out.write(bytes(size % 2))
        out.write(written(header.after))
    _prove(target, size, pixels.digest())


def _changes(
    file: DicomFile, elements: list[Element], attributes: PixelAttributes, is_lossy: bool
) -> dict[int, Change]:
    changes: dict[int, Change] = {e.tag: None for e in elements if e.tag in _DROPPED}
    photometric = attributes.photometric_interpretation
    is_jpeg = file.transfer_syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
    # Neither has a native form (PS3.5 8.2): the decoder gave RGB.
    if photometric in ("YBR_RCT", "YBR_ICT") or (is_jpeg and attributes.samples == 3):
        changes[PHOTOMETRIC_INTERPRETATION] = code_string("RGB")
    if attributes.samples > 1 and attributes.planar_configuration != 0:
        changes[PLANAR_CONFIGURATION] = unsigned_short(0)
    if is_lossy and _value(file, elements, _LOSSY_IMAGE_COMPRESSION).strip(b" \0") != b"01":
        changes[_LOSSY_IMAGE_COMPRESSION] = code_string("01")
    return changes


def _prove(target: Path, size: int, pixel_sha256: bytes) -> None:
    """The file can be read again and holds the words that were decoded."""
    file = open_dicom(target)
    pixel_data = [element for element in file.walk() if element.tag == PIXEL_DATA]
    if len(pixel_data) == 1 and not pixel_data[0].is_undefined_length:
        start = pixel_data[0].value
        if sha256_of(file.dataset[start : start + size]).digest() == pixel_sha256:
            return
    raise NotConvertibleError(PassReason.VERIFY_MISMATCH, "the copy reads differently")
