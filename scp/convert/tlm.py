"""Adds the tile-part lengths (TLM) that 1.2.840.10008.1.2.4.202 demands and nvJPEG2000 does not write.

An edit of the main header alone (ISO/IEC 15444-1 A.7.1): no byte of a tile-part changes, and no length in
one counts from the beginning of the codestream.
"""

import struct
from typing import Final

from scp.convert.codestream import TilePart, parse_codestream
from scp.elements import Buffer
from scp.errors import CodecError

_TLM: Final = 0xFF55
_SOT: Final = 0xFF90
_FOUR_BYTE_LENGTHS: Final = 0x40
_ONE_BYTE_INDICES: Final = 0x10
_TWO_BYTE_INDICES: Final = 0x20
_LONGEST_SEGMENT: Final = 0xFFFF
_MOST_SEGMENTS: Final = 256


def with_tlm(codestream: Buffer) -> bytes:
    """The codestream with one TLM entry for each of its tile-parts; unchanged where it has TLM already.

    Bytes after EOC are dropped.

    Raises
    ------
    CodecError
        It is no whole codestream, or has more tile-parts than TLM can list.
    """
    parsed = parse_codestream(codestream)
    data = bytes(codestream)
    if parsed.tlm:
        return data
    first = _first_tile_part(data)
    end = first + sum(part.length for part in parsed.tile_parts) + 2
    return b"".join((data[:first], _segments(parsed.tile_parts), data[first:end]))


def _first_tile_part(data: bytes) -> int:
    """Where the first SOT is; the codestream was parsed before."""
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SOT:
            return position
        position += 2 + length


def _segments(parts: tuple[TilePart, ...]) -> bytes:
    is_short = all(part.tile < 256 for part in parts)
    entry = struct.Struct(">BL" if is_short else ">HL")
    sizes = _FOUR_BYTE_LENGTHS | (_ONE_BYTE_INDICES if is_short else _TWO_BYTE_INDICES)
    in_segment = (_LONGEST_SEGMENT - 4) // entry.size
    segments = []
    for index, start in enumerate(range(0, len(parts), in_segment)):
        if index == _MOST_SEGMENTS:
            raise CodecError(f"{len(parts)} tile-parts are more than TLM can list")
        entries = b"".join(entry.pack(p.tile, p.length) for p in parts[start : start + in_segment])
        segments.append(struct.pack(">HHBB", _TLM, 4 + len(entries), index, sizes) + entries)
    return b"".join(segments)
