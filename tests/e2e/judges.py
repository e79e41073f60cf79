"""What was sent against what came out, judged by libraries that the node does not encode with."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import unpack_from
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array

HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
RPCL = HTJ2K[1]

COUPLED = frozenset({0x00280004, 0x00280006, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010})
"""What a transfer syntax is coupled to: photometric interpretation, planar configuration, offset
tables, the pixel data (PS3.5 8.2, PS3.3 C.7.6.3)."""


def transfer_syntax(path: Path) -> str:
    return str(
        pydicom.dcmread(path, stop_before_pixels=True, force=True).file_meta.TransferSyntaxUID
    )


def assert_converted(source: Path, result: Path, syntax: str | None = RPCL) -> None:
    """Every pixel equal by two decoders, and the header but for what is coupled to the syntax."""
    with quiet_pydicom():
        before, after = pydicom.dcmread(source), pydicom.dcmread(result)
        assert after.file_meta.TransferSyntaxUID in ((syntax,) if syntax else HTJ2K)
        expected = pixels(before)
        judged = pixels(after)
        assert judged.dtype.itemsize == expected.dtype.itemsize
        np.testing.assert_array_equal(judged, expected)
        np.testing.assert_array_equal(by_openjph(after).reshape(expected.shape), expected)
        assert differing_elements(before, after) <= COUPLED


def pixels(dataset: Dataset) -> NDArray[Any]:
    """By pydicom, which decodes HTJ2K by OpenJPEG; colours as stored."""
    return pixel_array(dataset, raw=True)


def by_openjph(dataset: Dataset) -> NDArray[Any]:
    """Every frame, by the other library."""
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = generate_frames(dataset.PixelData, number_of_frames=count)
    decoded = [imagecodecs.htj2k_decode(frame, planar=True) for frame in frames]
    if dataset.SamplesPerPixel > 1:
        decoded = [np.moveaxis(frame, 0, -1) for frame in decoded]
    return np.stack(decoded)


def differing_elements(before: Dataset, after: Dataset) -> set[int]:
    """Tags whose values are not the same in both; group lengths are the encoding's business."""
    tags = {tag for tag in {*before.keys(), *after.keys()} if tag.element != 0}
    return {int(tag) for tag in tags if _value(before, tag) != _value(after, tag)}


def _value(dataset: Dataset, tag: Any) -> Any:
    if tag not in dataset:
        return "absent"
    raw = dataset.get_item(tag)
    try:
        element = dataset[tag]
    except Exception:
        # What pydicom cannot read has to be there as it was.
        return bytes(getattr(raw, "value", b"") or b"")
    if element.VR == "SQ":
        return [
            {int(t): _value(item, t) for t in item.keys() if t.element != 0}  # noqa: SIM118
            for item in element.value
        ]
    if isinstance(element.value, bytes):
        return element.value
    return repr(element.value)


def dataset_bytes(path: Path) -> bytes:
    """What follows the file meta group (PS3.10 7.1)."""
    content = path.read_bytes()
    assert content[128:132] == b"DICM"
    position = 132
    while position + 8 <= len(content) and unpack_from("<H", content, position)[0] == 2:
        is_long = content[position + 4 : position + 6] in (b"OB", b"UN", b"UR", b"UT")
        if is_long:
            position += 12 + int(unpack_from("<L", content, position + 8)[0])
        else:
            position += 8 + int(unpack_from("<H", content, position + 6)[0])
    return content[position:]


def patient_values(path: Path) -> Iterator[str]:
    """What must never be in a log: names, identifiers, dates of birth and of the study."""
    with quiet_pydicom():
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        for keyword in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "StudyDate",
            "AccessionNumber",
        ):
            value = str(dataset.get(keyword) or "").strip()
            if len(value) >= 6 and not re.fullmatch(r"[\d.]{1,5}", value):
                yield value


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Real files are full of what pydicom warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
