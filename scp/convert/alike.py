"""Whether another run made the same of the same sources, whatever its bytes are."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import dcmread

from scp.convert.attributes import PixelAttributes, read_attributes
from scp.convert.codec_cpu import OpenJpegDecoder
from scp.convert.digests import dataset_sha256, normal_without_pixels
from scp.convert.enhanced.identity import IDENTITY
from scp.convert.enhanced.record import FrameDigests
from scp.convert.enhanced.restore import NotRestorableError, verify_collapsed
from scp.convert.part10 import DicomFile, open_dicom
from scp.convert.source import frame_at, locate_frames
from scp.elements import Element
from scp.errors import ConversionError, MalformedError, TruncatedError


def is_same_image(one: Path, other: Path) -> bool:
    """Whether two files have the same header and decode to the same frames.

    How they are compressed makes no difference; False too where it cannot be told.
    """
    try:
        return _image(one) == _image(other)
    except (ConversionError, MalformedError, TruncatedError):
        return False


def is_dataset(path: Path, sha256: str) -> bool:
    """Whether a file's dataset, byte for byte, is the one with this digest."""
    try:
        return dataset_sha256(path) == sha256
    except (ConversionError, MalformedError, TruncatedError):
        return False


def is_of_same_patient(one: Path, other: Path) -> bool:
    """Whether two collapsed objects are one instance, of the same patient and study.

    False too where pydicom cannot read it.
    """
    identity = _identity(one)
    return identity is not None and identity == _identity(other)


def sources_of(enhanced: Path, sidecar: Path | None = None) -> tuple[FrameDigests, ...]:
    """What a collapsed object was made of, if every frame is still that; else nothing.

    Parameters
    ----------
    sidecar
        See :func:`scp.convert.enhanced.restore.verify_collapsed`.
    """
    try:
        frames = list(verify_collapsed(enhanced, sidecar=sidecar))
    except (NotRestorableError, MalformedError):
        return ()
    return () if any(each.fault for each in frames) else tuple(each.digests for each in frames)


def frames_of(
    file: DicomFile, elements: list[Element], attributes: PixelAttributes
) -> Iterator[memoryview]:
    """The words of one frame after the other, little endian, whatever they are compressed with.

    Raises
    ------
    ConversionError, MalformedError, TruncatedError
        A frame cannot be found or decoded.
    """
    spans = locate_frames(file, elements, attributes)
    decoder = OpenJpegDecoder()
    for index in range(attributes.frames):
        frame = frame_at(file, attributes, spans, index, decoder)
        yield np.ascontiguousarray(frame).data.cast("B")
        file.release()


def _identity(path: Path) -> list[str] | None:
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID", *IDENTITY])
        return [str(header.get(keyword) or "") for keyword in ("SOPInstanceUID", *IDENTITY)]
    except Exception:  # pydicom raises whatever a value provokes
        return None


def _image(path: Path) -> tuple[str, str]:
    """Digests of its header and of its frames, decoded one at a time."""
    file = open_dicom(path)
    elements, pixels = file.walk(), hashlib.sha256()
    for words in frames_of(file, elements, read_attributes(file, elements)):
        pixels.update(words)
    return normal_without_pixels(file, elements), pixels.hexdigest()
