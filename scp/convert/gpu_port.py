"""What the conversion asks of a GPU, in its own words; behind it is nvImageCodec, or a test's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from scp.elements import Buffer
from scp.errors import CodecError

type Frame = NDArray[Any]
"""(rows, columns, samples), C-contiguous: uint8, uint16 or int16."""


class GpuError(CodecError):
    """The GPU did not do what it was asked to; the CPU must."""


class GpuUnavailableError(GpuError):
    """The GPU is out of use for a while: it failed or hung, or another caller's work made it fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSettings:
    """What is the same for all frames of one call; their sizes may differ."""

    precision: int
    """Bits; what SIZ says."""
    decompositions: int
    code_block: int
    """Side in samples: 32 or 64."""
    progression: Literal["RPCL", "LRCP", "RLCP", "PCRL", "CPRL"]
    colour_transform: bool


class Gpu(Protocol):
    """One GPU. Any exception means that it may be of no more use, and nothing that it was doing counts."""

    name: str
    """Library and version, for job records."""

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> Sequence[Buffer | None]:
        """HTJ2K codestreams, lossless; None where the GPU could not. They are good until the next call."""
        ...

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        """The frames, of as few bits as hold them; None where the GPU could not."""
        ...

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        """Decode, and compare on the device; None where the GPU could not."""
        ...

    def close(self) -> None:
        """Give back what the device lent."""
        ...


class SharedGpu(Gpu, Protocol):
    """A GPU that others use too, and that may be busy or out of use: then it raises GpuUnavailableError."""

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[bytes | None]:
        """As of one GPU; the codestreams are the caller's."""
        ...

    def distrust(self, why: str) -> None:
        """Have it left alone for a while by everybody: what it said was wrong."""
        ...
