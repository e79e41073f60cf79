"""What collapsing gives; apart from how, because highdicom takes half a second and 60 MB to import."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapsed:
    """One object, written and proved. Digests are SHA-256 in hexadecimal."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax: str
    frames: tuple[tuple[str, int], ...]
    """The name of each source in the job and the number of its frame, from 1."""
    result_sha256: str
    """Of the written file."""
    result_bytes: int
    sidecar: Path | None
    """The restore record beside the object, where it is kept there."""
    sidecar_sha256: str
    """Of that file; empty without one."""
    record_bytes: int
    """Of the restore record; 0 without one."""
    seconds: float
