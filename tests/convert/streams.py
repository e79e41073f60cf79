"""Compressed frames by encoders that are not ours."""

import struct
from typing import Any

import imagecodecs
from pydicom import Dataset
from pydicom.encaps import encapsulate

from tests.convert.images import Array, image


def compressed(
    frames: Array, codestreams: list[bytes], transfer_syntax: str, **more: Any
) -> Dataset:
    dataset = image(frames, transfer_syntax=transfer_syntax)
    dataset.PixelData = encapsulate(codestreams)
    dataset["PixelData"].VR = "OB"
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return dataset


def jpeg_lossless(frames: Array, precision: int | None = None) -> list[bytes]:
    return [bytes(imagecodecs.ljpeg_encode(f[..., 0], bitspersample=precision)) for f in frames]


def jpeg_ls(frames: Array, near: int = 0) -> list[bytes]:
    return [bytes(imagecodecs.jpegls_encode(frame[..., 0], level=near)) for frame in frames]


def jpeg_2000(frames: Array, *, reversible: bool = True, mct: bool = True) -> list[bytes]:
    return [
        bytes(
            imagecodecs.jpeg2k_encode(
                frame[..., 0] if frame.shape[-1] == 1 else frame,
                level=0 if reversible else 80,
                codecformat="J2K",
                reversible=reversible,
                mct=mct,
            )
        )
        for frame in frames
    ]


def rle(frames: Array) -> list[bytes]:
    return [_rle_frame(frame) for frame in frames]


def _rle_frame(frame: Array) -> bytes:
    planes = frame.astype(frame.dtype.newbyteorder(">"))
    size = frame.dtype.itemsize
    segments = []
    for sample in range(frame.shape[2]):
        octets = planes[..., sample].tobytes()
        for byte in range(size):
            packed = bytes(imagecodecs.packbits_encode(octets[byte::size]))
            segments.append(packed + bytes(len(packed) % 2))
    offsets = [64 + sum(map(len, segments[:index])) for index in range(len(segments))]
    header = struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)
