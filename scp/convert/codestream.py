"""Reads the headers of JPEG 2000 codestreams (ISO/IEC 15444-1 Annex A, 15444-15) and judges them.

The label of a transfer syntax is a promise about every codestream inside. This parser, not the encoder's
word, decides which promise is kept.
"""

import struct
from dataclasses import dataclass
from typing import Final

from scp.convert.ports import FrameFormat
from scp.elements import Buffer
from scp.errors import CodecError

SOC: Final = 0xFF4F
EOC: Final = 0xFFD9
BASE_RESOLUTION: Final = 64
"""The largest width and height of the base resolution (PS3.5 10.18.1)."""

_CAP, _SIZ, _COD, _COC, _TLM, _QCD, _QCC, _RGN, _POC, _SOT, _SOD = (
    0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF90, 0xFF93,
)  # fmt: skip
_OVERRIDES: Final = frozenset((_COC, _QCC, _RGN, _POC))
_PROGRESSIONS: Final = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")
_MAX_TILE_PARTS: Final = 1 << 17
_PCAP_PART_15: Final = 1 << 17
_HT_ONLY: Final = 0x40
_HT_MIXED: Final = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePart:
    """One SOT marker segment and how long its tile-part really is."""

    tile: int
    length: int
    """Bytes from the SOT marker to the end of the tile-part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """What the headers of one codestream say."""

    columns: int
    rows: int
    components: int
    precision: int
    is_signed: bool
    is_subsampled: bool
    tiles: int
    progression: str
    layers: int
    decompositions: int
    code_block: tuple[int, int]
    """Width, height."""
    colour_transform: bool
    """Multiple component transform (MCT) of SGcod."""
    is_reversible: bool
    """5/3 wavelet and no quantisation."""
    is_ht: bool
    """High-throughput block coding throughout (15444-15)."""
    has_overrides: bool
    """A component or tile deviates from what is said here (COC, QCC, RGN, POC, a tile's COD or QCD)."""
    tile_parts: tuple[TilePart, ...]
    """Empty when only the main header was read."""
    tlm: tuple[TilePart, ...]
    """What the TLM marker segments promise; empty without any."""


def parse_codestream(data: Buffer, *, main_header_only: bool = False) -> Codestream:
    """Read the main header and, unless told otherwise, every tile-part header up to EOC.

    Raises
    ------
    CodecError
        The bytes are no codestream, are cut, or its components differ in precision or sign.
    """
    try:
        return _Parser(memoryview(data)).parse(main_header_only)
    except (struct.error, IndexError) as error:
        raise CodecError(f"the codestream is cut: {error}") from error


def why_not_lossless(codestream: Codestream, frame_format: FrameFormat) -> str:
    """Why 1.2.840.10008.1.2.4.201 would be a false label (PS3.5 A.4.4, 8.2.14); empty when it is true."""
    checks = (
        (codestream.is_ht, "not HT coded"),
        (codestream.is_reversible, "not reversible"),
        (codestream.columns == frame_format.columns, "width differs"),
        (codestream.rows == frame_format.rows, "height differs"),
        (codestream.components == frame_format.samples, "number of components differs"),
        (not codestream.is_subsampled, "components are subsampled"),
        (codestream.is_signed == frame_format.is_signed, "sign differs"),
        (
            frame_format.bits_stored <= codestream.precision <= frame_format.bits_allocated,
            "precision contradicts Bits Stored",
        ),
        (
            codestream.colour_transform == frame_format.colour_transform,
            "colour transform contradicts Photometric Interpretation",
        ),
    )
    return next((why for holds, why in checks if not holds), "")


def why_not_rpcl(codestream: Codestream, frame_format: FrameFormat) -> str:
    """Why 1.2.840.10008.1.2.4.202 would be a false label (PS3.5 10.18.1); empty when it is true."""
    scale = 1 << codestream.decompositions
    checks = (
        (codestream.precision == frame_format.bits_stored, "precision is not Bits Stored"),
        (codestream.progression == "RPCL", "progression order is not RPCL"),
        (not codestream.has_overrides, "a component or tile deviates from the main header"),
        (codestream.tiles == 1, "more than one tile"),
        (codestream.columns <= BASE_RESOLUTION * scale, "base resolution too wide"),
        (codestream.rows <= BASE_RESOLUTION * scale, "base resolution too high"),
        (bool(codestream.tlm), "no TLM"),
        (codestream.tlm == codestream.tile_parts, "TLM contradicts the tile-parts"),
    )
    return why_not_lossless(codestream, frame_format) or next(
        (why for holds, why in checks if not holds), ""
    )


def earns_rpcl(codestream: Codestream, frame_format: FrameFormat) -> bool:
    """Whether the frame may be labelled 1.2.840.10008.1.2.4.202."""
    return not why_not_rpcl(codestream, frame_format)


def decompositions_for(rows: int, columns: int) -> int:
    """The least number of decompositions that brings the base resolution to 64 both ways."""
    return max(0, (max(rows, columns) - 1).bit_length() - BASE_RESOLUTION.bit_length() + 1)


class _Parser:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._size = len(data)
        self._siz: tuple[int, ...] = ()
        self._precision = 0
        self._is_signed = False
        self._is_subsampled = False
        self._has_cap = False
        self._cod: tuple[int, ...] = ()
        self._quantisation = -1
        self._tlm: dict[int, tuple[TilePart, ...]] = {}
        self._has_overrides = False

    def parse(self, main_header_only: bool) -> Codestream:
        if self._marker(0) != SOC:
            raise CodecError("no codestream: it does not begin with SOC")
        position = self._main_header(2)
        if not (self._siz and self._cod and self._quantisation >= 0):
            raise CodecError("SIZ, COD or QCD is missing")
        tile_parts = () if main_header_only else self._tile_parts(position)
        return self._result(tile_parts)

    def _result(self, tile_parts: tuple[TilePart, ...]) -> Codestream:
        rsiz, x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = self._siz
        _, progression, layers, mct, levels, width, height, style, wavelet = self._cod
        return Codestream(
            columns=x - x0,
            rows=y - y0,
            components=components,
            precision=self._precision,
            is_signed=self._is_signed,
            is_subsampled=self._is_subsampled,
            tiles=-(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y),
            progression=_PROGRESSIONS[progression],
            layers=layers,
            decompositions=levels,
            code_block=(4 << width, 4 << height),
            colour_transform=bool(mct),
            is_reversible=wavelet == 1 and self._quantisation == 0,
            is_ht=bool(rsiz & 0x4000)
            and self._has_cap
            and style & (_HT_ONLY | _HT_MIXED) == _HT_ONLY,
            has_overrides=self._has_overrides,
            tile_parts=tile_parts,
            tlm=tuple(part for index in sorted(self._tlm) for part in self._tlm[index]),
        )

    def _marker(self, position: int) -> int:
        marker: int = struct.unpack_from(">H", self._data, position)[0]
        return marker

    def _segment(self, position: int) -> tuple[int, memoryview, int]:
        """The marker, the segment's content and the position after it."""
        marker, length = struct.unpack_from(">HH", self._data, position)
        end = position + 2 + length
        if marker < 0xFF30 or length < 2 or end > self._size:
            raise CodecError(f"{marker:04X} is no marker segment at byte {position}")
        return marker, self._data[position + 4 : end], end

    def _main_header(self, position: int) -> int:
        first = True
        while self._marker(position) != _SOT:
            marker, content, position = self._segment(position)
            if first and marker != _SIZ:
                raise CodecError("SIZ does not come first")
            first = False
            if marker == _SIZ:
                self._read_siz(content)
            elif marker == _CAP:
                self._has_cap = bool(struct.unpack_from(">L", content)[0] & _PCAP_PART_15)
            elif marker == _COD:
                self._read_cod(content)
            elif marker == _QCD:
                self._quantisation = content[0] & 0x1F
            elif marker == _TLM:
                self._read_tlm(content)
            elif marker in _OVERRIDES:
                self._has_overrides = True
            elif marker in (_SOD, EOC):
                raise CodecError(f"{marker:04X} in the main header")
        return position

    def _read_siz(self, content: memoryview) -> None:
        if self._siz:
            raise CodecError("two SIZ")
        siz = struct.unpack_from(">H8LH", content)
        _, x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = siz
        if not (x > x0 and y > y0 and tile_x and tile_y and tile_x0 <= x0 and tile_y0 <= y0):
            raise CodecError("SIZ gives an impossible image or tile size")
        if not components or len(content) != 36 + 3 * components:
            raise CodecError("SIZ gives an impossible number of components")
        each = {bytes(content[at : at + 3]) for at in range(36, len(content), 3)}
        if len({depth for depth, _, _ in each}) != 1:
            raise CodecError("components differ in precision or sign")
        depth = next(iter(each))[0]
        self._precision = (depth & 0x7F) + 1
        self._is_signed = bool(depth & 0x80)
        self._is_subsampled = any(step[1:] != b"\1\1" for step in each)
        self._siz = siz

    def _read_cod(self, content: memoryview) -> None:
        if self._cod:
            raise CodecError("two COD")
        cod = struct.unpack_from(">BBHBBBBBB", content)
        if cod[1] >= len(_PROGRESSIONS) or cod[4] > 32 or cod[5] > 8 or cod[6] > 8:
            raise CodecError("COD gives an impossible value")
        self._cod = cod

    def _read_tlm(self, content: memoryview) -> None:
        index, sizes = struct.unpack_from(">BB", content)
        tile_format = ("", "B", "H")[(sizes >> 4) & 3]
        entry = struct.Struct(">" + tile_format + ("L" if sizes & 0x40 else "H"))
        if index in self._tlm or (len(content) - 2) % entry.size:
            raise CodecError("TLM is malformed")
        entries = list(entry.iter_unpack(content[2:]))
        self._tlm[index] = tuple(
            TilePart(tile=values[0] if tile_format else number, length=values[-1])
            for number, values in enumerate(entries)
        )

    def _tile_parts(self, position: int) -> tuple[TilePart, ...]:
        parts: list[TilePart] = []
        while (marker := self._marker(position)) == _SOT:
            length, tile, psot = struct.unpack_from(">HHL", self._data, position + 2)
            # Psot 0: the tile-part reaches to EOC, and the frame may be padded (PS3.5 A.4).
            end = position + psot if psot else self._last_eoc()
            if length != 10 or end <= position + 12 or end + 2 > self._size:
                raise CodecError("a tile-part has an impossible length")
            if len(parts) == _MAX_TILE_PARTS:
                raise CodecError("too many tile-parts")
            self._tile_part_header(position + 12, end)
            parts.append(TilePart(tile=tile, length=end - position))
            position = end
        if marker != EOC:
            raise CodecError(f"{marker:04X} where a tile-part or EOC should be")
        if any(self._data[position + 2 :]):
            raise CodecError("bytes after EOC that are no padding")
        return tuple(parts)

    def _last_eoc(self) -> int:
        return bytes(self._data[-4:]).rfind(b"\xff\xd9") + self._size - min(4, self._size)

    def _tile_part_header(self, position: int, end: int) -> None:
        while self._marker(position) != _SOD:
            marker, _, position = self._segment(position)
            if position >= end:
                raise CodecError("a tile-part's header is longer than the tile-part")
            if marker in _OVERRIDES or marker in (_COD, _QCD):
                self._has_overrides = True
