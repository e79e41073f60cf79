"""The frames of an instance, a few at a time, whatever transfer syntax it came in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from scp.convert.attributes import (
    HTJ2K_LOSSLESS,
    NATIVE,
    PixelAttributes,
    read_attributes,
    refuse_ineligible,
    refuse_transfer_syntax,
)
from scp.convert.codec_cpu import container_type
from scp.convert.decoders import decode_frame, mismatch
from scp.convert.fragments import Span, spans_of_frames
from scp.convert.part10 import MAX_INFLATED_BYTES, DicomFile, open_dicom
from scp.convert.ports import FrameDecoder, FrameFormat, Frames
from scp.convert.refusals import NotConvertibleError
from scp.elements import Element
from scp.model import PassReason

BATCH_BYTES: Final = 2**24
"""Native bytes of the frames that are in memory at once, unless one frame is larger. 32 frames of CT
keep a GPU busy and cost a worker little."""

_EXTENDED_OFFSET_TABLE = 0x7FE00001


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLimits:
    """What is too large to be converted; the original is delivered instead."""

    frame_bytes: int = 2**28
    """Of one native frame. OpenJPEG needs about five times as much to decode it."""
    inflated_bytes: int = MAX_INFLATED_BYTES
    """Of a deflated dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One instance whose header HTJ2K can express."""

    file: DicomFile
    elements: list[Element]
    attributes: PixelAttributes
    frame_format: FrameFormat
    spans: list[list[Span]] | None
    """Where the fragments of each frame lie; None for native pixel data."""

    @property
    def frames_in_batch(self) -> int:
        return max(1, BATCH_BYTES // self.attributes.frame_bytes)

    @property
    def native_value(self) -> Span | None:
        """Where the pixel words lie in the dataset exactly as they are hashed, if they do."""
        a = self.attributes
        if self.spans is not None or not self.file.encoding.little or _is_planar(a):
            return None
        return a.pixel_data.value, a.pixel_data.value + a.frame_bytes * a.frames

    def batches(self) -> Iterator[Frames]:
        """Yield every frame once, in arrays of (frames, rows, columns, samples), C-contiguous.

        Native frames are views of the file where their layout allows; do not write to them.

        Raises
        ------
        NotConvertibleError
            A frame cannot be decoded, contradicts the header or has bits set beyond Bits Stored.
        """
        for first in range(0, self.attributes.frames, self.frames_in_batch):
            count = min(self.frames_in_batch, self.attributes.frames - first)
            if self.spans is None:
                batch = _native(self.file, self.attributes, first, count)
            else:
                frames = range(first, first + count)
                batch = np.stack(
                    [frame_at(self.file, self.attributes, self.spans, i) for i in frames]
                )
            if not has_clean_bits(batch, self.attributes.bits_stored):
                raise NotConvertibleError(
                    PassReason.UNUSED_BITS_SET,
                    f"bits beyond {self.attributes.bits_stored} carry data",
                )
            yield cast("Frames", batch)
            del batch
            self.file.release()


def open_source(
    path: Path, limits: SourceLimits | None = None, scratch: Path | None = None
) -> SourceImage:
    """Read the header of ``path`` and find its frames.

    Parameters
    ----------
    scratch
        The folder where a deflated dataset is inflated; see :func:`scp.convert.part10.open_dicom`.

    Raises
    ------
    NotConvertibleError
        HTJ2K cannot hold it, or the pixel data is not what the header says.
    """
    limits = limits or SourceLimits()
    file = open_dicom(path, max_inflated_bytes=limits.inflated_bytes, scratch=scratch)
    refuse_transfer_syntax(file.transfer_syntax)
    elements = file.walk()
    attributes = read_attributes(file, elements)
    refuse_ineligible(file, elements, attributes, limits.frame_bytes)
    return SourceImage(
        file=file,
        elements=elements,
        attributes=attributes,
        frame_format=attributes.frame_format,
        spans=locate_frames(file, elements, attributes),
    )


def locate_frames(
    file: DicomFile, elements: list[Element], attributes: PixelAttributes
) -> list[list[Span]] | None:
    """The fragments of each frame, or None after checking the length of native pixel data.

    Raises
    ------
    NotConvertibleError
        The pixel data is too short, holds other than the announced frames, or is not encapsulated
        where its transfer syntax demands it.
    """
    pixel_data = attributes.pixel_data
    is_native = file.transfer_syntax in NATIVE
    if is_native == pixel_data.is_undefined_length:
        raise mismatch("encapsulation contradicts the transfer syntax")
    if is_native:
        _check_native(file, attributes)
        return None
    tables = [
        bytes(file.dataset[e.value : e.end]) for e in elements if e.tag == _EXTENDED_OFFSET_TABLE
    ]
    return spans_of_frames(
        file.dataset, file.encoding, pixel_data, b"".join(tables), attributes.frames
    )


def frame_at(
    file: DicomFile,
    attributes: PixelAttributes,
    spans: list[list[Span]] | None,
    index: int,
    decoder: FrameDecoder | None = None,
) -> NDArray[np.generic]:
    """One frame, of any lossless syntax: (rows, columns, samples), C-contiguous.

    Parameters
    ----------
    spans
        As :func:`locate_frames` found them.
    decoder
        Of HTJ2K; without one it cannot be decoded, as :func:`open_source` does not take it.

    Raises
    ------
    ConversionError
        It cannot be decoded, or contradicts the header.
    """
    if spans is None:
        (frame,) = _native(file, attributes, index, 1)
        return cast("NDArray[np.generic]", frame)
    data = b"".join(file.dataset[start:end] for start, end in spans[index])
    if decoder is not None and file.transfer_syntax in HTJ2K_LOSSLESS:
        (decoded,) = decoder.decode([data], attributes.frame_format)
        return cast("NDArray[np.generic]", decoded)
    return decode_frame(file.transfer_syntax, data, attributes)


def has_clean_bits(frames: NDArray[np.generic], bits_stored: int) -> bool:
    """Whether every word is the zero or sign extension of its ``bits_stored`` low bits (PS3.5 8.1.1)."""
    if bits_stored == frames.dtype.itemsize * 8:
        return True
    if frames.dtype.kind == "u":
        return int(frames.max()) < 1 << bits_stored
    bound = 1 << bits_stored - 1
    return int(frames.min()) >= -bound and int(frames.max()) < bound


def _check_native(file: DicomFile, attributes: PixelAttributes) -> None:
    element = attributes.pixel_data
    expected = attributes.frame_bytes * attributes.frames
    if element.length < expected:
        raise NotConvertibleError(
            PassReason.PIXEL_DATA_SHORT, f"{element.length} bytes of {expected}"
        )
    surplus = element.length - expected
    # One byte pads to even length, more are somebody's padding; but data is not to be lost.
    if surplus >= attributes.frame_bytes > 1 or (
        surplus > 1 and any(file.dataset[element.end - surplus : element.end])
    ):
        raise NotConvertibleError(PassReason.FRAME_COUNT, f"{surplus} bytes after the last frame")
    if attributes.samples > 1 and attributes.planar_configuration not in (0, 1):
        raise NotConvertibleError(PassReason.PIXEL_ATTRIBUTE_MISSING, "Planar Configuration")
    if not file.encoding.little:
        vrs = (b"OW",) if attributes.bits_allocated == 16 else (b"OB", b"OW")
        if element.vr not in vrs or element.length % 2:
            detail = f"{element.length} bytes of pixel data of VR {element.vr!r}"
            raise NotConvertibleError(PassReason.UNREADABLE, detail)


def _is_planar(attributes: PixelAttributes) -> bool:
    return attributes.samples > 1 and attributes.planar_configuration == 1


def _native(
    file: DicomFile, attributes: PixelAttributes, first: int, count: int
) -> NDArray[np.generic]:
    """``count`` frames from ``first`` on; a view where the words lie as they should."""
    a = attributes
    kind = container_type(a.bits_allocated, is_signed=a.is_signed)
    start = a.pixel_data.value + first * a.frame_bytes
    if file.encoding.little or (a.bits_allocated == 8 and a.pixel_data.vr == b"OB"):
        words = np.frombuffer(file.dataset, kind, count * a.frame_samples, start)
    elif a.bits_allocated == 16:
        swapped = np.frombuffer(file.dataset, kind.newbyteorder(), count * a.frame_samples, start)
        words = swapped.astype(kind)
    else:
        # Bytes in swapped words of 16 bits (PS3.5 A.3); an odd frame begins inside a word.
        before = first * a.frame_bytes % 2
        length = (before + count * a.frame_bytes + 1) // 2
        pairs = np.frombuffer(file.dataset, np.uint16, length, start - before).byteswap()
        words = pairs.view(kind)[before : before + count * a.frame_samples]
    if _is_planar(a):
        planes = words.reshape(count, a.samples, a.rows, a.columns)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return words.reshape(count, a.rows, a.columns, a.samples)
