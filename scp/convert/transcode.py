"""Makes the HTJ2K form of one instance, and proves it (PS3.5 A.4.4, 8.2.14, 10.18.1).

Only the pixel data, its transfer syntax and what the standard couples to them change. The proof reads the
written file again, not what was meant to be written. Frames pass through a few at a time, so that an
instance may be larger than the memory.
"""

import contextlib
import errno
import hashlib
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from pydicom import uid

from scp.config.schema import Htj2kSection
from scp.convert.attributes import (
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    read_attributes,
)
from scp.convert.carried import CARRIED_BYTES, CarriedDigests, packed, room_for_digests
from scp.convert.codestream import earns_rpcl, parse_codestream, why_not_lossless
from scp.convert.digests import Digests, dataset_sha256_of, digests_of, normal_without_pixels
from scp.convert.encapsulation import EXTENDED_ABOVE, EncapsulatedPixels
from scp.convert.fragments import Span, spans_of_frames
from scp.convert.header import Change, code_string, edited, explicit_header, unsigned_short
from scp.convert.part10 import dicom_file, load, meta_with, sha256_of
from scp.convert.ports import ComparingDecoder, FrameDecoder, FrameEncoder, Frames
from scp.convert.recode import element_header
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import SourceImage, SourceLimits, open_source
from scp.elements import EXPLICIT_LITTLE, PIXEL_DATA, walk
from scp.errors import CodecError, MalformedError, TruncatedError
from scp.model import PassReason

LOSSLESS: Final = str(uid.HTJ2KLossless)
LOSSLESS_RPCL: Final = str(uid.HTJ2KLosslessRPCL)

_GROUP_LENGTH = 0x7FE00000
_EXTENDED_OFFSETS = 0x7FE00001
_STALE = (0x7FE00001, 0x7FE00002, 0x7FE00003)
"""Offset tables and total length of the source's own encapsulation (PS3.3 C.7.6.3.1.8 ff.)."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcoded:
    """What was written, and how it was proved. Digests are SHA-256 in hexadecimal."""

    transfer_syntax: str
    frames: int
    pixel_sha256: str
    """Of the source's pixel words: little endian, interleaved, every frame in order."""
    result_sha256: str
    """Of the written file."""
    result_bytes: int
    encode_seconds: float
    """Reading, decoding and compressing the source, and writing the result."""
    verify_seconds: float
    verified: bool
    encoder: str
    decoder: str
    """Empty when nothing was verified."""
    source: Digests
    """Of the source's dataset."""


def transcode(
    source: Path,
    target: Path,
    parameters: Htj2kSection,
    encoder: FrameEncoder,
    verifier: FrameDecoder | None,
    *,
    limits: SourceLimits | None = None,
    extended_above: int = EXTENDED_ABOVE,
    beside: Executor | None = None,
) -> Transcoded:
    """Write the HTJ2K form of ``source`` to ``target`` and read it back; not synced to the disk.

    Parameters
    ----------
    verifier
        Of another library than the encoder's. None: the frames are not decoded again.
    extended_above
        Native bytes from which on the result has an Extended Offset Table.
    beside
        A thread that hashes the source meanwhile; worth it where codecs wait for a GPU. None: hashed here.

    Raises
    ------
    NotConvertibleError
        The original is to be delivered, for the reason given; there is no ``target`` then.
    """
    try:
        return _transcode(
            source, target, parameters, encoder, verifier, limits, extended_above, beside
        )
    except BaseException as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise NotConvertibleError(PassReason.NO_ROOM, str(error.strerror)) from error
        if isinstance(error, MemoryError):
            raise NotConvertibleError(PassReason.FRAME_TOO_LARGE, "out of memory") from error
        raise


@dataclass(slots=True, kw_only=True)
class _Written:
    """What went into the target, for the proof to compare with."""

    prefix: bytes
    """Everything before the group of the pixel data."""
    suffix: bytes | memoryview
    """Everything after the pixel data."""
    label_at: int
    """Where the transfer syntax lies."""
    carried_at: int
    """Where the digests lie that the file carries; 0: it has no room for them."""
    is_edited: bool
    pixels: bytes
    """The digest of the source's words."""
    spans: list[Span]
    """Where the frames lie that were read again and compared."""
    earns_rpcl: bool
    """Whether every one of them earns the better label."""
    proof_seconds: float


