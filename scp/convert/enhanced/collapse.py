"""Makes one Legacy Converted Enhanced object of a volume, and proves it (PS3.3 A.70 to A.72)."""

import contextlib
import errno
import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from scp.convert.enhanced.build import build
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.groups import Volume
from scp.convert.enhanced.originals import surroundings
from scp.convert.enhanced.prove import fingerprint, prove
from scp.convert.enhanced.record import (
    FrameDigests,
    RecordWriter,
    RestoreRecord,
    characteristics,
    private_block,
    read_sidecar,
    sidecar,
    sidecar_of,
)
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.repairs import repair
from scp.convert.enhanced.uids import series_instance_uid, sop_instance_uid
from scp.convert.enhanced.unassigned import unassigned, without_creator
from scp.convert.enhanced.writer import check_encoded, transfer_syntax_of, write
from scp.convert.refusals import NotConvertibleError
from scp.errors import MalformedError, TruncatedError
from scp.model import CollapseReason

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def collapse(volume: Volume, target: Path, *, restore_record: RestoreRecord) -> Collapsed:
    """Write the object to ``target``, read it back and compare; not synced to the disk.

    Raises
    ------
    NotCollapsedError
        The volume's instances stay single-frame, for the reason given; nothing is left at ``target``.
    """
    started = time.perf_counter()
    beside = sidecar_of(target) if restore_record == "sidecar" else None
    try:
        with target.open("w+b") as file, _without_collector(), ThreadPoolExecutor(1) as thread:
            # Hashing needs no lock of the interpreter, which building a header always has.
            checked = thread.submit(check_encoded, volume.headers)
            made = _collapse(volume, file, restore_record, beside, checked.result)
    except BaseException as error:
        for path in (target, beside):
            with contextlib.suppress(OSError):
                if path is not None:
                    path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise NotCollapsedError(CollapseReason.NO_ROOM, str(error.strerror)) from error
        if isinstance(error, MemoryError):
            raise NotCollapsedError(CollapseReason.NO_ROOM, "out of memory") from error
        raise
    return Collapsed(
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=made.sop_instance_uid,
        series_instance_uid=made.series_instance_uid,
        transfer_syntax=transfer_syntax_of(volume.headers),
        frames=tuple((name, number) for number, name in enumerate(volume.names, 1)),
        result_sha256=made.sha256,
        result_bytes=target.stat().st_size,
        sidecar=beside,
        sidecar_sha256=made.sidecar_sha256,
        record_bytes=made.record_bytes,
        seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Searching the many small objects of a header for cycles is a tenth of the time, for little."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    sha256: str
    sidecar_sha256: str
    record_bytes: int


def _collapse(
    volume: Volume,
    file: BinaryIO,
    restore_record: RestoreRecord,
    beside: Path | None,
    are_unchanged: Callable[[], None],
) -> _Made:
    if restore_record == "none" and any(map(without_creator, volume.headers)):
        raise NotCollapsedError(
            CollapseReason.HEADER_NOT_KEPT,
            "private elements without creator, and no restore record",
        )
    instance, series = sop_instance_uid(volume), series_instance_uid(volume)
    record, fingerprints = (b"", []) if restore_record == "none" else _record(volume)
    draft = build(volume, instance, series)
    repair(draft, instance)
    digests = [
        FrameDigests(dataset=h.source.dataset_sha256, pixels=h.source.pixel_sha256)
        for h in volume.headers
    ]
    image = draft.image
    image.update(private_block(digests, record if restore_record == "embedded" else None))
    image.PrivateDataElementCharacteristicsSequence = [
        *image.get("PrivateDataElementCharacteristicsSequence", ()),
        characteristics(),
    ]
    header_end = write(file, draft, *unassigned(volume.headers, draft.unassigned))
    file.flush()
    are_unchanged()
    record_beside, sidecar_sha256 = None, ""
    if beside is not None:
        beside.write_bytes(sidecar(instance, record))
        written = beside.read_bytes()
        record_beside = read_sidecar(written, instance)
        sidecar_sha256 = hashlib.sha256(written).hexdigest()
    sha256 = prove(file, header_end, volume, fingerprints, record_beside)
    return _Made(
        sop_class_uid=str(image.SOPClassUID),
        sop_instance_uid=instance,
        series_instance_uid=series,
        sha256=sha256,
        sidecar_sha256=sidecar_sha256,
        record_bytes=len(record),
    )


def _record(volume: Volume) -> tuple[bytes, list[bytes]]:
    """The restore record, and a fingerprint of each frame's part."""
    writer = RecordWriter()
    fingerprints: list[bytes] = []
    for header in volume.headers:
        start, length = header.frame
        kept = (start, start + length) if header.source.is_received else None
        try:
            frame = surroundings(header.source.path, header.native_bytes, kept)
        except (MalformedError, TruncatedError, NotConvertibleError) as error:
            raise NotCollapsedError(CollapseReason.UNREADABLE, str(error)) from error
        writer.add(frame)
        fingerprints.append(fingerprint(frame))
    return writer.finish(), fingerprints
