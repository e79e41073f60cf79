"""What the ledger says of an instance beside what routes it."""

import logging
import re
from pathlib import Path
from typing import Final

from scp.choose.attributes import Wanted, read_attributes
from scp.errors import NodeError
from scp.ledger.patients import PatientHash

logger = logging.getLogger(__name__)

_MODALITY: Final = "Modality"
_PATIENT_ID: Final = "PatientID"
_WANTED: Final = Wanted(
    public={0x00080060: _MODALITY, 0x00100020: _PATIENT_ID}, stop_before=0x00100021
)
_CODE_STRING: Final = re.compile(r"[A-Z0-9_ ]{1,16}")
"""PS3.5 6.2; anything else, a name for one, is not kept."""


class Labels:
    """Reads modality and patient, the latter as a hash only. Used in the workers, which have time."""

    def __init__(self, patient_key: Path) -> None:
        self._path = patient_key
        self._hash: PatientHash | None = None

    def of(self, source: Path) -> tuple[str, str]:
        """Modality, and hash of the Patient ID; each empty where there is none to be had."""
        try:
            if not source.is_file():  # Reading what is none may never end.
                return "", ""
            found = read_attributes(source, _WANTED)
        except OSError:
            return "", ""
        values = {
            key: attribute.values[0] for key, attribute in found.found if any(attribute.values)
        }
        modality = values.get(_MODALITY, "")
        patient = values.get(_PATIENT_ID, "")
        return modality if _CODE_STRING.fullmatch(modality) else "", self._hashed(patient)

    def _hashed(self, patient_id: str) -> str:
        try:
            if self._hash is None:
                self._hash = PatientHash.open(self._path)
        except NodeError as error:
            logger.debug(
                "not found by its patient: %s", error
            )  # The coordinator has said it louder.
            return ""
        return self._hash.of(patient_id)
