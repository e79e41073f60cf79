"""Small DICOM files for the tests of the conversion, and an independent look at what came out."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphDecoder, OpenJphEncoder
from scp.convert.ports import FrameDecoder, FrameFormat
from scp.convert.transcode import Transcoded, transcode

type Array = NDArray[Any]

ENCODER = OpenJphEncoder()
OPENJPEG = OpenJpegDecoder()
OPENJPH = OpenJphDecoder()
NOISE: Array = np.random.default_rng(3).integers(0, 4096, (3, 21, 34, 1)).astype("<u2")
CHANGING = {
    0x00280004, 0x00280006, 0x7FE00000, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010,
}  # fmt: skip
"""The elements that the standard couples to the transfer syntax of the pixels."""


def image(
    frames: Array,
    *,
    bits_stored: int | None = None,
    photometric: str | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    planar: bool = False,
) -> Dataset:
    """A dataset with native pixels.

    Parameters
    ----------
    frames
        (frames, rows, columns, samples), of 8 or 16 bits.
    planar
        Colour by plane.
    """
    count, rows, columns, samples = frames.shape
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.SOPClassUID = (
        CTImageStorage if samples == 1 else MultiFrameTrueColorSecondaryCaptureImageStorage
    )
    dataset.SOPInstanceUID = "2.25.1001"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "Übung^Phantom"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    reference = Dataset()
    reference.ReferencedSOPClassUID = CTImageStorage
    reference.ReferencedSOPInstanceUID = "2.25.1000"
    dataset.ReferencedImageSequence = [reference, reference]
    block = dataset.private_block(0x0019, "DCMPRESS TEST", create=True)
    block.add_new(0x01, "FD", [1.5, -2.5])
    block.add_new(0x02, "LO", "a private text")
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    if samples > 1:
        dataset.PlanarConfiguration = int(planar)
    if count > 1:
        dataset.NumberOfFrames = count
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = frames.dtype.itemsize * 8
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    if planar:
        frames = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    dataset.PixelData = words(frames, big=transfer_syntax == ExplicitVRBigEndian)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated == 16 else "OB"
    return dataset


def words(frames: Array, *, big: bool = False) -> bytes:
    """Pixel words as they lie in a dataset, padded to even length."""
    encoded = frames.astype(frames.dtype.newbyteorder(">" if big else "<")).tobytes()
    return encoded + bytes(len(encoded) % 2)


def save(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def ramp(rows: int = 20, columns: int = 30, frames: int = 1, samples: int = 1) -> Array:
    """Unsigned words below 4096, every one its neighbours' close relative."""
    ramps = np.indices((frames, rows, columns, samples)).sum(axis=0) * 37 % 4096
    return ramps.astype(np.uint16)


def shipped(name: str) -> Path:
    """A file of pydicom's own test material, of those in its wheel."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"{name} is not shipped with pydicom"
    return Path(path)


def convert(
    source: Path, target: Path, verifier: FrameDecoder | None = OPENJPEG, **parameters: Any
) -> Transcoded:
    return transcode(source, target, Htj2kSection(**parameters), ENCODER, verifier)


def pixels(path: Path) -> Array:
    """(frames, rows, columns, samples) as pydicom reads them, without colour conversion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path)
        array = pixel_array(dataset, raw=True)
    shape = (
        int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns,
        dataset.SamplesPerPixel,
    )  # fmt: skip
    return array.reshape(shape)


def codestreams(path: Path) -> list[bytes]:
    dataset = dcmread(path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    return list(generate_frames(dataset.PixelData, number_of_frames=frames))


def decoded(path: Path, decoder: FrameDecoder) -> Array:
    """The frames of an HTJ2K file by one decoder, its header read by pydicom."""
    dataset = dcmread(path)
    form = FrameFormat(
        rows=dataset.Rows,
        columns=dataset.Columns,
        samples=dataset.SamplesPerPixel,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        is_signed=bool(dataset.PixelRepresentation),
        colour_transform=dataset.PhotometricInterpretation == "YBR_RCT",
    )
    return decoder.decode(codestreams(path), form)


def dataset_bytes(path: Path) -> bytes:
    """Everything after the file meta group."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def differences(one: Dataset, other: Dataset, *, raw: bool, where: str = "") -> list[str]:
    """What two headers do not share, sequences included.

    Parameters
    ----------
    raw
        Compare the bytes of values; else what they mean, because ``one`` is big endian.
    """
    top = not where
    tags = {int(tag) for tag in (*one.keys(), *other.keys())}
    found = []
    for tag in sorted(tags):
        name = f"{where}{tag:08X}"
        if (top and tag in CHANGING) or tag & 0xFFFF == 0:
            continue
        if tag not in one or tag not in other:
            found.append(f"{name} only once")
            continue
        left: Any = one.get_item(tag)
        right: Any = other.get_item(tag)
        values = (one[tag].value, other[tag].value) if one[tag].VR == "SQ" else ()
        if values:
            if len(values[0]) != len(values[1]):
                found.append(f"{name} has other items")
            for index, pair in enumerate(zip(*values, strict=False)):
                found += differences(*pair, raw=raw, where=f"{name}[{index}].")
        elif raw and isinstance(left, RawDataElement) and isinstance(right, RawDataElement):
            if (left.value or b"") != (right.value or b""):
                found.append(f"{name} has another value")
        elif one[tag].VR == "OW" and not raw:
            # pydicom hands out words as they lie in the file.
            if words(np.frombuffer(one[tag].value, ">u2")) != other[tag].value:
                found.append(f"{name} has other words")
        elif repr(one[tag].value) != repr(other[tag].value):
            found.append(f"{name} has another value")
    return found


def header_differences(one: Path, other: Path, *, raw: bool = True) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return differences(dcmread(one), dcmread(other), raw=raw)
