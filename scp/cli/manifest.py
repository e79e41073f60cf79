"""The record that ``dcmpress transcode`` keeps in its output folder: what makes it resumable, and proves.

JSON lines, only appended; the last line about a source counts. A line that a crash tore is ignored. The
lines of a volume's frames count only with the line of the volume, which comes after them.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    """``htj2k``, ``enhanced``, ``original``, or :data:`NOT_DICOM`."""
    reason: str = ""
    not_collapsed: str = ""
    """Why it is single-frame although its rule says ``enhanced``."""
    result_bytes: int = 0
    """Of a frame, its share of the volume."""
    dataset_sha256: str = ""
    pixel_sha256: str = ""
    result_sha256: str = ""
    """Of the file that it is, or is a frame of."""
    verified_by: str = ""
    volume: str = ""
    """The object that it is a frame of; empty where the result has the source's name."""
    frame: int = 0
    """Its number there, from 1."""

    @property
    def result(self) -> str:
        """Where the result lies."""
        return self.volume or self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeEntry:
    """One multi-frame object that source files were collapsed into."""

    volume: str
    """Its path."""
    sop_instance_uid: str
    source_series_instance_uid: str
    frames: int
    result_bytes: int
    result_sha256: str
    sidecar_sha256: str = ""
    """Of the restore record beside it; empty where there is none beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that the record knows."""

    entries: dict[str, Entry]
    """By source."""
    volumes: dict[str, VolumeEntry]
    """By path."""


def read_manifest(folder: Path) -> Manifest:
    """What the record in a folder says; nothing where there is none."""
    path = folder / MANIFEST
    found = list(_lines(path.read_bytes())) if path.is_file() else []
    volumes = {line.volume: line for line in found if isinstance(line, VolumeEntry)}
    entries = {line.source: line for line in found if isinstance(line, Entry)}
    return Manifest(
        entries={
            source: entry
            for source, entry in entries.items()
            if not entry.volume or entry.volume in volumes
        },
        volumes=volumes,
    )


def encode(*lines: Entry | VolumeEntry) -> bytes:
    return b"".join(json.dumps(asdict(line)).encode() + b"\n" for line in lines)


def _lines(content: bytes) -> Iterator[Entry | VolumeEntry]:
    for line in content.split(b"\n"):
        try:
            values: dict[str, Any] = json.loads(line)
            entry = Entry(**values) if "source" in values else VolumeEntry(**values)
        except (ValueError, TypeError, RecursionError):
            continue
        names = (entry.source, entry.volume) if isinstance(entry, Entry) else (entry.volume,)
        if all(isinstance(name, str) for name in names):
            yield entry
