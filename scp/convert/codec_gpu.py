"""HTJ2K on the GPU, behind the contracts of :mod:`scp.convert.ports`.

What nvJPEG2000 encoded is to be proved by another library (OpenJPH, OpenJPEG), and what OpenJPH encoded may
be proved by nvJPEG2000. Nothing that the GPU cannot do reaches it: it would answer with None and a line on
standard error.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, cast

import numpy as np

from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import container_type
from scp.convert.codestream import decompositions_for, parse_codestream
from scp.convert.gpu_port import EncodeSettings, Frame, Gpu, GpuError
from scp.convert.ports import FrameEncoder, FrameFormat, Frames
from scp.convert.tlm import with_tlm
from scp.elements import Buffer
from scp.errors import CodecError

_SMALLEST_SIDE: Final = 16
"""Rows and columns; nvJPEG2000 refuses a single one (0.11.0), and frames this small gain nothing."""
_CODE_BLOCKS: Final = ((32, 32), (64, 64))
_LEAST_SIGNED: Final = 9
"""Bits from which on nvJPEG2000 decodes signed samples."""


class PartialEncoder(FrameEncoder, Protocol):
    """An encoder that can say which frames it could not compress."""

    def encode_some(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes | None]:
        """As ``encode``, with None for a frame that another encoder must compress.

        Raises
        ------
        CodecError
            None of them was compressed.
        """
        ...


def why_not_encoded(frame_format: FrameFormat, parameters: Htj2kSection) -> str:
    """Why the GPU cannot compress such frames; empty where it can."""
    checks = (
        (frame_format.bits_allocated == 16 or not frame_format.is_signed, "signed bytes"),
        (not frame_format.is_signed or frame_format.samples == 1, "signed colour"),
        (frame_format.samples in (1, 3), "number of samples"),
        (min(frame_format.rows, frame_format.columns) >= _SMALLEST_SIDE, "too small a frame"),
        (tuple(parameters.code_block) in _CODE_BLOCKS, "code block"),
    )
    return next((why for holds, why in checks if not holds), "")


def why_not_decoded(frame_format: FrameFormat) -> str:
    """Why the GPU cannot decode such frames; empty where it can."""
    if frame_format.is_signed and frame_format.bits_stored < _LEAST_SIGNED:
        return "signed samples of 8 bits or less"
    return ""


class GpuEncoder:
    """nvJPEG2000 with exact precision and TLM; see :class:`scp.convert.ports.FrameEncoder`."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.name = gpu.name

    def encode(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes]:
        """Compress all frames or none; see :class:`scp.convert.ports.FrameEncoder`."""
        codestreams = self.encode_some(frames, frame_format, parameters)
        done = [codestream for codestream in codestreams if codestream is not None]
        if len(done) < len(codestreams):
            raise GpuError(f"{len(codestreams) - len(done)} of {len(codestreams)} frames failed")
        return done

    def encode_some(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes | None]:
        """Compress; see :class:`PartialEncoder`."""
        _check_frames(frames, frame_format)
        if why := why_not_encoded(frame_format, parameters):
            raise GpuError(f"the GPU does not compress this: {why}")
        settings = EncodeSettings(
            precision=frame_format.bits_stored,
            decompositions=max(
                1,
                parameters.decompositions,
                decompositions_for(frame_format.rows, frame_format.columns)
                if parameters.progression == "RPCL"
                else 0,
            ),
            code_block=parameters.code_block[0],
            progression=parameters.progression,
            colour_transform=frame_format.colour_transform,
        )
        with _gpu_errors():
            codestreams = self._gpu.encode(list(frames), settings)
        if len(codestreams) != len(frames):
            raise GpuError(f"{len(codestreams)} codestreams of {len(frames)} frames")
        return [self._finished(each, parameters) for each in codestreams]

    def _finished(self, codestream: Buffer | None, parameters: Htj2kSection) -> bytes | None:
        if codestream is None or parameters.progression != "RPCL":
            return None if codestream is None else bytes(codestream)
        try:
            return with_tlm(codestream)
        except CodecError:
            # What is no codestream is a frame that failed; what it says is judged with the label.
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Codestreams of one instance and the frames that they must decode to."""

    codestreams: list[bytes]
    frames: Frames
    frame_format: FrameFormat


class GpuDecoder:
    """nvJPEG2000, the judge of what OpenJPH wrote; see :class:`scp.convert.ports.ComparingDecoder`."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.name = gpu.name

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        """Decode into host memory; see :class:`scp.convert.ports.FrameDecoder`."""
        _check_codestreams(codestreams, frame_format)
        kind = container_type(frame_format.bits_allocated, is_signed=frame_format.is_signed)
        shape = (frame_format.rows, frame_format.columns, frame_format.samples)
        with _gpu_errors():
            frames = self._gpu.decode(codestreams)
        if len(frames) != len(codestreams):
            raise GpuError(f"{len(frames)} frames of {len(codestreams)} codestreams")
        fitting = [_fitting(frame, shape, kind) for frame in frames]
        if len(fitting) == 1:
            return cast("Frames", fitting[0][np.newaxis])
        return cast("Frames", np.stack(fitting) if fitting else np.empty((0, *shape), kind))

    def differs(
        self, codestreams: list[bytes], frames: Frames, frame_format: FrameFormat
    ) -> list[bool]:
        """Decode and compare on the device; see :class:`scp.convert.ports.ComparingDecoder`."""
        proof = Proof(codestreams=codestreams, frames=frames, frame_format=frame_format)
        (answer,) = self.differs_each([proof])
        if isinstance(answer, CodecError):
            raise answer
        return answer

    def differs_each(self, proofs: list[Proof]) -> list[list[bool] | CodecError]:
        """What ``differs`` answers or raises for each of many instances, all in one call of the GPU."""
        answers: dict[int, list[bool] | CodecError] = {}
        for number, proof in enumerate(proofs):
            if why := _why_not_compared(proof):
                answers[number] = why
        asked = [number for number in range(len(proofs)) if number not in answers]
        codestreams = [each for number in asked for each in proofs[number].codestreams]
        frames = [frame for number in asked for frame in proofs[number].frames]
        try:
            with _gpu_errors():
                found = self._gpu.differing(codestreams, frames) if frames else []
            if len(found) != len(frames):
                raise GpuError(f"{len(found)} answers for {len(frames)} frames")
        except GpuError as error:
            answers.update(dict.fromkeys(asked, error))
        else:
            rest = iter(found)
            for number in asked:
                answers[number] = _complete([next(rest) for _ in proofs[number].frames])
        return [answers[number] for number in range(len(proofs))]


