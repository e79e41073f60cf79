"""An encoder of JPEG Lossless (ISO/IEC 10918-1 Annex H) of our own: every predictor, every precision."""

import struct

import numpy as np

from tests.convert.images import Array

_CATEGORIES = 17
_CODE_BITS = 5
"""As long for every category: the simplest table that is one."""


def encode(frame: Array, precision: int, predictor: int) -> bytes:
    """One frame of (rows, columns), unsigned."""
    rows, columns = frame.shape
    table = bytes(_CATEGORIES if length == _CODE_BITS else 0 for length in range(1, 17))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xC3, struct.pack(">BHHBBBB", precision, rows, columns, 1, 1, 0x11, 0)),
            _segment(0xC4, b"\0" + table + bytes(range(_CATEGORIES))),
            _segment(0xDA, struct.pack(">BBBBBB", 1, 1, 0, predictor, 0, 0)),
            _scan(frame.astype(np.int64), precision, predictor),
            b"\xff\xd9",
        )
    )


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def _scan(frame: Array, precision: int, predictor: int) -> bytes:
    bits: list[str] = []
    for row, column in np.ndindex(*frame.shape):
        difference = (
            int(frame[row, column]) - _predicted(frame, row, column, precision, predictor)
        ) % 2**16
        if difference > 2**15:
            difference -= 2**16
        category = abs(difference).bit_length()
        bits.append(f"{category:0{_CODE_BITS}b}")
        if 0 < category < 16:
            extra = difference if difference > 0 else difference + 2**category - 1
            bits.append(f"{extra:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big")
    return scan.replace(b"\xff", b"\xff\0")


def _predicted(frame: Array, row: int, column: int, precision: int, predictor: int) -> int:
    if row == column == 0:
        return 1 << precision - 1
    if row == 0:
        return int(frame[0, column - 1])
    if column == 0:
        return int(frame[row - 1, 0])
    a, b, c = (
        int(frame[row, column - 1]), int(frame[row - 1, column]), int(frame[row - 1, column - 1]),
    )  # fmt: skip
    return (a, b, c, a + b - c, a + (b - c >> 1), b + (a - c >> 1), a + b >> 1)[predictor - 1]
