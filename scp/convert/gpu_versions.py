"""Which versions of NVIDIA's libraries are known to be right. Nothing is imported to find out."""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from scp.convert.gpu_port import GpuError

NVIMAGECODEC: Final = "nvidia-nvimgcodec-cu12"
NVJPEG2000: Final = "nvidia-nvjpeg2k-cu12"

LEAST: Final[Mapping[str, tuple[int, ...]]] = {NVIMAGECODEC: (0, 9, 0), NVJPEG2000: (0, 9, 1)}
"""nvImageCodec 0.9 is the first that takes a precision below that of the type; nvJPEG2000 0.9.1 corrects
the bit stuffing of the HT encoder (its release notes)."""


def installed_versions() -> dict[str, str]:
    """The packages that are installed, with their versions."""
    found = {}
    for package in LEAST:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def gpu_library(versions: Mapping[str, str]) -> str:
    """Name and version for job records.

    Raises
    ------
    GpuError
        A package is missing from ``versions``, or older than what is known to be right.
    """
    for package, least in LEAST.items():
        text = versions.get(package, "")
        if tuple(int(digits) for digits in re.findall(r"\d+", text)[:3]) < least:
            wanted = ".".join(map(str, least))
            raise GpuError(f"{package} {text or 'is not installed'}: {wanted} or newer is needed")
    return f"nvJPEG2000 {versions[NVJPEG2000]} (nvImageCodec {versions[NVIMAGECODEC]})"
