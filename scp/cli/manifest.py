"""The record that ``dcmpress transcode`` keeps in its output folder: what makes it resumable, and proves.

JSON lines, only appended; the last line about a source counts. A line that a crash tore is ignored.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

MANIFEST = ".dcmpress.jsonl"
NOT_DICOM = "not_dicom"
"""The form of what was left alone, and has no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One source file and what became of it; paths are relative to IN and OUT."""

    source: str
    source_bytes: int
    source_mtime_ns: int
    modality: str
    form: str
    """``htj2k``, ``original``, or :data:`NOT_DICOM`."""
    reason: str = ""
    result_bytes: int = 0
    dataset_sha256: str = ""
    pixel_sha256: str = ""
    result_sha256: str = ""
    verified_by: str = ""


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Entries by source; none where there is no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    content = path.read_bytes()
    return {entry.source: entry for entry in _entries(content)}


def encode(entry: Entry) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"


def _entries(content: bytes) -> Iterator[Entry]:
    for line in content.split(b"\n"):
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(entry.source, str):
            yield entry