@contextlib.contextmanager
def _gpu_errors() -> Iterator[None]:
    """Whatever the GPU raises becomes an error that the CPU can make good."""
    try:
        yield
    except GpuError:
        raise
    except Exception as error:
        raise GpuError(f"the GPU failed: {error or type(error).__name__}") from error


def _why_not_compared(proof: Proof) -> CodecError | None:
    try:
        _check_frames(proof.frames, proof.frame_format)
        if len(proof.codestreams) != len(proof.frames):
            counts = f"{len(proof.codestreams)} codestreams of {len(proof.frames)} frames"
            raise CodecError(counts)
        _check_codestreams(proof.codestreams, proof.frame_format)
    except CodecError as error:
        return error
    return None


def _complete(answers: list[bool | None]) -> list[bool] | CodecError:
    done = [answer for answer in answers if answer is not None]
    if len(done) < len(answers):
        return GpuError(f"{len(answers) - len(done)} of {len(answers)} frames failed")
    return done


def _check_frames(frames: Frames, frame_format: FrameFormat) -> None:
    shape = (frame_format.rows, frame_format.columns, frame_format.samples)
    kind = container_type(frame_format.bits_allocated, is_signed=frame_format.is_signed)
    if frames.shape[1:] != shape or frames.dtype != kind or not frames.flags.c_contiguous:
        raise CodecError(f"frames of {frames.shape[1:]} {frames.dtype}, not {shape} {kind}")


def _check_codestreams(codestreams: list[bytes], frame_format: FrameFormat) -> None:
    """Before a decoder allocates what a header asks for."""
    if why := why_not_decoded(frame_format):
        raise GpuError(f"the GPU does not decode this: {why}")
    expected = (frame_format.rows, frame_format.columns, frame_format.samples)
    for codestream in codestreams:
        header = parse_codestream(codestream, main_header_only=True)
        size = (header.rows, header.columns, header.components)
        if size != expected or header.is_subsampled:
            raise CodecError("codestream of {}x{}x{}".format(*size))
        if header.is_signed != frame_format.is_signed:
            raise CodecError(f"codestream of signed {header.is_signed}")
        if header.precision > frame_format.bits_allocated:
            raise CodecError(f"codestream of {header.precision} bits")
        if header.is_signed and header.precision < _LEAST_SIGNED:
            raise GpuError("the GPU does not decode this: signed samples of 8 bits or less")


def _fitting(frame: Frame | None, shape: tuple[int, int, int], kind: np.dtype[np.generic]) -> Frame:
    if frame is None:
        raise GpuError("the GPU could not decode a frame")
    if frame.shape != shape or not np.can_cast(frame.dtype, kind, "safe"):
        raise GpuError(f"the GPU gave an image of {frame.shape} {frame.dtype}")
    return frame.astype(kind, copy=False)
