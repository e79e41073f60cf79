"""Datasets in every encoding of PS3.5, written by pydicom, and generators of random ones."""

import zlib

from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

SYNTAXES = (
    str(ImplicitVRLittleEndian),
    str(ExplicitVRLittleEndian),
    str(ExplicitVRBigEndian),
    str(DeflatedExplicitVRLittleEndian),
)


def encoded(dataset: Dataset, transfer_syntax: str) -> bytes:
    """The dataset as it goes over an association."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = transfer_syntax != ExplicitVRBigEndian
    buffer.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    write_dataset(buffer, dataset)
    raw = buffer.getvalue()
    return deflated(raw) if transfer_syntax == DeflatedExplicitVRLittleEndian else raw


def deflated(raw: bytes, level: int = 6) -> bytes:
    """A raw deflate stream (PS3.5 A.5)."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(raw) + compressor.flush()


_TEXT = st.text("ABC 123", max_size=12).map(str.strip)
_UID = st.from_regex(r"1\.2(\.[1-9][0-9]{0,3}){1,4}", fullmatch=True)
_WORDS = st.binary(max_size=12).map(lambda raw: raw[: len(raw) & ~7])

_VALUES: dict[str, st.SearchStrategy[object]] = {
    "AE": _TEXT,
    "AS": st.just("042Y"),
    "AT": st.integers(0, 2**32 - 1),
    "CS": _TEXT,
    "DA": st.just("20200101"),
    "DS": st.sampled_from(["1.5", "-2", ""]),
    "DT": st.just("20200101120000"),
    "FD": st.floats(width=64, allow_nan=False),
    "FL": st.floats(width=32, allow_nan=False),
    "IS": st.sampled_from(["1", "-7", ""]),
    "LO": _TEXT,
    "LT": _TEXT,
    "OB": st.binary(max_size=12),
    "OD": _WORDS,
    "OF": _WORDS,
    "OL": _WORDS,
    "OV": _WORDS,
    "OW": _WORDS,
    "PN": _TEXT,
    "SH": _TEXT,
    "SL": st.integers(-(2**31), 2**31 - 1),
    "SS": st.integers(-(2**15), 2**15 - 1),
    "ST": _TEXT,
    "SV": st.integers(-(2**63), 2**63 - 1),
    "TM": st.just("120000"),
    "UC": _TEXT,
    "UI": _UID,
    "UL": st.integers(0, 2**32 - 1),
    "UN": st.binary(max_size=12),
    "UR": _UID,
    "US": st.integers(0, 2**16 - 1),
    "UT": _TEXT,
    "UV": st.integers(0, 2**64 - 1),
}

_PRIVATE = st.builds(
    lambda group, number: group << 16 | number,
    st.sampled_from([0x0009, 0x0019, 0x0021, 0x7FE1]),
    st.integers(0x1000, 0x10FF),
)
_STANDARD = st.sampled_from(
    (
        *(0x00080016, 0x00080020, 0x00080060, 0x00100010, 0x00180050, 0x00189073, 0x0020000D),
        *(0x00200013, 0x00209165, 0x00280002, 0x00400310, 0x00660016),
    )
)
_SEQUENCES = st.sampled_from([0x00081140, 0x00081115, 0x00209116, 0x00400275])


@st.composite
def datasets(draw: st.DrawFn, depth: int = 3) -> Dataset:
    """Any elements with any value representation, sequences in sequences, of either kind of length."""
    dataset = Dataset()
    for tag in draw(st.lists(_PRIVATE | _STANDARD | _SEQUENCES, unique=True, max_size=4)):
        vr = draw(st.sampled_from(sorted(_VALUES))) if tag >> 16 & 1 else dictionary_VR(tag)
        if vr == "SQ" or (depth and tag >> 16 & 1 and draw(st.integers(0, 2)) == 0):
            items = draw(st.lists(datasets(depth - 1), max_size=3)) if depth else []
            for item in items:
                item.is_undefined_length_sequence_item = draw(st.booleans())
            found = DataElement(tag, "SQ", Sequence(items))
            found.is_undefined_length = draw(st.booleans())
        else:
            found = DataElement(tag, vr, draw(_VALUES[vr]))
        dataset.add(found)
    return dataset
