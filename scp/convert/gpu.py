"""Whether the GPUs of this machine convert, tried on each; and if not, what to do about it."""

import contextlib
import ctypes
from typing import Final

import numpy as np

from scp.convert.gpu_backend import open_gpu, prove_a_frame
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.errors import CodecError

_DRIVER: Final = "libcuda.so.1"
"""The part of NVIDIA's driver that programs load; a container has it where it was given GPUs."""


def try_gpus() -> str:
    """Have every GPU decode a frame and compare it; say what did it.

    Raises
    ------
    CodecError
        Something is missing or failed; one sentence says what to do about it.
    """
    driver, devices = _try_driver()
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        raise CodecError(
            f"{driver}, but nvImageCodec cannot be imported ({error}): "
            "scripts/install --gpu FOLDER installs it"
        ) from error
    try:
        nvimgcodec.as_image(np.zeros((8, 8, 1), np.uint8)).cuda()
    except RuntimeError as error:
        raise CodecError(
            f"{driver}, but nvImageCodec {nvimgcodec.__version__} cannot use it ({error}): "
            "it needs a driver for CUDA 12 or newer and free memory on the GPU"
        ) from error
    library = gpu_library(installed_versions())
    for device in range(devices):
        try:
            with contextlib.closing(open_gpu(device)) as gpu:
                prove_a_frame(gpu)
        except CodecError as error:
            raise CodecError(
                f"{driver}, but GPU {device} does not decode ({error}): nvidia-smi says whether it is "
                "well, and whether others use its memory"
            ) from error
    return f"{driver}; {library} decodes right on each"


def _try_driver() -> tuple[str, int]:
    """Which driver there is, and for how many GPUs (CUDA driver API, initialisation and devices)."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise CodecError(
            f"there is no NVIDIA driver ({_DRIVER}): where the machine has a GPU, install it, "
            "or start the container with --gpus all"
        ) from error
    version, gpus = ctypes.c_int(), ctypes.c_int()
    status = (
        driver.cuInit(0)
        or driver.cuDriverGetVersion(ctypes.byref(version))
        or driver.cuDeviceGetCount(ctypes.byref(gpus))
    )
    if status or not gpus.value:
        raise CodecError(
            f"the NVIDIA driver finds no GPU (CUDA error {status}): nvidia-smi says why, "
            "and a container needs --gpus all"
        )
    major, minor = version.value // 1000, version.value % 1000 // 10
    plural = "s" if gpus.value > 1 else ""
    return f"{gpus.value} GPU{plural} with a driver for CUDA {major}.{minor}", gpus.value
