"""A GPU as a worker process has it: opened at the first frame, given back at the end."""

import contextlib
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from scp.config.schema import Htj2kSection
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder
from scp.convert.cuda import gpu_names
from scp.convert.gpu_fallback import GpuVerifier, GpuWithCpuFallback
from scp.convert.gpu_port import Gpu, GpuError
from scp.convert.gpu_thread import GpuLimits, GpuStatus, GpuThread
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.convert.ports import FrameDecoder, FrameEncoder, FrameFormat
from scp.errors import CodecError

CPU_BYTES_A_SECOND: Final = 2.5e8
"""Native bytes that OpenJPEG, the slower of the two that prove, decodes on one core."""
_WORKER_THREADS: Final = 1


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


class GpuBackend:
    """Makes encoders and judges on one GPU, each for one instance so that it names who did the work."""

    def __init__(self, thread: GpuThread) -> None:
        self._thread = thread

    @classmethod
    def of_device(cls, device: int, *, may_wait: bool = False) -> Self:
        """On a GPU of this machine. Make it in the process that uses it; nothing is opened yet.

        Parameters
        ----------
        may_wait
            Whether work waits for a busy GPU; otherwise the CPU does what it can do sooner.

        Raises
        ------
        GpuError
            The libraries are missing or too old, or there is no such GPU.
        """
        found = find_gpus()
        if found.why_not or device >= len(found.devices):
            raise GpuError(found.why_not or f"there is no GPU {device}")

        def open_gpu() -> Gpu:
            from scp.convert.nvimagecodec import NvImageCodec

            return NvImageCodec(device, _WORKER_THREADS)

        limits = GpuLimits(cpu_bytes_a_second=None if may_wait else CPU_BYTES_A_SECOND)
        return cls(GpuThread(found.library, open_gpu, limits))

    @property
    def status(self) -> GpuStatus:
        return self._thread.status

    def warm_up(self, encoder: FrameEncoder) -> None:
        """Have the GPU opened, which takes a second, before a frame waits for it.

        Does not wait for it longer than for any frame; what fails is said by :attr:`status`.
        """
        frames = np.zeros((1, 512, 512, 1), "<u2")
        frame_format = FrameFormat(
            rows=512,
            columns=512,
            samples=1,
            bits_allocated=16,
            bits_stored=12,
            is_signed=False,
            colour_transform=False,
        )
        with contextlib.suppress(CodecError, GpuError):
            codestreams = encoder.encode(frames, frame_format, Htj2kSection())
            GpuDecoder(self._thread).differs(codestreams, frames, frame_format)

    def encoder(self, cpu: FrameEncoder) -> GpuWithCpuFallback:
        """To be proved by another library than the GPU's and that of ``cpu``."""
        return GpuWithCpuFallback(GpuEncoder(self._thread), cpu)

    def verifier(self, cpu: FrameDecoder) -> GpuVerifier:
        """For what neither the GPU nor the library of ``cpu`` encoded."""
        return GpuVerifier(GpuDecoder(self._thread), cpu, self._thread.distrust)

    def close(self) -> None:
        """Give the device back."""
        self._thread.close()


def device_for(worker: int, devices: int) -> int:
    """Which GPU the worker of that number has, so that they share alike."""
    return worker % max(1, devices)
