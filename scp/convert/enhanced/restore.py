"""Gives the original instances back out of a collapsed object, and checks collapsed objects years later."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from scp.convert.attributes import PixelAttributes, read_attributes
from scp.convert.codec_cpu import OpenJpegDecoder
from scp.convert.enhanced.identity import difference, identity_in
from scp.convert.enhanced.originals import Layout, Surroundings, rebuilt, without_codestream
from scp.convert.enhanced.record import (
    FrameDigests,
    read_own_block,
    read_record,
    read_sidecar,
    sidecar_of,
)
from scp.convert.fragments import Span
from scp.convert.part10 import DicomFile, meta_with, open_dicom
from scp.convert.ports import FrameDecoder
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import frame_at, locate_frames
from scp.elements import encoding_of, is_deflated, walk
from scp.errors import ConversionError, MalformedError, TruncatedError
from scp.part10 import file_meta_of

_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
_SOP_INSTANCE_UID: Final = 0x00080018
_AFTER_UID: Final = _SOP_INSTANCE_UID + 1
_PADDED: Final = b"\xff\xd9\0"
"""The end of a codestream (EOC), and the byte that makes its length even (PS3.5 A.4)."""
_DAMAGED: Final = "the restore record is damaged"


class NotRestorableError(ConversionError):
    """The object holds no restore record that can be used; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of one frame."""

    frame: int
    """From 1."""
    sop_instance_uid: str
    """Of the original; empty where not even that can be told."""
    path: Path | None
    """The file that was written; None: nothing was, see ``fault``."""
    is_byte_identical: bool
    """To the dataset as it was received; else its header and its pixels are equal."""
    warning: str
    """What a person should know: the object's patient is another than the original's."""
    fault: str
    """Why nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFrame:
    """Whether one frame of a collapsed object is still what it was made of."""

    frame: int
    digests: FrameDigests
    """As recorded."""
    is_whole: bool
    """Whether the dataset as it was received was put together and compared, not its pixels alone."""
    fault: str
    """Empty where what was compared is what was recorded."""
    warning: str = ""
    """As of :class:`Restored`, where the source's header was put together."""


def restore(
    enhanced: Path,
    out: Path,
    *,
    sidecar: Path | None = None,
    decoder: FrameDecoder | None = None,
) -> Iterator[Restored]:
    """Write the original instances into the folder ``out``, one after the other; nothing is replaced.

    A native source comes back byte for byte, and so does one that came as HTJ2K, as long as the object's
    frames are compressed as they were. What came compressed otherwise comes back native, in Explicit VR
    Little Endian, with the same header and pixels. A frame that is damaged costs no other frame. The object
    may have been decoded, or compressed otherwise without loss, by whoever had it since.

    Parameters
    ----------
    sidecar
        The restore record, where it is not embedded; None: looked for beside the object.
    decoder
        None: OpenJPEG.

    Raises
    ------
    NotRestorableError
        It is no object of ours, or there is no record, or one that is damaged from its beginning on.
    """
    opened = _open(enhanced)
    record = _record(opened, enhanced, sidecar)
    surroundings = read_record(record, len(opened.digests))
    is_sound = _is_sound(record, len(opened.digests))
    decoder = decoder or OpenJpegDecoder()
    out.mkdir(parents=True, exist_ok=True)
    identity = identity_in(_header(opened))
    for index, digests in enumerate(opened.digests):
        try:
            around = next(surroundings)
            if not (is_sound or around.is_exact):
                raise MalformedError(_DAMAGED)  # Nothing else tells whether its header is true.
        except StopIteration:  # of a record that was found to be damaged before
            yield _lost(index, _DAMAGED)
        except MalformedError as error:
            if index == 0:
                raise NotRestorableError(str(error)) from error
            yield _lost(index, str(error))
        else:
            yield _restored(opened, index, around, digests, decoder, identity, out, is_sound)
        opened.file.release()


