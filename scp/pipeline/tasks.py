"""What the coordinator asks of a worker, and what comes back."""

from dataclasses import dataclass
from pathlib import Path

from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.refusals import NotCollapsed
from scp.convert.enhanced.slices import SourceSlice
from scp.convert.gpu_thread import GpuStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertTask:
    """Examine one instance and, where ``target`` is given and DICOM allows it, convert it."""

    source: Path
    target: Path | None
    is_for_volume: bool = False
    """What is HTJ2K already is proved instead, to become a frame as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a :class:`ConvertTask`."""

    reason: str = ""
    """A ``PassReason``; empty where ``target`` was written."""
    detail: str = ""
    source_missing: bool = False
    """The source was renamed under the worker's feet: ask again with its new name."""
    dataset_sha256: str = ""
    normal_sha256: str = ""
    pixel_sha256: str = ""
    transfer_syntax: str = ""
    result_sha256: str = ""
    result_bytes: int = 0
    frames: int = 0
    is_received_frame: bool = False
    """It is HTJ2K already, which is the ``reason`` by itself; but it was proved, and may become a frame."""
    encoder: str = ""
    verified_by: str = ""
    modality: str = ""
    patient_id_hash: str = ""
    is_synced: bool = False
    """The worker has synced ``target``; nobody has synced its name."""
    seconds: float = 0.0

    @property
    def is_converted(self) -> bool:
        return not self.reason and bool(self.result_sha256)

    @property
    def can_be_frame(self) -> bool:
        """Whether there is a codestream, proved, that may become a frame of a volume."""
        return self.is_converted or self.is_received_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTask:
    """Make a native copy for a peer, verified."""

    source: Path
    original: Path
    target: Path
    transfer_syntax: str
    decode_lossy: bool
    sha256: str = ""
    """Of ``source``, and of the dataset in ``original``; empty: not known."""
    original_dataset_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What became of a :class:`DecodeTask`."""

    error: str = ""
    """Empty where ``target`` was written."""
    is_for_lack_of_room: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapseTask:
    """Collapse what can be collapsed of a closed series."""

    slices: tuple[SourceSlice, ...]
    folder: Path
    """For this task alone; it holds the volumes, over those of a worker that died at it."""
    only: frozenset[str] | None = None
    """Where given, what was made of the series before: only these objects, by UID, are made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapse:
    """What became of a :class:`CollapseTask`: every slice is in one volume, or refused."""

    volumes: tuple[tuple[Path, Collapsed], ...] = ()
    """Each file, synced, and what it is."""
    refused: tuple[NotCollapsed, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker says first: its libraries are loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """What a process that has a GPU says every second; silence means that it hangs."""

    device: str = ""
    """Its name."""
    devices: int = 0
    """How many GPUs this machine has."""
    why_not: str = ""
    """Why there is none to be had: the last word of a process that is not started again."""
    is_ready: bool = False
    """It was opened, and workers may come."""
    status: GpuStatus | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """What a worker says of the task in hand: how much work it is, where the file's size does not tell."""

    native_bytes: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The task took its worker with it, twice, or missed its deadline."""

    reason: str
    """A ``PassReason``."""
    detail: str


type Task = ConvertTask | DecodeTask | CollapseTask


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is sent: a task, and whether somebody waits for just this one."""

    task: Task
    is_urgent: bool


type Answer = Outcome | Decoded | Collapse
