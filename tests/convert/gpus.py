"""A GPU for tests on machines that have none: OpenJPH and OpenJPEG behind the same port, and its faults."""

import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scp.config.schema import Htj2kSection
from scp.convert.codestream import parse_codestream
from scp.convert.gpu_port import EncodeSettings, Frame
from scp.convert.ports import FrameFormat
from scp.elements import Buffer
from tests.convert.images import ENCODER, OPENJPEG, Array


def format_of(frames: Array, bits_stored: int, *, colour_transform: bool = False) -> FrameFormat:
    return FrameFormat(
        rows=frames.shape[1],
        columns=frames.shape[2],
        samples=frames.shape[3],
        bits_allocated=frames.dtype.itemsize * 8,
        bits_stored=bits_stored,
        is_signed=frames.dtype.kind == "i",
        colour_transform=colour_transform,
    )


def without_tlm(codestream: bytes) -> bytes:
    """As nvJPEG2000 would have written it."""
    position, kept = 2, [codestream[:2]]
    while True:
        marker, length = struct.unpack_from(">HH", codestream, position)
        if marker == 0xFF90:
            return b"".join((*kept, codestream[position:]))
        if marker != 0xFF55:
            kept.append(codestream[position : position + 2 + length])
        position += 2 + length


class SoftwareGpu:
    """Does on the CPU what a GPU does."""

    def __init__(self) -> None:
        self.name = "software gpu 1.0"
        self.batches: list[int] = []
        """Frames of each call."""
        self.settings: list[EncodeSettings] = []
        self.is_closed = False

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[bytes | None]:
        self.batches.append(len(frames))
        self.settings.append(settings)
        parameters = Htj2kSection(
            decompositions=settings.decompositions,
            code_block=(64, 64) if settings.code_block == 64 else (32, 32),
            progression=settings.progression,
        )
        codestreams: list[bytes | None] = []
        for frame in frames:
            form = format_of(
                frame[np.newaxis], settings.precision, colour_transform=settings.colour_transform
            )
            codestreams += map(without_tlm, ENCODER.encode(frame[np.newaxis], form, parameters))
        return codestreams

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        self.batches.append(len(codestreams))
        return list(map(self._decoded, codestreams))

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        self.batches.append(len(codestreams))
        pairs = zip(map(self._decoded, codestreams), frames, strict=True)
        return [not np.array_equal(ours, theirs) for ours, theirs in pairs]

    def close(self) -> None:
        self.is_closed = True

    def _decoded(self, codestream: Buffer) -> Frame:
        header = parse_codestream(codestream)
        form = FrameFormat(
            rows=header.rows,
            columns=header.columns,
            samples=header.components,
            bits_allocated=8 if header.precision <= 8 else 16,
            bits_stored=header.precision,
            is_signed=header.is_signed,
            colour_transform=header.colour_transform,
        )
        frame: Frame = OPENJPEG.decode([bytes(codestream)], form)[0]
        return frame


type Fault = Callable[[list[Any]], list[Any]]
"""What becomes of the answers of one call; may raise, or not return."""


def right(answers: list[Any]) -> list[Any]:
    return answers


def missing(*numbers: int) -> Fault:
    return lambda answers: [None if n in numbers else each for n, each in enumerate(answers)]


def all_missing(answers: list[Any]) -> list[Any]:
    return [None] * len(answers)


def short(answers: list[Any]) -> list[Any]:
    return answers[1:]


def raising(error: Exception) -> Fault:
    def fault(answers: list[Any]) -> list[Any]:
        raise error

    return fault


def wrong(answers: list[Any]) -> list[Any]:
    """Codestreams lose their end; answers are the opposite of the truth; frames lose a bit."""
    return [
        each[:-40]
        if isinstance(each, bytes)
        else (not each if isinstance(each, bool) else each ^ 1)
        for each in answers
    ]


class Hang:
    """Does not return until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def __call__(self, answers: list[Any]) -> list[Any]:
        self.entered.set()
        self.released.wait()
        return answers


class FaultyGpu(SoftwareGpu):
    """Does to each call, in turn, what it was told; afterwards all is right."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__()
        self._faults = iter(faults)

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[bytes | None]:
        return self._spoilt(super().encode(frames, settings))

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        return self._spoilt(super().decode(codestreams))

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        return self._spoilt(super().differing(codestreams, frames))

    def _spoilt(self, answers: list[Any]) -> list[Any]:
        return next(self._faults, right)(answers)
