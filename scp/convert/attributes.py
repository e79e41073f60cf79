"""What the header says about the pixels (PS3.3 C.7.6.3), and whether HTJ2K may hold them (PS3.5 8.2.14)."""

import struct
from dataclasses import dataclass
from typing import Final

from pydicom import uid

from scp.convert.part10 import DicomFile
from scp.convert.ports import FrameFormat
from scp.convert.refusals import NotConvertibleError
from scp.elements import PIXEL_DATA, Element
from scp.model import PassReason

PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
PLANAR_CONFIGURATION: Final = 0x00280006

_SAMPLES, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH_BIT, _SIGN = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_SHORTS: Final = frozenset(
    (_SAMPLES, PLANAR_CONFIGURATION, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH_BIT, _SIGN)
)
_WANTED: Final = _SHORTS | {PHOTOMETRIC_INTERPRETATION, _FRAMES, PIXEL_DATA}
_FLOAT_PIXELS: Final = frozenset((0x7FE00008, 0x7FE00009))
_SIGNATURES: Final = frozenset((0x4FFE0001, 0xFFFAFFFA))
_OVERLAY_BITS_ALLOCATED: Final = 0x60000100

NATIVE: Final = frozenset(
    map(str, (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian))
) | {str(uid.DeflatedExplicitVRLittleEndian)}
LOSSLESS: Final = frozenset(
    map(
        str,
        (
            uid.RLELossless,
            uid.JPEGLossless,
            uid.JPEGLosslessSV1,
            uid.JPEGLSLossless,
            uid.JPEG2000Lossless,
        ),
    )
)
HTJ2K_LOSSLESS: Final = frozenset(map(str, (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)))
LOSSY: Final = frozenset(
    map(
        str,
        (
            uid.JPEGBaseline8Bit,
            uid.JPEGExtended12Bit,
            uid.JPEGLSNearLossless,
            uid.JPEG2000,
            uid.HTJ2K,
        ),
    )
)
_STREAMS: Final = tuple(
    f"1.2.840.10008.1.2.{ending}" for ending in ("4.94", "4.95", "4.10", "4.204", "4.205", "7")
)
"""MPEG2, MPEG-4, HEVC, JPIP, SMPTE ST 2110: frames are not apart, or elsewhere (PS3.5 8.2.5 ff.)."""

_GREY: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR: Final = ("RGB", "YBR_FULL")


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelAttributes:
    """The Image Pixel attributes, and the pixel data element they describe."""

    rows: int
    columns: int
    samples: int
    photometric_interpretation: str
    planar_configuration: int | None
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    frames: int
    pixel_data: Element

    @property
    def frame_samples(self) -> int:
        return self.rows * self.columns * self.samples

    @property
    def frame_bytes(self) -> int:
        """Of one native frame, not padded (PS3.5 8.1.1)."""
        return self.frame_samples * self.bits_allocated // 8

    @property
    def frame_format(self) -> FrameFormat:
        """As HTJ2K holds it: RGB always by the reversible colour transform."""
        return FrameFormat(
            rows=self.rows,
            columns=self.columns,
            samples=self.samples,
            bits_allocated=self.bits_allocated,
            bits_stored=self.bits_stored,
            is_signed=self.is_signed,
            colour_transform=self.photometric_interpretation in ("RGB", "YBR_RCT"),
        )


def read_attributes(file: DicomFile, elements: list[Element]) -> PixelAttributes:
    """Read what the header says, whether or not it makes sense for HTJ2K.

    Raises
    ------
    NotConvertibleError
        There is no pixel data, an attribute is missing or unreadable, or one comes twice.
    """
    found: dict[int, Element] = {}
    for element in elements:
        if element.tag in _WANTED:
            if element.tag in found:
                raise NotConvertibleError(PassReason.UNREADABLE, f"{element.tag:08X} comes twice")
            found[element.tag] = element
        elif element.tag in _FLOAT_PIXELS:
            raise NotConvertibleError(PassReason.FLOAT_PIXEL_DATA, f"{element.tag:08X}")
    if PIXEL_DATA not in found:
        raise NotConvertibleError(PassReason.NO_PIXEL_DATA, "no pixel data at the top level")
    read_short = struct.Struct(file.encoding.order + "H").unpack_from

    def short(tag: int) -> int:
        value = optional_short(tag)
        if value is None:
            raise _missing(tag)
        return value

    def optional_short(tag: int) -> int | None:
        element = found.get(tag)
        if element is None or element.length == 0:
            return None
        if element.length != 2:
            raise _missing(tag)
        value: int = read_short(file.dataset, element.value)[0]
        return value

    def text(tag: int) -> str:
        element = found.get(tag)
        if element is None:
            return ""
        return bytes(file.dataset[element.value : element.end]).decode("latin-1").strip(" \0")

    sign = short(_SIGN)
    attributes = PixelAttributes(
        rows=short(_ROWS),
        columns=short(_COLUMNS),
        samples=short(_SAMPLES),
        photometric_interpretation=text(PHOTOMETRIC_INTERPRETATION),
        planar_configuration=optional_short(PLANAR_CONFIGURATION),
        bits_allocated=short(_ALLOCATED),
        bits_stored=short(_STORED),
        high_bit=short(_HIGH_BIT),
        is_signed=sign == 1,
        frames=_frames(text(_FRAMES)),
        pixel_data=found[PIXEL_DATA],
    )
    if sign > 1 or not (attributes.rows and attributes.columns and attributes.samples):
        raise NotConvertibleError(PassReason.PIXEL_ATTRIBUTE_MISSING, "an impossible value")
    if not attributes.photometric_interpretation:
        raise _missing(PHOTOMETRIC_INTERPRETATION)
    return attributes


