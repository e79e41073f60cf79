"""Who compresses and who proves, where there is a GPU; and how one is found and opened."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from scp.config.schema import CodecSection, Htj2kSection
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphDecoder, OpenJphEncoder
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder
from scp.convert.cuda import gpu_names
from scp.convert.gpu_fallback import (
    WORTH_BYTES,
    GpuVerifier,
    GpuWithCpuFallback,
    JudgeOfBoth,
)
from scp.convert.gpu_port import Gpu, GpuError, SharedGpu
from scp.convert.gpu_thread import GpuLimits, GpuThread
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.convert.ports import FrameDecoder, FrameEncoder, FrameFormat

CPU_BYTES_A_SECOND: Final = 6.5e7
"""Native bytes that OpenJPEG, who proves instead, decodes on one of 16 busy cores (beside an H100)."""

LARGE_BYTES: Final = 2**22
"""Of a native frame, from which on ``auto`` has the CPU compress and the GPU prove."""

SMALL_BYTES_A_SECOND: Final = 2e8
"""Native bytes of smaller frames, which the GPU may compress: with more of them waiting, the cores that
wait cost more than the GPU spares them (CT, 16 cores beside an H100)."""

type Codecs = Callable[[], tuple[FrameEncoder, FrameDecoder | None]]
"""An encoder and a judge of another library for one instance, so that its record names who did the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFinding:
    """What ``doctor`` and ``status`` can say."""

    library: str
    """Name and version; empty where there is none that is new enough."""
    devices: tuple[str, ...]
    """By CUDA's number."""
    why_not: str
    """Why no GPU can be used; empty where one can."""


def find_gpus() -> GpuFinding:
    """Look for library and devices. Loads the driver: not in a process that forks afterwards."""
    library, why_not = "", ""
    try:
        library = gpu_library(installed_versions())
    except GpuError as error:
        why_not = str(error)
    devices = tuple(gpu_names())
    if not (why_not or devices):
        why_not = "no GPU, or no driver for it"
    return GpuFinding(library=library, devices=devices, why_not=why_not)


def open_gpu(device: int) -> Gpu:
    """Have a GPU of this machine, by CUDA's number; in the process, and after any fork, that uses it.

    Raises
    ------
    GpuError
        The libraries are missing or too old, or there is no such GPU.
    """
    from scp.convert.nvimagecodec import NvImageCodec

    return NvImageCodec(device)


def gpu_limits(codec: CodecSection) -> GpuLimits:
    """With ``backend: gpu`` work waits for it; otherwise the CPU does what it can do sooner."""
    if codec.backend == "gpu":
        return GpuLimits()
    return GpuLimits(
        cpu_bytes_a_second=CPU_BYTES_A_SECOND,
        cpu_encoded_bytes_a_second=SMALL_BYTES_A_SECOND if codec.verify != "off" else None,
    )


def prove_a_frame(gpu: Gpu) -> None:
    """Also has everything loaded that the GPU needs, which takes seconds, before a frame waits for it.

    Raises
    ------
    CodecError
        It failed, or decodes to something else than was encoded.
    """
    frames = np.zeros((1, 512, 512, 1), "<u2")
    frames[0, :, ::3] = 4095
    frame_format = FrameFormat(
        rows=512,
        columns=512,
        samples=1,
        bits_allocated=16,
        bits_stored=12,
        is_signed=False,
        colour_transform=False,
    )
    codestreams = OpenJphEncoder().encode(frames, frame_format, Htj2kSection())
    if any(GpuDecoder(gpu).differs(codestreams, frames, frame_format)):
        raise GpuError("it decodes a frame to something else than was encoded")


def codecs_for(codec: CodecSection, gpu: SharedGpu | None) -> Codecs:
    """Who does the work in a process that has this GPU, or none.

    Of large frames OpenJPH compresses and the GPU proves: for mammograms that is faster than the other way
    round and takes less of the host's time (117 against 102 MB for each second of it, H100), and OpenJPH
    makes a tile-part of each resolution, which nvJPEG2000 does not. Of smaller ones the GPU compresses what
    it can at once and OpenJPH proves that; the CPU does the rest alone: CT took 340 ms so, 393 when the GPU
    proved them and 335 without a GPU, for which the host's time was 10 % more (400 of them, 16 cores). With
    ``backend: gpu`` the GPU compresses all and OpenJPH proves: of CT that takes less of the host's time (79
    MB for each second, and 46 without a GPU). It also does where nothing is proved.
    """
    openjph, openjpeg = OpenJphEncoder(), OpenJpegDecoder()
    is_proved = codec.verify != "off"
    if gpu is None:
        return lambda: (openjph, openjpeg if is_proved else None)
    encoder, decoder = GpuEncoder(gpu), GpuDecoder(gpu)
    judge = OpenJphDecoder()

    def verifier(worth_bytes: int = WORTH_BYTES) -> GpuVerifier:
        return GpuVerifier(decoder, openjpeg, gpu.distrust, worth_bytes)

    def both() -> tuple[FrameEncoder, FrameDecoder | None]:
        pair = GpuWithCpuFallback(encoder, openjph)
        return pair, JudgeOfBoth(pair, judge, verifier()) if is_proved else None

    def by_size() -> tuple[FrameEncoder, FrameDecoder | None]:
        pair = GpuWithCpuFallback(encoder, openjph, below_bytes=LARGE_BYTES)
        return pair, JudgeOfBoth(pair, judge, verifier(LARGE_BYTES))

    return both if codec.backend == "gpu" or not is_proved else by_size


def shared_gpu(device: int, library: str, codec: CodecSection) -> GpuThread:
    """A GPU of this process for many callers; nothing is opened yet."""
    return GpuThread(library, lambda: open_gpu(device), gpu_limits(codec))