def verify_collapsed(
    enhanced: Path, *, sidecar: Path | None = None, decoder: FrameDecoder | None = None
) -> Iterator[CheckedFrame]:
    """Decode every frame and compare it with the digests that the object has kept of its source.

    With a restore record, embedded or beside the object, the source's dataset is put together too and
    compared. Nothing is written.

    Raises
    ------
    NotRestorableError
        It is no object of ours.
    """
    opened = _open(enhanced)
    decoder = decoder or OpenJpegDecoder()
    beside = sidecar or sidecar_of(enhanced)
    has_record = opened.record is not None or beside.exists()
    surroundings: Iterator[Surroundings] | None = None
    identity = identity_in(_header(opened)) if has_record else None
    if has_record:
        surroundings = read_record(_record(opened, enhanced, sidecar), len(opened.digests))
    for index, digests in enumerate(opened.digests):
        fault, warning, around = "", "", None
        try:
            around = None if surroundings is None else next(surroundings)
            words = _words(opened, index, digests, decoder)
            if around is not None:
                around, pieces = _rebuilt(opened, index, around, words, digests)
                warning = _warning(around, pieces, identity)
            if surroundings is not None and index == len(opened.digests) - 1:
                next(surroundings, None)  # Its own check sum comes after the last frame.
        except StopIteration:  # of a record that was found to be damaged before
            fault = _DAMAGED
        except (ConversionError, MalformedError, TruncatedError) as error:
            fault = str(error)
        yield CheckedFrame(
            frame=index + 1,
            digests=digests,
            is_whole=around is not None and around.is_exact,
            fault=fault,
            warning=warning,
        )
        opened.file.release()


def is_collapsed(path: Path) -> bool:
    """Whether the file is a collapsed object of ours, with recorded digests."""
    try:
        _open(path)
    except (NotRestorableError, OSError):
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    file: DicomFile
    attributes: PixelAttributes
    spans: list[list[Span]] | None
    """None: the pixel data is native."""
    sop_instance_uid: str
    digests: tuple[FrameDigests, ...]
    record: bytes | None


def _open(path: Path) -> _Opened:
    try:
        file = open_dicom(path)
        elements = file.walk()
        attributes = read_attributes(file, elements)
        spans = locate_frames(file, elements, attributes)
        block = read_own_block(file.dataset, elements)
        uid = file_meta_of(file.whole).sop_instance_uid
    except (NotConvertibleError, MalformedError, TruncatedError) as error:
        raise NotRestorableError(str(error)) from error
    if block is None:
        raise NotRestorableError("no collapsed object of dcmpress")
    if len(block.digests) != attributes.frames:
        raise NotRestorableError("frames and recorded digests are not equally many")
    return _Opened(
        file=file,
        attributes=attributes,
        spans=spans,
        sop_instance_uid=uid,
        digests=block.digests,
        record=block.record,
    )


def _header(opened: _Opened) -> bytes:
    """The object to its pixel data, not deflated."""
    meta = bytes(opened.file.whole[: opened.file.dataset_start])
    if is_deflated(opened.file.transfer_syntax):
        meta, _ = meta_with(opened.file, ExplicitVRLittleEndian)
    return meta + bytes(opened.file.dataset[: opened.attributes.pixel_data.start])


def _is_sound(record: bytes, frames: int) -> bool:
    """Whether its check sum, which comes after the last frame, is right."""
    try:
        for _ in read_record(record, frames):
            pass
    except MalformedError:
        return False
    return True


def _lost(index: int, fault: str) -> Restored:
    return Restored(
        frame=index + 1,
        sop_instance_uid="",
        path=None,
        is_byte_identical=False,
        warning="",
        fault=fault,
    )


