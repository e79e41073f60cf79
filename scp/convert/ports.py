"""What the conversion needs from a codec. CPU and GPU back ends stand behind the same contract."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scp.config.schema import Htj2kSection

type Frames = NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.uint16] | NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFormat:
    """What the frames of one instance have in common (PS3.5 8.1.1)."""

    rows: int
    columns: int
    samples: int
    """1, or 3 interleaved."""
    bits_allocated: int
    """8 or 16: the array's item size."""
    bits_stored: int
    """The precision to signal in SIZ."""
    is_signed: bool
    colour_transform: bool
    """Whether the reversible colour transform (RCT, PS3.5 8.2.14) is used: RGB only."""


class FrameEncoder(Protocol):
    """Compresses frames losslessly, many at a time."""

    name: str
    """With version, for job records: ``openjph 1.1.1 (ojph 0.10.2)``."""

    def encode(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes]:
        """Compress, keeping order; not padded to even length.

        Parameters
        ----------
        frames
            (frames, rows, columns, samples), C-contiguous, item size and sign as ``frame_format``
            says; not modified.

        Raises
        ------
        CodecError
            The back end refused or failed. No frame of the batch is returned.
        """
        ...


class FrameDecoder(Protocol):
    """Decodes HTJ2K codestreams, many at a time."""

    name: str

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        """Decode to (frames, rows, columns, samples) of the container type of ``frame_format``.

        With ``colour_transform`` the samples come back as RGB.

        Raises
        ------
        CodecError
            A codestream cannot be decoded or has other dimensions, precision or sign.
        """
        ...


@runtime_checkable
class ComparingDecoder(FrameDecoder, Protocol):
    """A decoder that compares where it decodes."""

    def differs(
        self, codestreams: list[bytes], frames: Frames, frame_format: FrameFormat
    ) -> list[bool]:
        """Whether each codestream decodes to something else than its frame.

        Raises
        ------
        CodecError
            A codestream cannot be decoded or has other dimensions, precision or sign.
        """
        ...
