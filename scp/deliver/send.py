"""Plain DICOM files as things to deliver: what ``dcmpress send`` does."""

import os
from collections.abc import Iterable, Iterator
from itertools import batched
from pathlib import Path
from typing import Final

from scp.config.schema import DicomDestination as DicomSection
from scp.deliver.dicom import DicomDestination
from scp.deliver.dicomfile import read_meta, read_values
from scp.deliver.ports import DecodeForPeer, Destination, Receipt, Verdict
from scp.errors import MalformedError
from scp.model import DeliveryItem, Identity

_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E
_UIDS: Final = (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES)

_MEDIA_DIRECTORY: Final = "1.2.840.10008.1.3.10"
"""A DICOMDIR, which belongs to its medium (PS3.10 section 8.6)."""
_FILES_AN_ASSOCIATION: Final = 1000


def send_files(
    paths: Iterable[Path], section: DicomSection, decode: DecodeForPeer
) -> Iterator[Receipt]:
    """As :func:`deliver_files`, to one node."""
    yield from deliver_files(paths, DicomDestination(section.ae_title, section, decode))


def deliver_files(paths: Iterable[Path], destination: Destination) -> Iterator[Receipt]:
    """Deliver files, and all files of folders, and yield a receipt for each, named by its path.

    What is no DICOM file is not delivered: its receipt says HELD and ``not_dicom``. Nothing is tried
    twice.

    Raises
    ------
    DeliveryError
        As of :meth:`scp.deliver.ports.Destination.deliver`.
    """
    for names in batched(_files(paths), _FILES_AN_ASSOCIATION):
        items: list[DeliveryItem] = []
        for path in names:
            found = item_of(path)
            if isinstance(found, Receipt):
                yield found
            else:
                items.append(found)
        yield from destination.deliver(items, lambda: False)


def item_of(path: Path) -> DeliveryItem | Receipt:
    """A file as it is, to be delivered; or why it cannot be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _not_sent(path, f"file_unreadable: {error.strerror}")
    try:
        meta = read_meta(descriptor)
        if meta.sop_class_uid == _MEDIA_DIRECTORY:
            return _not_sent(path, "not_dicom: a DICOMDIR is not sent")
        values = read_values(descriptor, meta, _UIDS)
    except MalformedError as error:
        return _not_sent(path, f"not_dicom: {error}")
    except OSError as error:
        return _not_sent(path, f"file_unreadable: {error.strerror}")
    finally:
        os.close(descriptor)
    identity = Identity(
        sop_class_uid=values.get(_SOP_CLASS) or meta.sop_class_uid,
        sop_instance_uid=values.get(_SOP_INSTANCE) or meta.sop_instance_uid,
        study_instance_uid=values.get(_STUDY, ""),
        series_instance_uid=values.get(_SERIES, ""),
    )
    if not identity.sop_class_uid or not identity.sop_instance_uid:
        return _not_sent(path, "not_dicom: it names no SOP class or instance")
    return DeliveryItem(
        instance=str(path),
        identity=identity,
        path=path,
        transfer_syntax=meta.transfer_syntax,
        original=path,
        original_transfer_syntax=meta.transfer_syntax,
        sha256="",
    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from _files_below(path)
        else:
            yield path


def _files_below(top: Path) -> Iterator[Path]:
    closed: list[OSError] = []
    for folder, folders, names in top.walk(on_error=closed.append):
        folders.sort()
        yield from (folder / name for name in sorted(names))
    # What cannot be listed cannot be opened either, and so gets a receipt that says why.
    yield from (Path(error.filename) for error in closed)


def _not_sent(path: Path, detail: str) -> Receipt:
    return Receipt(instance=str(path), verdict=Verdict.HELD, status="", detail=detail)
