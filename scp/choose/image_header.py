"""Reads the attributes that say how an instance's pixels are written (PS3.3 C.7.6.3)."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scp.elements import PIXEL_DATA, Buffer, Element
from scp.errors import MalformedError, TruncatedError
from scp.header import FileHeader, open_header

_SAMPLES_PER_PIXEL: Final = 0x00280002
_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
_PLANAR_CONFIGURATION: Final = 0x00280006
_NUMBER_OF_FRAMES: Final = 0x00280008
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS_ALLOCATED: Final = 0x00280100
_BITS_STORED: Final = 0x00280101
_HIGH_BIT: Final = 0x00280102
_PIXEL_REPRESENTATION: Final = 0x00280103
_MAC_PARAMETERS: Final = 0x4FFE0001
_DIGITAL_SIGNATURES: Final = 0xFFFAFFFA
_FLOAT_PIXEL_DATA: Final = 0x7FE00008
_DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009

_WANTED: Final = frozenset(
    (
        _SAMPLES_PER_PIXEL,
        _PHOTOMETRIC_INTERPRETATION,
        _PLANAR_CONFIGURATION,
        _NUMBER_OF_FRAMES,
        _ROWS,
        _COLUMNS,
        _BITS_ALLOCATED,
        _BITS_STORED,
        _HIGH_BIT,
        _PIXEL_REPRESENTATION,
        _MAC_PARAMETERS,
        _DIGITAL_SIGNATURES,
        _FLOAT_PIXEL_DATA,
        _DOUBLE_FLOAT_PIXEL_DATA,
        PIXEL_DATA,
    )
)
_OVERLAY_ROWS: Final = 0x0010
_OVERLAY_COLUMNS: Final = 0x0011
_OVERLAY_BITS_ALLOCATED: Final = 0x0100
_OVERLAY_BIT_POSITION: Final = 0x0102
_OVERLAY_DATA: Final = 0x3000
_OVERLAY_ELEMENTS: Final = frozenset(
    (
        _OVERLAY_ROWS,
        _OVERLAY_COLUMNS,
        _OVERLAY_BITS_ALLOCATED,
        _OVERLAY_BIT_POSITION,
        _OVERLAY_DATA,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One overlay plane, a group 60xx (PS3.3 C.9.2)."""

    group: int
    has_data: bool
    bits_allocated: int | None
    bit_position: int | None

    @property
    def is_in_pixel_data(self) -> bool:
        """Whether its bits lie, or may lie, in the unused bits of the pixel data (retired)."""
        return not (
            self.has_data and self.bits_allocated in (None, 1) and self.bit_position in (None, 0)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """How the pixels of one instance are written, as its header says.

    None stands for an attribute that is absent, empty, or of another type than the standard's.
    """

    transfer_syntax: str = ""
    fault: str = ""
    """Why the file cannot be read; everything else is then as if absent."""
    samples_per_pixel: int | None = None
    photometric_interpretation: str = ""
    planar_configuration: int | None = None
    number_of_frames: int | None = 1
    """1 where the attribute is absent or empty; None where it is no number."""
    rows: int | None = None
    columns: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    high_bit: int | None = None
    pixel_representation: int | None = None
    has_pixel_data: bool = False
    has_float_pixel_data: bool = False
    """Float or Double Float Pixel Data."""
    has_signature: bool = False
    """Digital Signatures or MAC Parameters Sequence (PS3.3 C.12.1.1.3)."""
    overlays: tuple[Overlay, ...] = ()

    @property
    def native_bytes(self) -> int:
        """Of the uncompressed pixels; 0 where the header does not say enough."""
        bits = (self.bits_allocated or 0) * (self.samples_per_pixel or 0)
        pixels = (self.rows or 0) * (self.columns or 0) * (self.number_of_frames or 0)
        return (bits * pixels + 7) // 8


def read_image_header(source: Path | Buffer) -> ImageHeader:
    """Read it from a DICOM file, or from the bytes of one; any content has an answer."""
    try:
        with open_header(source) as header:
            return _Reading(header).run()
    except (MalformedError, TruncatedError) as error:
        return ImageHeader(fault=str(error))


class _Reading:
    def __init__(self, header: FileHeader) -> None:
        self._header = header
        self._found: dict[int, Element] = {}
        self._overlays: dict[int, dict[int, Element]] = {}

    def run(self) -> ImageHeader:
        for element in self._header.elements():
            tag = element.tag
            if tag in _WANTED:
                self._keep(self._found, tag, element)
            elif 0x60000000 <= tag < 0x61000000 and not tag & 0x00010000:
                number = tag & 0xFFFF
                if number in _OVERLAY_ELEMENTS:
                    self._keep(self._overlays.setdefault(tag >> 16, {}), number, element)
        found = self._found
        return ImageHeader(
            transfer_syntax=self._header.transfer_syntax,
            samples_per_pixel=self._number(_SAMPLES_PER_PIXEL),
            photometric_interpretation=self._text(_PHOTOMETRIC_INTERPRETATION),
            planar_configuration=self._number(_PLANAR_CONFIGURATION),
            number_of_frames=self._frames(),
            rows=self._number(_ROWS),
            columns=self._number(_COLUMNS),
            bits_allocated=self._number(_BITS_ALLOCATED),
            bits_stored=self._number(_BITS_STORED),
            high_bit=self._number(_HIGH_BIT),
            pixel_representation=self._number(_PIXEL_REPRESENTATION),
            has_pixel_data=PIXEL_DATA in found,
            has_float_pixel_data=_FLOAT_PIXEL_DATA in found or _DOUBLE_FLOAT_PIXEL_DATA in found,
            has_signature=_MAC_PARAMETERS in found or _DIGITAL_SIGNATURES in found,
            overlays=tuple(
                Overlay(
                    group=group,
                    has_data=_OVERLAY_DATA in elements,
                    bits_allocated=self._unsigned(elements.get(_OVERLAY_BITS_ALLOCATED)),
                    bit_position=self._unsigned(elements.get(_OVERLAY_BIT_POSITION)),
                )
                for group, elements in self._overlays.items()
            ),
        )

    @staticmethod
    def _keep(found: dict[int, Element], key: int, element: Element) -> None:
        if key in found:
            # Readers differ in which of the two they believe.
            tag = f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
            raise MalformedError(f"the dataset has {tag} twice")
        found[key] = element

    def _number(self, tag: int) -> int | None:
        return self._unsigned(self._found.get(tag))

    def _unsigned(self, element: Element | None) -> int | None:
        if element is None or element.length != 2 or element.vr not in (b"", b"US", b"UN"):
            return None
        raw = self._header.value(element)
        number: int = struct.unpack(self._header.encoding.order + "H", raw)[0]
        return number

    def _text(self, tag: int) -> str:
        element = self._found.get(tag)
        if element is None or element.is_undefined_length:
            return ""
        return self._header.value(element, 64).decode("latin-1").strip(" \0")

    def _frames(self) -> int | None:
        text = self._text(_NUMBER_OF_FRAMES)
        if not text:
            return 1
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None