def refuse_ineligible(
    file: DicomFile, elements: list[Element], attributes: PixelAttributes, max_frame_bytes: int
) -> None:
    """Raise for what HTJ2K cannot hold. Eligibility was decided before; this guards the output."""
    for element in elements:
        if element.tag in _SIGNATURES:
            raise NotConvertibleError(PassReason.DIGITAL_SIGNATURE, f"{element.tag:08X}")
        if element.tag & 0xFF00FFFF == _OVERLAY_BITS_ALLOCATED and bytes(
            file.dataset[element.value : element.end]
        ) not in (b"", b"\1\0" if file.encoding.little else b"\0\1"):
            raise NotConvertibleError(
                PassReason.OVERLAY_IN_PIXEL_DATA, f"{element.tag:08X} is not 1"
            )
    allocated, stored = attributes.bits_allocated, attributes.bits_stored
    if allocated not in (8, 16):
        raise NotConvertibleError(PassReason.BITS_ALLOCATED, f"Bits Allocated {allocated}")
    if not 1 <= stored <= allocated:
        raise NotConvertibleError(PassReason.BITS_STORED, f"Bits Stored {stored} of {allocated}")
    if attributes.high_bit != stored - 1:
        raise NotConvertibleError(
            PassReason.HIGH_BIT, f"High Bit {attributes.high_bit}, Bits Stored {stored}"
        )
    photometric = attributes.photometric_interpretation
    colours = (*_COLOUR, "YBR_RCT") if file.transfer_syntax == uid.JPEG2000Lossless else _COLOUR
    if (attributes.samples, photometric) not in [(1, grey) for grey in _GREY] + [
        (3, colour) for colour in colours
    ]:
        raise NotConvertibleError(
            PassReason.PHOTOMETRIC_INTERPRETATION,
            f"{photometric[:16]!r} with {attributes.samples} samples",
        )
    if attributes.is_signed and (attributes.samples == 3 or photometric == "PALETTE COLOR"):
        raise NotConvertibleError(PassReason.SIGNED_COLOUR, photometric)
    if attributes.frame_bytes > max_frame_bytes:
        raise NotConvertibleError(
            PassReason.FRAME_TOO_LARGE, f"a frame of {attributes.frame_bytes} bytes"
        )


def refuse_transfer_syntax(transfer_syntax: str) -> None:
    """Raise unless the source is native or compressed without loss by something else than HTJ2K."""
    if transfer_syntax in NATIVE or transfer_syntax in LOSSLESS:
        return
    if transfer_syntax in HTJ2K_LOSSLESS or transfer_syntax == uid.HTJ2K:
        reason = PassReason.ALREADY_HTJ2K
    elif transfer_syntax in LOSSY:
        reason = PassReason.LOSSY_SOURCE
    elif transfer_syntax.startswith(_STREAMS):
        reason = PassReason.VIDEO_OR_REFERENCED
    else:
        reason = PassReason.UNKNOWN_TRANSFER_SYNTAX
    raise NotConvertibleError(reason, transfer_syntax[:64])


def _frames(text: str) -> int:
    if not text:
        return 1
    try:
        frames = int(text)
    except ValueError:
        frames = 0
    if frames < 1:
        raise NotConvertibleError(PassReason.FRAME_COUNT, "Number of Frames is no positive number")
    return frames


def _missing(tag: int) -> NotConvertibleError:
    return NotConvertibleError(
        PassReason.PIXEL_ATTRIBUTE_MISSING, f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    )