def _record(opened: _Opened, enhanced: Path, sidecar: Path | None) -> bytes:
    if opened.record is not None and sidecar is None:
        return opened.record
    path = sidecar or sidecar_of(enhanced)
    try:
        return read_sidecar(path.read_bytes(), opened.sop_instance_uid)
    except (OSError, MalformedError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise NotRestorableError(f"no restore record in the object, and {path}: {why}") from error


def _words(opened: _Opened, index: int, digests: FrameDigests, decoder: FrameDecoder) -> bytes:
    """The frame's pixel words.

    Raises
    ------
    ConversionError
        It cannot be decoded.
    MalformedError
        It is not the recorded one.
    """
    frame = frame_at(opened.file, opened.attributes, opened.spans, index, decoder)
    words = np.ascontiguousarray(frame).tobytes()
    if hashlib.sha256(words).hexdigest() != digests.pixels:
        raise MalformedError("the pixels are not those that were recorded")
    return words


def _restored(
    opened: _Opened,
    index: int,
    around: Surroundings,
    digests: FrameDigests,
    decoder: FrameDecoder,
    identity: dict[str, str] | None,
    out: Path,
    is_sound: bool,
) -> Restored:
    uid, path, fault, warning = "", None, "", ""
    try:
        uid = _uid_of(around)
        words = _words(opened, index, digests, decoder)
        around, pieces = _rebuilt(opened, index, around, words, digests)
        if not (is_sound or around.is_exact):
            raise MalformedError(_DAMAGED)  # Its codestream is another by now.
        warning = _warning(around, pieces, identity)
        path = _write(out, uid, index, pieces)
    except (ConversionError, MalformedError, TruncatedError) as error:
        fault = str(error)
    except OSError as error:
        fault = f"cannot be written: {error.strerror}"
    return Restored(
        frame=index + 1,
        sop_instance_uid=uid,
        path=path,
        is_byte_identical=path is not None and around.is_exact,
        warning=warning,
        fault=fault,
    )


def _uid_of(around: Surroundings) -> str:
    """Of the dataset: what anonymises files may have left all of them the same in their meta groups."""
    meta = file_meta_of(around.before)
    encoding = encoding_of(meta.transfer_syntax)
    for element in walk(around.before, encoding, start=meta.dataset_start, stop_before=_AFTER_UID):
        if element.tag == _SOP_INSTANCE_UID:
            value = around.before[element.value : element.end]
            return value.decode("latin-1").strip("\0 ")
    return meta.sop_instance_uid


def _rebuilt(
    opened: _Opened, index: int, around: Surroundings, words: bytes, digests: FrameDigests
) -> tuple[Surroundings, list[bytes | memoryview]]:
    """The file in pieces, and what they were made of.

    Of a codestream that was kept, but that somebody has decoded or compressed otherwise since, the words
    come back native.

    Raises
    ------
    MalformedError
        Its dataset is not the one that was received, or the record is damaged.
    """
    if around.layout == Layout.KEPT:
        pieces = rebuilt(around, _codestream(opened, index))
        if _is_received(around, pieces, digests):
            return around, pieces
        around = without_codestream(around)
    pieces = rebuilt(around, words)
    if around.is_exact and not _is_received(around, pieces, digests):
        raise MalformedError("the dataset is not the one that was received")
    return around, pieces


def _codestream(opened: _Opened, index: int) -> bytes:
    """The frame as it is compressed, without the byte that pads it; empty where it is native."""
    spans = opened.spans[index] if opened.spans is not None else []
    data = b"".join(opened.file.dataset[start:end] for start, end in spans)
    return data[:-1] if data.endswith(_PADDED) else data


def _is_received(
    around: Surroundings, pieces: list[bytes | memoryview], digests: FrameDigests
) -> bool:
    whole = hashlib.sha256(memoryview(pieces[0])[file_meta_of(around.before).dataset_start :])
    for piece in pieces[1:]:
        whole.update(piece)
    return whole.hexdigest() == digests.dataset


def _write(out: Path, uid: str, index: int, pieces: list[bytes | memoryview]) -> Path:
    # The UID comes out of a file; one that is none does not become a path.
    stem = uid if _UID.fullmatch(uid) and uid.strip(".") else f"frame-{index + 1}"
    path = out / f"{stem}.dcm"
    with path.open("xb") as file:
        try:
            file.writelines(pieces)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
    return path


def _warning(
    around: Surroundings, pieces: list[bytes | memoryview], now: dict[str, str] | None
) -> str:
    return difference(identity_in(b"".join(pieces[: 1 if around.is_exact else 2])), now)
