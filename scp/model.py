"""The nouns that every stage shares: who sent what, what became of it, and why."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

IMPLEMENTATION_CLASS_UID: Final = "2.25.171893218640427711486871205842913284177"
"""Who wrote a file, or speaks on an association (PS3.7 D.3.3.2); ours for all versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who sent an instance and under which titles (PS3.8 9.3.2). Titles without padding."""

    calling_ae_title: str
    called_ae_title: str
    peer_address: str


@lru_cache(maxsize=4096)
def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKey:
    """What makes instances belong together; who sent them does not."""

    study_instance_uid: str
    series_instance_uid: str

    @property
    def folder(self) -> str:
        """A name that is safe as one path component whatever the UIDs hold."""
        return _hashed(f"{self.study_instance_uid}\0{self.series_instance_uid}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The four UIDs that route an instance, as its dataset gives them, padding stripped."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str

    @property
    def series(self) -> SeriesKey:
        return SeriesKey(
            study_instance_uid=self.study_instance_uid, series_instance_uid=self.series_instance_uid
        )

    @property
    def file_stem(self) -> str:
        """The name of the instance's file in the spool, without suffix or ending."""
        return _hashed(self.sop_instance_uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """One C-STORE-RQ (PS3.7 9.3.1.1) and the presentation context it came in."""

    origin: Origin
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledInstance:
    """An acknowledged instance: a DICOM file (PS3.10) in a folder of the spool."""

    path: Path
    identity: Identity
    origin: Origin
    transfer_syntax: str
    file_bytes: int


class Form(StrEnum):
    """What an instance is delivered as."""

    ORIGINAL = "original"
    HTJ2K = "htj2k"
    ENHANCED = "enhanced"


class Deliver(StrEnum):
    """When an instance is delivered."""

    WHEN_QUIET = "when_quiet"
    AT_ONCE = "at_once"


class Conflict(StrEnum):
    """What is done when another dataset comes under a known SOP Instance UID."""

    DELIVER = "deliver"
    NEWEST = "newest"
    HOLD = "hold"


class Priority(StrEnum):
    """Which of two instances goes first where both wait for one destination."""

    URGENT = "urgent"
    NORMAL = "normal"


class PassReason(StrEnum):
    """Why the original is delivered instead of a conversion. Counted and shown, so never renamed.

    The order is that of the table in ``choose/eligibility.py``, which explains each.
    """

    RULE_SAYS_ORIGINAL = "rule_says_original"
    UNREADABLE = "unreadable"
    NO_PIXEL_DATA = "no_pixel_data"
    FLOAT_PIXEL_DATA = "float_pixel_data"
    ALREADY_HTJ2K = "already_htj2k"
    LOSSY_SOURCE = "lossy_source"
    VIDEO_OR_REFERENCED = "video_or_referenced"
    UNKNOWN_TRANSFER_SYNTAX = "unknown_transfer_syntax"
    DIGITAL_SIGNATURE = "digital_signature"
    PIXEL_ATTRIBUTE_MISSING = "pixel_attribute_missing"
    BITS_ALLOCATED = "bits_allocated"
    BITS_STORED = "bits_stored"
    HIGH_BIT = "high_bit"
    SIGNED_COLOUR = "signed_colour"
    PHOTOMETRIC_INTERPRETATION = "photometric_interpretation"
    OVERLAY_IN_PIXEL_DATA = "overlay_in_pixel_data"
    UNUSED_BITS_SET = "unused_bits_set"
    PIXEL_DATA_SHORT = "pixel_data_short"
    FRAME_COUNT = "frame_count"
    FRAME_TOO_LARGE = "frame_too_large"
    CODESTREAM_MISMATCH = "codestream_mismatch"
    DECODER_FAILED = "decoder_failed"
    ENCODER_FAILED = "encoder_failed"
    HEADER_NOT_EXPRESSIBLE = "header_not_expressible"
    VERIFY_MISMATCH = "verify_mismatch"
    WORKER_LOST = "worker_lost"
    DEADLINE = "deadline"
    NO_ROOM = "no_room"
    RESULT_LOST = "result_lost"


class CollapseReason(StrEnum):
    """Why an instance stays single-frame although its rule says ``enhanced``. Never renamed."""

    UNREADABLE = "unreadable"
    SOP_CLASS = "sop_class"
    """Not CT, MR or PET Image Storage (PS3.3 A.70 to A.72)."""
    SEVERAL_FRAMES = "several_frames"
    PHOTOMETRIC_INTERPRETATION = "photometric_interpretation"
    """Not MONOCHROME2."""
    LOCALIZER = "localizer"
    PROJECTION = "projection"
    """A projection through the volume: what its frame type would say is a guess."""
    MOSAIC = "mosaic"
    """Many slices tiled in one image: its position is that of none of them."""
    DIGITAL_SIGNATURE = "digital_signature"
    OVERLAY_OR_CURVE = "overlay_or_curve"
    VOI_LUT_SEQUENCE = "voi_lut_sequence"
    MODALITY_LUT_SEQUENCE = "modality_lut_sequence"
    GEOMETRY_MISSING = "geometry_missing"
    """No Frame of Reference, position, orientation or Pixel Spacing, or unusable ones."""
    INVALID_DATE = "invalid_date"
    TYPE1_MISSING = "type1_missing"
    """The standard demands a value that the sources do not give."""
    QUANTITY_AT_RISK = "quantity_at_risk"
    """A reader of the functional groups would compute another HU, SUV or rescaled value."""
    DUPLICATE_UID = "duplicate_uid"
    SINGLE_SLICE = "single_slice"
    """Nothing else of the series belongs to it."""
    POSITIONS_REPEATED = "positions_repeated"
    """Frames lie at one place, and no dimension tells them apart."""
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_MANY_BYTES = "too_many_bytes"
    HEADER_NOT_KEPT = "header_not_kept"
    """A private element without creator fits nowhere, and no restore record would keep it."""
    LIBRARY_REFUSED = "library_refused"
    """highdicom raised."""
    PROOF_FAILED = "proof_failed"
    NOT_ACCEPTED = "not_accepted"
    """None of its destinations has ``accepts_collapsed``."""
    SERIES_WAS_CUT = "series_was_cut"
    """Closed by a limit: more of it may come."""
    LATE_INSTANCE = "late_instance"
    """The rest of its series was collapsed before."""
    WORKER_LOST = "worker_lost"
    DEADLINE = "deadline"
    NO_ROOM = "no_room"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryItem:
    """One committed instance on its way to one destination."""

    instance: str
    """Its name within the job: the key of its receipts."""
    identity: Identity
    path: Path
    """The DICOM file to deliver."""
    transfer_syntax: str
    """Of ``path``."""
    original: Path
    """The file as it was received; the same as ``path`` where nothing was converted."""
    original_transfer_syntax: str
    sha256: str
    """Of the file at ``path``, from the job's commit; empty: not known."""
    original_dataset_sha256: str = ""
    """Of the dataset in ``original`` as it was received, without the file meta group; empty: not known."""
    is_conflict: bool = False
    """Another dataset came under the same SOP Instance UID before."""
    is_urgent: bool = False
    """It goes before whatever waits and is not."""
    calling_ae_title: str = ""
    """Of whoever sent it to us; empty: not known."""
    sidecar: Path | None = None
    """A file that a folder keeps beside it, under the same name and its own suffix."""
    sidecar_sha256: str = ""
    """Of that file; empty: not known."""