def _transcode(
    source: Path,
    target: Path,
    parameters: Htj2kSection,
    encoder: FrameEncoder,
    verifier: FrameDecoder | None,
    limits: SourceLimits | None,
    extended_above: int,
    beside: Executor | None,
) -> Transcoded:
    started = time.perf_counter()
    image = open_source(source, limits, target.parent)
    with target.open("w+b") as file:
        dataset = _begin(beside, dataset_sha256_of, image.file)
        written = _write(image, file, parameters, encoder, verifier, extended_above, beside)
        file.flush()
        encoded = time.perf_counter()
        result = load(file.fileno())
        _prove(image, result, written)
        transfer_syntax = LOSSLESS_RPCL if written.earns_rpcl else LOSSLESS
        _put(file, result, written.label_at, transfer_syntax.encode())
        digests = _source_digests(image, written, dataset())
        if written.carried_at:
            carried = _carried(result, written, digests)
            _put(file, result, written.carried_at, packed(carried))
        result_sha256 = sha256_of(result).hexdigest()
        proved = time.perf_counter()
    return Transcoded(
        transfer_syntax=transfer_syntax,
        frames=image.attributes.frames,
        pixel_sha256=written.pixels.hex(),
        result_sha256=result_sha256,
        result_bytes=len(result),
        encode_seconds=encoded - started - written.proof_seconds,
        verify_seconds=proved - encoded + written.proof_seconds,
        verified=verifier is not None,
        encoder=encoder.name,
        decoder=verifier.name if verifier else "",
        source=digests,
    )


def _put(file: BinaryIO, result: memoryview, at: int, value: bytes) -> None:
    """Into the file and into what was read of it."""
    os.pwrite(file.fileno(), value, at)
    result[at : at + len(value)] = value


def _source_digests(image: SourceImage, written: "_Written", dataset_sha256: str) -> Digests:
    pixel_data = image.attributes.pixel_data
    is_whole_value = image.native_value == (pixel_data.value, pixel_data.end)
    return digests_of(
        image.file,
        image.elements,
        written.pixels if is_whole_value else None,
        dataset_sha256=dataset_sha256,
    )


def _carried(result: memoryview, written: "_Written", source: Digests) -> CarriedDigests:
    header = source.header
    if header and written.is_edited:
        file = dicom_file(result)
        header = normal_without_pixels(file, file.walk())
    return CarriedDigests(dataset=source.dataset, pixels=written.pixels.hex(), header=header)


def _write(
    image: SourceImage,
    file: BinaryIO,
    parameters: Htj2kSection,
    encoder: FrameEncoder,
    verifier: FrameDecoder | None,
    extended_above: int,
    beside: Executor | None,
) -> _Written:
    attributes = image.attributes
    header = explicit_header(image.file, image.elements, signed=attributes.is_signed)
    present = {element.tag for element in image.elements}
    changes = _changes(image, present)
    room = room_for_digests(image.file)
    meta, label_at = meta_with(image.file, LOSSLESS, room)
    written = _Written(
        prefix=b"".join((meta, edited(header.before, changes))),
        suffix=header.after,
        label_at=label_at,
        carried_at=len(meta) - CARRIED_BYTES if room else 0,
        is_edited=bool(changes),
        pixels=b"",
        spans=[],
        earns_rpcl=True,
        proof_seconds=0.0,
    )
    file.write(written.prefix)
    group = _GroupLength(file) if _GROUP_LENGTH in present else None
    is_extended = attributes.frame_bytes * attributes.frames > extended_above
    encapsulated = EncapsulatedPixels(file, attributes.frames, is_extended=is_extended)
    pixels = hashlib.sha256()
    for batch in image.batches():
        hashed = _begin(beside, pixels.update, batch.data)
        spans = [encapsulated.add(each) for each in _encoded(batch, image, parameters, encoder)]
        file.flush()
        _prove_frames(batch, spans, image, file, written, verifier)
        hashed()
    encapsulated.finish()
    if group:
        group.finish()
    file.write(written.suffix)
    written.pixels = pixels.digest()
    return written


def _begin[**P, T](
    beside: Executor | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], T]:
    """Have it done beside, or at once; what is returned gives the result."""
    if beside is not None:
        return beside.submit(work, *args, **kwargs).result
    result = work(*args, **kwargs)
    return lambda: result


def _changes(image: SourceImage, present: set[int]) -> dict[int, Change]:
    changes: dict[int, Change] = {tag: None for tag in (*_STALE, _GROUP_LENGTH) if tag in present}
    attributes = image.attributes
    if attributes.samples > 1 and attributes.planar_configuration != 0:
        changes[PLANAR_CONFIGURATION] = unsigned_short(0)
    if _photometric(image) != attributes.photometric_interpretation:
        changes[PHOTOMETRIC_INTERPRETATION] = code_string(_photometric(image))
    return changes


