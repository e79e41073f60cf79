"""Small DICOM files to deliver, and a decoder for peers that refuse them."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from scp.deliver.ports import DecodeForPeer, Receipt
from scp.deliver.send import item_of
from scp.errors import CodecError
from scp.model import DeliveryItem
from tests.material import ct_series

EXPLICIT = str(ExplicitVRLittleEndian)
IMPLICIT = str(ImplicitVRLittleEndian)
RLE = str(RLELossless)
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
CT = "1.2.840.10008.5.1.4.1.1.2"
_NOBODY = 65534


def ct_items(folder: Path, count: int, rows: int = 32) -> list[DeliveryItem]:
    """Native CT slices, Explicit VR Little Endian."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        item_for(save(dataset, folder / f"{index:03d}.dcm"))
        for index, dataset in enumerate(ct_series(count, rows, rows))
    ]


def rle_item(folder: Path, *, original_is_native: bool) -> DeliveryItem:
    """An RLE slice that was converted from a native one, or that came so."""
    native = ct_items(folder, 1)[0]
    dataset = pydicom.dcmread(native.path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    path = save(dataset, folder / "rle.dcm")
    item = replace(item_for(path), instance=native.instance)
    if original_is_native:
        return replace(item, original=native.path, original_transfer_syntax=EXPLICIT)
    return item


def lossy_item(folder: Path) -> DeliveryItem:
    """What says that it is JPEG Baseline; its fragments are never looked at."""
    native = ct_items(folder, 1)[0]
    dataset = pydicom.dcmread(native.path)
    dataset.PixelData = encapsulate([b"\xff\xd8 no image \xff\xd9"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(JPEG_BASELINE)
    return item_for(save(dataset, folder / "lossy.dcm"))


@contextmanager
def closed_folder() -> Iterator[Path]:
    """A folder with ``open/000.dcm`` and a folder ``closed`` that nobody, who we are, may list."""
    with TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        ct_items(top / "open", 1)
        (top / "closed").mkdir(mode=0o000)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(_NOBODY)
        try:
            if not os.access(top, os.R_OK, effective_ids=True):
                pytest.skip("nobody may not read the folder for temporary files")
            yield top
        finally:
            if is_root:
                os.seteuid(0)
            (top / "closed").chmod(0o755)


def save(dataset: FileDataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def item_for(path: Path) -> DeliveryItem:
    """The file as a job would list it."""
    item = item_of(path)
    assert not isinstance(item, Receipt)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(item, instance=path.name, sha256=digest)


def dataset_bytes(path: Path) -> bytes:
    """What follows the meta group, found by its group length."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def decoder(folder: Path) -> DecodeForPeer:
    """Decodes by pydicom, into ``folder``."""

    def decode(item: DeliveryItem, transfer_syntax: str) -> Path:
        dataset = pydicom.dcmread(item.path)
        if dataset.file_meta.TransferSyntaxUID == JPEG_BASELINE:
            dataset.PixelData = bytes(dataset.Rows * dataset.Columns * 2)
            dataset["PixelData"].VR = "OW"
            dataset["PixelData"].is_undefined_length = False
        elif dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset.decompress(generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
        path = folder / f"decoded-{item.instance}"
        dataset.save_as(
            path, implicit_vr=transfer_syntax == IMPLICIT, little_endian=True, overwrite=True
        )
        return path

    return decode


def no_decoder(item: DeliveryItem, transfer_syntax: str) -> Path:
    """Fails as one does that does not know the syntax."""
    raise CodecError("no decoder for it")
