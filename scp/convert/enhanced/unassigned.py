"""What has no place of its own in the object is kept as it was written (PS3.3 C.7.6.16.2.25)."""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from scp.convert.enhanced.slices import SliceHeader
from scp.convert.recode import element_header

SHARED: Final = 0x00209170
PER_FRAME: Final = 0x00209171

_REWRITTEN: Final = frozenset(
    (
        0x00080008,  # Image Type, shortened to four values and PRIMARY
        0x0008103E,  # Series Description
        0x00080022, 0x00080032, 0x0008002A,  # acquisition date and time
        0x00180015,  # Body Part Examined, which becomes a code
        0x00180085,  # Imaged Nucleus
        0x00181242, 0x00189073,  # durations
        0x00201002, 0x00540081,  # numbers of images
        0x00180088,  # Spacing Between Slices, which is measured along the normal instead
        0x00209056, 0x00209057, 0x00209128, 0x00209157,  # where a frame is in stack, time, dimensions
        0x00280106, 0x00280107,  # smallest and largest pixel value of the image
        0x00204000,  # Image Comments, whose character set may be another than it says
        0x00282112,  # Lossy Image Compression Ratio
    )
)  # fmt: skip
"""highdicom has a place for these, but not for all of what they say."""
_NUMBER_OF_FRAMES: Final = 0x00280008


def unassigned(headers: Sequence[SliceHeader], tags: Iterable[int]) -> tuple[bytes, list[bytes]]:
    """The sequence for the shared functional groups, and one for each frame; empty where it would be.

    highdicom drops elements that no dictionary knows, private creators without elements, and what it has
    rewritten (Image Type, descriptions, times).

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.

    Parameters
    ----------
    tags
        For which highdicom has no place.
    """
    present = {tag for header in headers for tag in header.elements}
    homeless = {tag for header in headers for tag in without_creator(header)}
    wanted = sorted(present & (set(tags) | _REWRITTEN) - {_NUMBER_OF_FRAMES} - homeless)
    first = headers[0].elements
    # Equal elements of a series are one object, so comparing all of them costs little.
    shared = [
        tag
        for tag in wanted
        if tag in first and all(header.elements.get(tag) == first[tag] for header in headers)
    ]
    varying = sorted(set(wanted) - set(shared))
    return (
        _sequence(SHARED, headers[0], shared),
        [_sequence(PER_FRAME, header, varying) for header in headers],
    )


def without_creator(header: SliceHeader) -> set[int]:
    """Private elements that belong to no block (PS3.5 7.8.1); no dataset may hold them."""
    return {
        tag
        for tag in header.elements
        if tag >> 16 & 1
        and (
            not header.text(_creator_of(tag))
            if tag & 0xFFFF >= 0x1000
            else not 0x10 <= tag & 0xFFFF <= 0xFF or not header.text(tag)
        )
    }


def _sequence(tag: int, header: SliceHeader, tags: list[int]) -> bytes:
    """A sequence of one item; without anything to say of a frame, the item is empty."""
    if not tags:
        return b""
    here = [tag for tag in tags if tag in header.elements]
    creators = {creator for tag in here if (creator := _creator_of(tag)) in header.elements}
    content = b"".join(header.elements[tag] for tag in sorted({*here, *creators}))
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content
    return element_header(tag, b"SQ", len(item)) + item


def _creator_of(tag: int) -> int:
    """The Private Creator that reserves the block of a private element (PS3.5 7.8.1), else 0."""
    if not tag >> 16 & 1 or tag & 0xFFFF < 0x1000:
        return 0
    return tag & 0xFFFF0000 | tag >> 8 & 0xFF
