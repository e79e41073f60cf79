"""Who compresses and who proves, where there is a GPU; and how one is found and opened."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scp.config.schema import CodecSection, Htj2kSection
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphDecoder, OpenJphEncoder
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder
from scp.convert.cuda import CudaDevice, CudaError, gpu_names
from scp.convert.gpu_fallback import (
    WORTH_BYTES,
    GpuVerifier,
    GpuWithCpuFallback,
    JudgeOfBoth,
)
from scp.convert.gpu_port import Gpu, GpuError, SharedGpu
from scp.convert.gpu_team import MEMBERS, GpuTeam
from scp.convert.gpu_thread import GpuLimits, GpuThread
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.convert.ports import FrameDecoder, FrameEncoder, FrameFormat

logger = logging.getLogger(__name__)

CPU_BYTES_A_SECOND: Final = 6.5e7
"""Native bytes that OpenJPEG, who proves instead, decodes on one of 16 busy cores (beside an H100)."""

LARGE_BYTES: Final = 2**22
"""Of a native frame, from which on ``auto`` has the CPU compress and the GPU prove."""

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


type Pin = Callable[[NDArray[np.uint8]], Callable[[], None] | None]
"""Pins memory that frames come in, for as long as it is not undone by what is returned; None: it is not."""


def pinning(device: int) -> Pin | None:
    """How memory is pinned for a GPU that is open in this process, from any thread; None: it cannot be."""
    try:
        cuda = CudaDevice(device)
    except (OSError, CudaError):
        return None

    def pin(area: NDArray[np.uint8]) -> Callable[[], None] | None:
        try:
            cuda.use()
            cuda.pin(area)
        except CudaError as error:
            logger.debug("memory is not pinned: %s", error)
            return None
        return lambda: _unpin(cuda, area)

    return pin


def _unpin(cuda: CudaDevice, area: NDArray[np.uint8]) -> None:
    with contextlib.suppress(CudaError):  # The context may be of no more use.
        cuda.use()
        cuda.unpin(area)


def gpu_limits(codec: CodecSection) -> GpuLimits:
    """With ``backend: gpu`` work waits for it; otherwise the CPU does what it can do sooner."""
    if codec.backend == "gpu":
        return GpuLimits()
    return GpuLimits(cpu_bytes_a_second=CPU_BYTES_A_SECOND)


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
    round and takes less of the host's time (H100), and OpenJPH makes a tile-part of each resolution, which
    nvJPEG2000 does not. Of smaller ones the GPU compresses and OpenJPH proves, three times as fast as
    OpenJPEG proves what OpenJPH compressed; what would wait for the GPU longer than that takes is the CPU's
    alone. With ``backend: gpu`` the GPU compresses all. It also does where nothing is proved.
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


def shared_gpu(device: int, library: str, codec: CodecSection) -> GpuTeam:
    """A GPU of this process for many callers; nothing is opened yet."""
    limits = gpu_limits(codec)
    return GpuTeam([GpuThread(library, lambda: open_gpu(device), limits) for _ in range(MEMBERS)])
