"""Whose a collapsed object is, and whether that is still who its originals say."""

from typing import Final

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

IDENTITY: Final = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "AccessionNumber",
)
"""What a PACS corrects in the object, and the record does not know of."""


def identity_in(header: bytes) -> dict[str, str] | None:
    """What identifies the patient and the study; None where pydicom cannot read it."""
    try:
        dataset = dcmread(
            DicomBytesIO(header),
            stop_before_pixels=True,
            specific_tags=[*IDENTITY, "SpecificCharacterSet"],
        )
        return {keyword: str(dataset.get(keyword) or "") for keyword in IDENTITY}
    except Exception:  # pydicom raises whatever a value provokes
        return None


def difference(original: dict[str, str] | None, now: dict[str, str] | None) -> str:
    """Names what identifies the patient otherwise in the object than in the original; no values."""
    if original is None or now is None:
        return "whether the object and the original name the same patient cannot be told"
    different = [keyword for keyword in IDENTITY if original[keyword] != now[keyword]]
    if not different:
        return ""
    return f"the object now says otherwise, the original as it was: {', '.join(different)}"
