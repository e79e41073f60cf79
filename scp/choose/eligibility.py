"""What DICOM allows to be transcoded to HTJ2K: one table, and the reason for each refusal.

In doubt the original is delivered as it came. Rows without a test are found out later, from the
pixels or while working on them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scp.choose.image_header import ImageHeader
from scp.model import PassReason

_JPEG: Final = "1.2.840.10008.1.2.4."

HTJ2K_LOSSLESS_SYNTAXES: Final = frozenset((_JPEG + "201", _JPEG + "202"))
HTJ2K_SYNTAXES: Final = HTJ2K_LOSSLESS_SYNTAXES | {_JPEG + "203"}
"""The last, like JPEG 2000's .91, may be lossless; it is left alone like one that is not."""

LOSSY_SYNTAXES: Final = frozenset(
    (
        *(f"{_JPEG}{number}" for number in range(50, 57)),  # JPEG baseline to full progression
        *(f"{_JPEG}{number}" for number in range(59, 65)),  # JPEG hierarchical, retired
        _JPEG + "81",  # JPEG-LS near-lossless
        _JPEG + "91",  # JPEG 2000
        _JPEG + "93",  # JPEG 2000 multi-component
        _JPEG + "111",  # JPEG XL from JPEG
        _JPEG + "112",  # JPEG XL
    )
)
REFERENCED_SYNTAXES: Final = frozenset(_JPEG + number for number in ("94", "95", "204", "205"))
"""JPIP: the pixels lie on another server."""

