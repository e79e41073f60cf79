"""Small DICOM files as bytes, each with what a test wants to be special about it."""

import io
import struct
from typing import Any

from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage

EXPLICIT = "1.2.840.10008.1.2.1"
RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
NATIVE = (EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


def image(transfer_syntax: str = EXPLICIT, *, frames: int = 1, **changes: Any) -> bytes:
    """A 4x4 CT of 12 bits in 16; ``changes`` by keyword, None deletes."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.1"
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(32 * frames)
    for keyword, value in changes.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    if "PixelData" in dataset:
        is_native = transfer_syntax in NATIVE
        if not is_native:
            dataset.PixelData = encapsulate([bytes(8)] * frames)
            dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OW" if is_native else "OB"
    return file_of(dataset, transfer_syntax)


def with_elements(*elements: DataElement, transfer_syntax: str = EXPLICIT) -> bytes:
    """The same image with elements added."""
    dataset = dcmread(io.BytesIO(image(transfer_syntax)))
    for element in elements:
        dataset.add(element)
    return file_of(dataset, transfer_syntax)


def file_of(dataset: Dataset, transfer_syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.file_meta = meta
    written = io.BytesIO()
    dcmwrite(written, dataset, enforce_file_format=True)
    return written.getvalue()


def raw_element(tag: int, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian, as a sender might write it and no library would."""
    is_long = vr in ("OB", "OW", "SQ", "UN", "UR", "UT")
    length = struct.pack("<HL", 0, len(value)) if is_long else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + length + value


def raw_file(*elements: bytes, transfer_syntax: str = EXPLICIT) -> bytes:
    """A file of elements that are encoded already."""
    uid = transfer_syntax.encode()
    meta = raw_element(0x00020010, "UI", uid + b"\0" * (len(uid) % 2))
    return bytes(128) + b"DICM" + meta + b"".join(elements)
