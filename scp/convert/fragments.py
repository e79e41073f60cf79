"""Which fragments make up which frame of encapsulated pixel data (PS3.5 A.4)."""

import struct
from collections.abc import Sequence

from scp.convert.refusals import NotConvertibleError
from scp.elements import Buffer, Element, Encoding, items_of
from scp.errors import MalformedError, TruncatedError
from scp.model import PassReason

type Span = tuple[int, int]
"""First byte, and the first byte after the last."""

_END_MARKER = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000


def spans_of_frames(
    dataset: Buffer,
    encoding: Encoding,
    pixel_data: Element,
    extended_offsets: bytes,
    frames: int,
) -> list[list[Span]]:
    """The fragments of each frame, in order.

    Parameters
    ----------
    extended_offsets
        The value of (7FE0,0001), empty without one.

    Raises
    ------
    NotConvertibleError
        The fragments cannot be told apart, or not into ``frames`` (``frame_count``).
    """
    try:
        items = list(items_of(dataset, encoding, pixel_data))
    except (MalformedError, TruncatedError) as error:
        raise NotConvertibleError(PassReason.UNREADABLE, f"fragments: {error}") from error
    if len(items) < 2:
        raise NotConvertibleError(PassReason.FRAME_COUNT, "no fragments")
    (table_start, table_end), fragments = items[0], items[1:]
    basic = dataset[table_start:table_end]
    table, letter = (basic, "L") if len(basic) else (extended_offsets, "Q")
    offsets = _unpacked(table, letter, frames)
    if offsets:
        groups = _by_offsets(fragments, offsets)
    elif frames == 1:
        groups = [fragments]
    elif frames == len(fragments):
        groups = [[fragment] for fragment in fragments]
    else:
        groups = _by_end_markers(dataset, fragments)
    if len(groups) != frames:
        raise NotConvertibleError(
            PassReason.FRAME_COUNT, f"{len(groups)} frames, {frames} announced"
        )
    return groups


def _unpacked(table: Buffer, letter: str, frames: int) -> tuple[int, ...]:
    # Looked at only where it has an entry for each frame, so that none is larger than it may be.
    if len(table) not in (0, struct.calcsize("<" + letter) * frames):
        raise NotConvertibleError(
            PassReason.FRAME_COUNT, f"an offset table of {len(table)} bytes, {frames} frames"
        )
    return struct.unpack(f"<{frames if len(table) else 0}{letter}", table)


def _by_offsets(fragments: list[Span], offsets: Sequence[int]) -> list[list[Span]]:
    # Offsets count from the item tag of the first fragment, 8 bytes before its content.
    base = fragments[0][0]
    frame_at = {base + offset: frame for frame, offset in enumerate(offsets)}
    if offsets[0] != 0 or list(offsets) != sorted(set(offsets)):
        raise NotConvertibleError(PassReason.FRAME_COUNT, "the offset table does not ascend from 0")
    groups: list[list[Span]] = []
    for fragment in fragments:
        if fragment[0] in frame_at:
            groups.append([])
        groups[-1].append(fragment)
    if len(groups) != len(offsets):
        raise NotConvertibleError(
            PassReason.FRAME_COUNT, "the offset table points beside fragments"
        )
    return groups


def _by_end_markers(dataset: Buffer, fragments: list[Span]) -> list[list[Span]]:
    groups: list[list[Span]] = [[]]
    for start, end in fragments:
        groups[-1].append((start, end))
        # The end marker may be followed by padding to even length.
        if _END_MARKER in bytes(dataset[max(start, end - 4) : end]):
            groups.append([])
    if groups.pop():
        raise NotConvertibleError(PassReason.FRAME_COUNT, "the last fragment does not end a frame")
    return groups