def _photometric(image: SourceImage) -> str:
    """What the result must say: with the colour transform YBR_RCT and nothing else (PS3.5 8.2.14)."""
    if image.frame_format.colour_transform:
        return "YBR_RCT"
    return image.attributes.photometric_interpretation


class _GroupLength:
    """(7FE0,0000), which the source has; retired, but true where it is given (PS3.5 7.2)."""

    def __init__(self, file: BinaryIO) -> None:
        file.write(element_header(_GROUP_LENGTH, b"UL", 4) + bytes(4))
        self._file = file
        self._start = file.tell()

    def finish(self) -> None:
        end = self._file.tell()
        # Above 4 GiB it cannot be told; 0xFFFFFFFF is what a reader will take for unknown.
        length = min(end - self._start, 0xFFFFFFFF)
        self._file.seek(self._start - 4)
        self._file.write(struct.pack("<L", length))
        self._file.seek(end)


def _encoded(
    batch: Frames, image: SourceImage, parameters: Htj2kSection, encoder: FrameEncoder
) -> list[bytes]:
    try:
        codestreams = encoder.encode(batch, image.frame_format, parameters)
    except CodecError as error:
        raise NotConvertibleError(PassReason.ENCODER_FAILED, str(error)) from error
    if len(codestreams) != len(batch):
        raise NotConvertibleError(
            PassReason.ENCODER_FAILED, f"{len(codestreams)} codestreams of {len(batch)} frames"
        )
    return codestreams


def _prove_frames(
    batch: Frames,
    spans: list[Span],
    image: SourceImage,
    file: BinaryIO,
    written: _Written,
    verifier: FrameDecoder | None,
) -> None:
    """Compare what is read back from the target with the source while that is in memory."""
    started = time.perf_counter()
    codestreams = [os.pread(file.fileno(), end - start, start) for start, end in spans]
    for codestream in codestreams:
        written.earns_rpcl = _check_label(codestream, image) and written.earns_rpcl
    if verifier:
        _compare(batch, codestreams, image, verifier)
    written.spans += spans
    written.proof_seconds += time.perf_counter() - started


def _prove(image: SourceImage, result: memoryview, written: _Written) -> None:
    """Read the finished file: the frames are where they were compared, and what surrounds them is right."""
    start = len(written.prefix)
    tables = b""
    try:
        for element in walk(result, EXPLICIT_LITTLE, start=start):
            if element.tag == _EXTENDED_OFFSETS:
                tables = bytes(result[element.value : element.end])
            if element.tag == PIXEL_DATA:
                break
        else:
            raise _not_proved("there is no pixel data")
    except (MalformedError, TruncatedError) as error:
        raise _not_proved(str(error)) from error
    # The header is the source's own, which was read already; where it was edited it is read again.
    if result[:start] != written.prefix or result[element.end :] != written.suffix:
        raise _not_proved("the header is not what was written")
    if written.is_edited:
        _check_header(image, result)
    frames = spans_of_frames(result, EXPLICIT_LITTLE, element, tables, image.attributes.frames)
    if frames != [[span] for span in written.spans]:
        raise _not_proved("the frames are not where they were compared")


def _check_header(image: SourceImage, result: memoryview) -> None:
    file = dicom_file(result)
    attributes = read_attributes(file, file.walk())
    expected = replace(
        image.attributes,
        photometric_interpretation=_photometric(image),
        planar_configuration=0 if image.attributes.samples > 1 else attributes.planar_configuration,
        pixel_data=attributes.pixel_data,
    )
    if attributes != expected:
        raise _not_proved("the header says something else about the pixels")


def _check_label(codestream: bytes, image: SourceImage) -> bool:
    """Whether the frame earns the better label; raises where it does not even earn the other."""
    try:
        parsed = parse_codestream(codestream)
    except CodecError as error:
        raise _not_proved(str(error)) from error
    if why := why_not_lossless(parsed, image.frame_format):
        raise _not_proved(why)
    return earns_rpcl(parsed, image.frame_format)


def _compare(
    batch: Frames, codestreams: list[bytes], image: SourceImage, verifier: FrameDecoder
) -> None:
    try:
        if isinstance(verifier, ComparingDecoder):
            is_same = not any(verifier.differs(codestreams, batch, image.frame_format))
        else:
            decoded = verifier.decode(codestreams, image.frame_format)
            is_same = decoded.dtype == batch.dtype and np.array_equal(decoded, batch)
    except CodecError as error:
        raise _not_proved(str(error)) from error
    if not is_same:
        raise _not_proved("a decoded frame differs from the source")


def _not_proved(detail: str) -> NotConvertibleError:
    return NotConvertibleError(PassReason.VERIFY_MISMATCH, detail)
