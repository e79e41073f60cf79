"""Results carry the digests of what they were made of, in their file meta group and nowhere else."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from scp.convert.carried import CREATOR, carried_by
from scp.convert.copies import examine
from scp.convert.decode import decode_for_peer
from scp.convert.digests import dataset_sha256
from scp.convert.part10 import open_dicom
from tests.convert.images import convert, image, ramp, save


def test_what_is_carried_is_what_was_converted(tmp_path: Path) -> None:
    source = save(image(ramp(), bits_stored=12), tmp_path / "a.dcm")
    target = tmp_path / "b.dcm"

    made = convert(source, target)

    carried = carried_by(open_dicom(target))
    assert carried is not None
    assert (carried.dataset, carried.pixels) == (dataset_sha256(source), made.pixel_sha256)
    assert made.result_sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    meta = dcmread(target).file_meta
    assert meta.PrivateInformationCreatorUID == CREATOR
    assert CREATOR.encode() not in target.read_bytes()[open_dicom(target).dataset_start :]
    assert len(meta.PrivateInformation) == 98


def _rle() -> Dataset:
    dataset = image(ramp(), bits_stored=12)
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def _jpeg_ls() -> Dataset:
    dataset = image(ramp(frames=3), bits_stored=12)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    return dataset


SOURCES: dict[str, Callable[[], Dataset]] = {
    "explicit": lambda: image(ramp(), bits_stored=12),
    "implicit": lambda: image(ramp(), transfer_syntax=ImplicitVRLittleEndian),
    "big endian": lambda: image(ramp(), transfer_syntax=ExplicitVRBigEndian),
    "signed": lambda: image(ramp().astype(np.int16) - 2000, bits_stored=13),
    "RLE": _rle,
    "JPEG-LS": _jpeg_ls,
    "RGB": lambda: image((ramp(samples=3) // 16).astype(np.uint8)),
    "by plane": lambda: image((ramp(samples=3) // 16).astype(np.uint8), planar=True),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_result_is_what_it_carries_whatever_it_was_made_of(tmp_path: Path, kind: str) -> None:
    dataset = SOURCES[kind]()
    source = tmp_path / "a.dcm"
    if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        dataset.save_as(source, implicit_vr=False, little_endian=False, enforce_file_format=True)
    else:
        save(dataset, source)
    target = tmp_path / "b.dcm"
    convert(source, target)

    copy = examine(target)

    assert copy is not None
    assert copy.carried is not None
    assert (copy.carried.pixels, copy.carried.header) == (copy.pixels, copy.header)


def test_a_native_copy_of_a_result_carries_them_on(tmp_path: Path) -> None:
    source = save(image(ramp(), bits_stored=12), tmp_path / "a.dcm")
    convert(source, tmp_path / "b.dcm")
    decode_for_peer(
        tmp_path / "b.dcm", tmp_path / "c.dcm", ExplicitVRLittleEndian, decode_lossy=False
    )

    copy = examine(tmp_path / "c.dcm")

    assert copy is not None
    assert copy.carried is not None
    assert (copy.carried.pixels, copy.carried.header) == (copy.pixels, copy.header)
    assert copy.carried.dataset == dataset_sha256(source)


def test_a_result_that_is_converted_again_carries_the_digests_of_the_last_source(
    tmp_path: Path,
) -> None:
    convert(save(image(ramp(), bits_stored=12), tmp_path / "a.dcm"), tmp_path / "b.dcm")
    native = dcmread(tmp_path / "b.dcm")
    native.decompress(generate_instance_uid=False)
    native.PatientID = "CORRECTED"
    again = save(native, tmp_path / "c.dcm")
    convert(again, tmp_path / "d.dcm")

    carried = carried_by(open_dicom(tmp_path / "d.dcm"))

    assert carried is not None
    assert carried.dataset == dataset_sha256(again)
    assert open_dicom(tmp_path / "d.dcm").whole.tobytes().count(CREATOR.encode()) == 1


def test_the_private_information_of_somebody_else_stays(tmp_path: Path) -> None:
    dataset = image(ramp(), bits_stored=12)
    dataset.file_meta.PrivateInformationCreatorUID = UID("1.2.276.0.99")
    dataset.file_meta.PrivateInformation = b"theirs"
    target = tmp_path / "b.dcm"
    convert(save(dataset, tmp_path / "a.dcm"), target)

    meta = dcmread(target).file_meta

    assert carried_by(open_dicom(target)) is None
    assert (meta.PrivateInformationCreatorUID, meta.PrivateInformation) == (
        "1.2.276.0.99",
        b"theirs",
    )
