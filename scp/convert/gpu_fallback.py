"""The GPU where it can, the CPU for the rest: no frame is lost to a GPU that refuses, fails or hangs."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from scp.config.schema import Htj2kSection
from scp.convert.codec_gpu import PartialEncoder
from scp.convert.gpu_port import GpuError
from scp.convert.ports import ComparingDecoder, FrameDecoder, FrameEncoder, FrameFormat, Frames
from scp.errors import CodecError

WORTH_BYTES: Final = 2**19
"""Of a native frame. With smaller ones a GPU, which takes 0.2 ms for whichever, proves fewer than 16 cores
do, and saves them little (H200)."""


@dataclass(slots=True)
class Shares:
    """Frames by who did them."""

    gpu: int = 0
    cpu: int = 0
    contradicted: int = 0
    """Frames that the GPU decoded to something else than the CPU did."""


class _Named:
    """Names those that did something since this was made; make one for each instance to be recorded."""

    def __init__(self, gpu: str, cpu: str) -> None:
        self._names = (gpu, cpu)
        self.name = cpu
        self.shares = Shares()

    def _count(self, *, gpu: int, cpu: int) -> None:
        self.shares.gpu += gpu
        self.shares.cpu += cpu
        shares = zip(self._names, (self.shares.gpu, self.shares.cpu), strict=True)
        self.name = "; ".join(name for name, frames in shares if frames) or self._names[1]


class GpuWithCpuFallback(_Named):
    """An encoder that has the CPU compress what the GPU did not.

    Parameters
    ----------
    gpu
        Raises :class:`GpuError` where the CPU is to do all of it.
    worth_bytes
        Smaller frames, in native bytes, are the CPU's.
    below_bytes
        Frames of so many native bytes and more are the CPU's too. None: there is no such limit.
    """

    def __init__(
        self,
        gpu: PartialEncoder,
        cpu: FrameEncoder,
        worth_bytes: int = WORTH_BYTES,
        below_bytes: int | None = None,
    ) -> None:
        super().__init__(gpu.name, cpu.name)
        self._gpu = gpu
        self._cpu = cpu
        self._worth_bytes = worth_bytes
        self._below_bytes = below_bytes
        self._is_cpus_alone = False
        self._by_cpu: set[bytes] = set()
        """Of what the CPU compressed, where the GPU was asked as well: few, and as digests."""

    def encode(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes]:
        """Compress; see :class:`scp.convert.ports.FrameEncoder`."""
        codestreams: list[bytes | None] = [None] * len(frames)
        if self._is_worth(frames):
            with contextlib.suppress(GpuError):
                codestreams = self._gpu.encode_some(frames, frame_format, parameters)
        elif not self.shares.gpu:
            self._is_cpus_alone = True
        missing = [number for number, each in enumerate(codestreams) if each is None]
        self._count(gpu=len(codestreams) - len(missing), cpu=len(missing))
        if missing:
            rest = frames if len(missing) == len(frames) else frames[missing]
            again = self._cpu.encode(rest, frame_format, parameters)
            if not self._is_cpus_alone:
                self._by_cpu.update(map(_digest, again))
            for number, codestream in zip(missing, again, strict=True):
                codestreams[number] = codestream
        return [each for each in codestreams if each is not None]

    def _is_worth(self, frames: Frames) -> bool:
        size = frames.nbytes / max(1, len(frames))
        is_small = self._below_bytes is None or size < self._below_bytes
        return not self._is_cpus_alone and size >= self._worth_bytes and is_small

    def is_by_gpu(self, codestream: bytes) -> bool:
        """Whether the GPU wrote it, of what this encoder has given out."""
        if not self.shares.cpu or not self.shares.gpu:
            return not self.shares.cpu
        return _digest(codestream) not in self._by_cpu


class JudgeOfBoth:
    """Has every codestream proved by a library that did not write it.

    Parameters
    ----------
    encoder
        Who wrote what is to be judged.
    of_gpu
        Judges what the GPU wrote: OpenJPH, which the GPU's library shares no code with.
    of_cpu
        Judges what OpenJPH wrote.
    """

    def __init__(
        self, encoder: GpuWithCpuFallback, of_gpu: FrameDecoder, of_cpu: "GpuVerifier"
    ) -> None:
        self._encoder = encoder
        self._of_gpu = of_gpu
        self._of_cpu = of_cpu
        self.name = of_cpu.name

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        """Decode into host memory; see :class:`scp.convert.ports.FrameDecoder`."""
        parts = [self._judge(each).decode([each], frame_format) for each in codestreams]
        self._take_name()
        return cast("Frames", np.concatenate(parts))

    def differs(
        self, codestreams: list[bytes], frames: Frames, frame_format: FrameFormat
    ) -> list[bool]:
        """Whether each differs; see :class:`scp.convert.ports.ComparingDecoder`."""
        if len(codestreams) != len(frames):
            raise CodecError(f"{len(codestreams)} codestreams of {len(frames)} frames")
        answers = [True] * len(frames)
        theirs: list[int] = []
        for number, codestream in enumerate(codestreams):
            if self._encoder.is_by_gpu(codestream):
                decoded = self._of_gpu.decode([codestream], frame_format)
                is_same = decoded.dtype == frames.dtype and np.array_equal(
                    decoded[0], frames[number]
                )
                answers[number] = not is_same
            else:
                theirs.append(number)
        if theirs:
            rest = frames if len(theirs) == len(frames) else frames[theirs]
            found = self._of_cpu.differs([codestreams[n] for n in theirs], rest, frame_format)
            for number, differs in zip(theirs, found, strict=True):
                answers[number] = differs
        self._take_name()
        return answers

    def _take_name(self) -> None:
        shares = self._encoder.shares
        names = ((self._of_gpu.name, shares.gpu), (self._of_cpu.name, shares.cpu))
        self.name = "; ".join(name for name, frames in names if frames)

    def _judge(self, codestream: bytes) -> FrameDecoder:
        return self._of_gpu if self._encoder.is_by_gpu(codestream) else self._of_cpu


def _digest(codestream: bytes) -> bytes:
    """The same whether or not the byte is there that makes the length even in a file (PS3.5 A.4)."""
    return hashlib.sha256(codestream + b"\0" * (len(codestream) % 2)).digest()


class GpuVerifier(_Named):
    """A judge that asks the GPU, and the CPU where the GPU cannot or finds a difference.

    Both must be of other libraries than the encoder. A GPU that is contradicted is distrusted; the CPU's
    word counts, as it does without a GPU.

    Parameters
    ----------
    distrust
        Told why the GPU should be left alone.
    worth_bytes
        Smaller frames, in native bytes, are the CPU's.
    """

    def __init__(
        self,
        gpu: ComparingDecoder,
        cpu: FrameDecoder,
        distrust: Callable[[str], None],
        worth_bytes: int = WORTH_BYTES,
    ) -> None:
        super().__init__(gpu.name, cpu.name)
        self._gpu = gpu
        self._cpu = cpu
        self._distrust = distrust
        self._worth_bytes = worth_bytes

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        """Decode into host memory; see :class:`scp.convert.ports.FrameDecoder`."""
        try:
            frames = self._gpu.decode(codestreams, frame_format)
        except GpuError:
            frames = self._cpu.decode(codestreams, frame_format)
            self._count(gpu=0, cpu=len(codestreams))
        else:
            self._count(gpu=len(codestreams), cpu=0)
        return frames

    def differs(
        self, codestreams: list[bytes], frames: Frames, frame_format: FrameFormat
    ) -> list[bool]:
        """Whether each differs; see :class:`scp.convert.ports.ComparingDecoder`."""
        if len(codestreams) != len(frames):
            raise CodecError(f"{len(codestreams)} codestreams of {len(frames)} frames")
        answers = self._answers_of_gpu(codestreams, frames, frame_format)
        gpu_answered = answers is not None
        if answers is None:
            answers = [True] * len(frames)
        doubtful = [number for number, differs in enumerate(answers) if differs]
        for number in doubtful:
            decoded = self._cpu.decode([codestreams[number]], frame_format)
            is_same = decoded.dtype == frames.dtype and np.array_equal(decoded[0], frames[number])
            answers[number] = not is_same
        self._count(gpu=len(answers) - len(doubtful), cpu=len(doubtful))
        contradicted = sum(not answers[number] for number in doubtful) if gpu_answered else 0
        if contradicted:
            self.shares.contradicted += contradicted
            self._distrust(f"{contradicted} frames were decoded to something else than by the CPU")
        return answers

    def _answers_of_gpu(
        self, codestreams: list[bytes], frames: Frames, frame_format: FrameFormat
    ) -> list[bool] | None:
        if frames.nbytes < self._worth_bytes * len(frames):
            return None
        try:
            return self._gpu.differs(codestreams, frames, frame_format)
        except GpuError:
            return None