VIDEO_SYNTAXES: Final = frozenset(
    (
        *(f"{_JPEG}{number}" for number in range(100, 109)),  # MPEG-2, MPEG-4 AVC, HEVC
        *(f"{_JPEG}{number}.1" for number in range(100, 107)),  # fragmentable
        *(f"1.2.840.10008.1.2.7.{number}" for number in (1, 2, 3)),  # SMPTE ST 2110
    )
)
NATIVE_SYNTAXES: Final = frozenset(
    (
        "1.2.840.10008.1.2",  # Implicit VR Little Endian
        "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
        "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    )
)
JPEG_2000_LOSSLESS: Final = _JPEG + "90"
LOSSLESS_SYNTAXES: Final = frozenset(
    (
        "1.2.840.10008.1.2.5",  # RLE
        _JPEG + "57",  # JPEG Lossless
        _JPEG + "70",  # JPEG Lossless, selection value 1
        _JPEG + "80",  # JPEG-LS
        JPEG_2000_LOSSLESS,
    )
)
"""Compressed, and there is a decoder for them."""

_ONE_SAMPLE: Final = frozenset(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"))
_THREE_SAMPLES: Final = frozenset(("RGB", "YBR_FULL"))
_TERMS: Final = frozenset(
    (
        *_ONE_SAMPLE,
        *_THREE_SAMPLES,
        *("YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB"),
        *("HSV", "ARGB", "CMYK"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an instance is not transcoded."""

    reason: PassReason
    detail: str
    """A sentence for a person, without patient data."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    reason: PassReason
    explanation: str
    """For a person."""
    found_in: Callable[[ImageHeader], str | None] | None = None
    """What of the header it is, in words, where it applies; None: the header does not tell."""


def ineligible(
    header: ImageHeader, *, max_native_bytes: int | None = None, is_for_volume: bool = False
) -> Refusal | None:
    """The first reason in the table that the header gives not to transcode an instance.

    Parameters
    ----------
    header
        Of the instance.
    max_native_bytes
        ``codec.max_instance_bytes``; None: there is no limit.
    is_for_volume
        Whether it may become a frame of a volume, as it does without being encoded again where it is
        HTJ2K already.
    """
    is_frame = is_for_volume and is_received_frame(header)
    for row in TABLE:
        if is_frame and row.reason is PassReason.ALREADY_HTJ2K:
            continue
        found = row.found_in(header) if row.found_in else None
        if found is not None:
            detail = f"{row.explanation} ({found})" if found else row.explanation
            return Refusal(reason=row.reason, detail=detail)
    if max_native_bytes is not None and header.native_bytes > max_native_bytes:
        detail = f"{EXPLANATIONS[PassReason.FRAME_TOO_LARGE]} ({header.native_bytes} bytes)"
        return Refusal(reason=PassReason.FRAME_TOO_LARGE, detail=detail)
    return None


def is_received_frame(header: ImageHeader) -> bool:
    """Whether it came as HTJ2K without loss, and as one grey frame."""
    is_one = (header.number_of_frames, header.samples_per_pixel) == (1, 1)
    return is_one and header.transfer_syntax in HTJ2K_LOSSLESS_SYNTAXES


def _unreadable(header: ImageHeader) -> str | None:
    return header.fault or None


def _no_pixel_data(header: ImageHeader) -> str | None:
    is_elsewhere = header.transfer_syntax in REFERENCED_SYNTAXES
    has_any = header.has_pixel_data or header.has_float_pixel_data or is_elsewhere
    return None if has_any else ""


def _float_pixel_data(header: ImageHeader) -> str | None:
    return "" if header.has_float_pixel_data else None


def _already_htj2k(header: ImageHeader) -> str | None:
    return _syntax_in(header, HTJ2K_SYNTAXES)


def _lossy_source(header: ImageHeader) -> str | None:
    return _syntax_in(header, LOSSY_SYNTAXES)


def _video_or_referenced(header: ImageHeader) -> str | None:
    return _syntax_in(header, VIDEO_SYNTAXES | REFERENCED_SYNTAXES)


def _unknown_transfer_syntax(header: ImageHeader) -> str | None:
    is_known = header.transfer_syntax in NATIVE_SYNTAXES | LOSSLESS_SYNTAXES | HTJ2K_SYNTAXES
    return None if is_known else header.transfer_syntax


def _digital_signature(header: ImageHeader) -> str | None:
    return "" if header.has_signature else None


def _pixel_attribute_missing(header: ImageHeader) -> str | None:
    is_planar_needed = header.samples_per_pixel == 3 and header.transfer_syntax in NATIVE_SYNTAXES
    usable = {
        "Samples per Pixel": header.samples_per_pixel in (1, 3),
        "Photometric Interpretation": bool(header.photometric_interpretation),
        "Planar Configuration": header.planar_configuration in (0, 1) or not is_planar_needed,
        "Rows": bool(header.rows),
        "Columns": bool(header.columns),
        "Bits Allocated": header.bits_allocated is not None,
        "Bits Stored": header.bits_stored is not None,
        "High Bit": header.high_bit is not None,
        "Pixel Representation": header.pixel_representation in (0, 1),
    }
    return ", ".join(name for name, is_usable in usable.items() if not is_usable) or None


def _bits_allocated(header: ImageHeader) -> str | None:
    return None if header.bits_allocated in (8, 16) else str(header.bits_allocated)


def _bits_stored(header: ImageHeader) -> str | None:
    stored, allocated = header.bits_stored or 0, header.bits_allocated or 0
    return None if 1 <= stored <= allocated else f"{stored} of {allocated}"


def _high_bit(header: ImageHeader) -> str | None:
    is_top = header.high_bit == (header.bits_stored or 0) - 1
    return None if is_top else f"High Bit {header.high_bit}, Bits Stored {header.bits_stored}"


def _signed_colour(header: ImageHeader) -> str | None:
    is_grey = header.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2")
    is_signed = header.pixel_representation == 1
    return "" if is_signed and not is_grey else None


def _photometric_interpretation(header: ImageHeader) -> str | None:
    allowed = _ONE_SAMPLE if header.samples_per_pixel == 1 else _THREE_SAMPLES
    if header.samples_per_pixel == 3 and header.transfer_syntax == JPEG_2000_LOSSLESS:
        allowed = allowed | {"YBR_RCT"}
    if header.photometric_interpretation in allowed:
        return None
    # What else a sender wrote there could be anything, and need not go into logs.
    is_term = header.photometric_interpretation in _TERMS
    name = header.photometric_interpretation if is_term else "an unknown one"
    return f"{name} with {header.samples_per_pixel} samples"


def _overlay_in_pixel_data(header: ImageHeader) -> str | None:
    groups = [f"{one.group:04X}" for one in header.overlays if one.is_in_pixel_data]
    return f"group {', '.join(groups)}" if groups else None


def _frame_count(header: ImageHeader) -> str | None:
    return None if header.number_of_frames else ""


def _syntax_in(header: ImageHeader, syntaxes: frozenset[str]) -> str | None:
    return header.transfer_syntax if header.transfer_syntax in syntaxes else None


TABLE: Final = (
    Row(
        PassReason.RULE_SAYS_ORIGINAL,
        "The rule that matched asks for the original.",
    ),
    Row(
        PassReason.UNREADABLE,
        "The file cannot be read as DICOM elements up to its end.",
        _unreadable,
    ),
    Row(
        PassReason.NO_PIXEL_DATA,
        "There is no pixel data, and only with it a compressed syntax may be used (PS3.5 A.4).",
        _no_pixel_data,
    ),
    Row(
        PassReason.FLOAT_PIXEL_DATA,
        "Floating point pixels cannot be compressed (PS3.5 A.4, 8.2).",
        _float_pixel_data,
    ),
    Row(
        PassReason.ALREADY_HTJ2K,
        "It is HTJ2K already (PS3.5 A.4.4).",
        _already_htj2k,
    ),
    Row(
        PassReason.LOSSY_SOURCE,
        "The pixels went through lossy compression: what a decoder makes of them would be a"
        " derived image, and larger (PS3.3 C.7.6.1.1.2).",
        _lossy_source,
    ),
    Row(
        PassReason.VIDEO_OR_REFERENCED,
        "A video stream spans its frames, a reference has none (PS3.5 8.2.5, 8.4, A.6).",
        _video_or_referenced,
    ),
    Row(
        PassReason.UNKNOWN_TRANSFER_SYNTAX,
        "There is no decoder for the transfer syntax.",
        _unknown_transfer_syntax,
    ),
    Row(
        PassReason.DIGITAL_SIGNATURE,
        "A digital signature over the pixel data would no longer hold (PS3.15 C).",
        _digital_signature,
    ),
    Row(
        PassReason.PIXEL_ATTRIBUTE_MISSING,
        "An attribute that describes the pixels is missing or impossible (PS3.3 C.7.6.3).",
        _pixel_attribute_missing,
    ),
    Row(
        PassReason.BITS_ALLOCATED,
        "Only 8 and 16 Bits Allocated are transcoded: 1 is not allowed in HTJ2K, more than 16 few"
        " decoders read (PS3.5 table 8.2.14-1).",
        _bits_allocated,
    ),
    Row(
        PassReason.BITS_STORED,
        "Bits Stored does not fit into Bits Allocated (PS3.5 8.1.1).",
        _bits_stored,
    ),
    Row(
        PassReason.HIGH_BIT,
        "High Bit is not Bits Stored - 1, which HTJ2K cannot express (PS3.5 8.1.1).",
        _high_bit,
    ),
    Row(
        PassReason.SIGNED_COLOUR,
        "Colour and palette pixels must be unsigned (PS3.5 table 8.2.14-1).",
        _signed_colour,
    ),
    Row(
        PassReason.PHOTOMETRIC_INTERPRETATION,
        "HTJ2K has no such photometric interpretation, or this form of it (PS3.5 table 8.2.14-1).",
        _photometric_interpretation,
    ),
    Row(
        PassReason.OVERLAY_IN_PIXEL_DATA,
        "An overlay lies in unused bits of the pixel data and would be lost (PS3.5 8.1.2).",
        _overlay_in_pixel_data,
    ),
    Row(
        PassReason.UNUSED_BITS_SET,
        "Bits above Bits Stored are set, and decoders would show other values (PS3.5 8.1.1).",
    ),
    Row(
        PassReason.PIXEL_DATA_SHORT,
        "There is less pixel data than the header says (PS3.5 8.1.1).",
    ),
    Row(
        PassReason.FRAME_COUNT,
        "Number of Frames is no positive number, or not that of the frames found (PS3.3 C.7.6.6).",
        _frame_count,
    ),
    Row(
        PassReason.FRAME_TOO_LARGE,
        "The instance is larger than is converted here.",
    ),
    Row(
        PassReason.CODESTREAM_MISMATCH,
        "A compressed frame says something else about itself than the header (PS3.5 8.2).",
    ),
    Row(PassReason.DECODER_FAILED, "A compressed frame could not be decoded."),
    Row(PassReason.ENCODER_FAILED, "A frame could not be encoded."),
    Row(
        PassReason.HEADER_NOT_EXPRESSIBLE,
        "The header cannot be written as Explicit VR Little Endian without loss (PS3.5 A.4).",
    ),
    Row(PassReason.VERIFY_MISMATCH, "The result did not decode to the pixels of the source."),
    Row(PassReason.WORKER_LOST, "Two worker processes died or hung while converting it."),
    Row(PassReason.DEADLINE, "The conversion took longer than it may."),
    Row(PassReason.NO_ROOM, "There was no room on the disk for the result."),
    Row(PassReason.RESULT_LOST, "The disk lost the result after its commit."),
)

EXPLANATIONS: Final = {row.reason: row.explanation for row in TABLE}
