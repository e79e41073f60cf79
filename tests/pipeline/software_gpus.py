"""GPUs for real processes on machines that have none: OpenJPH and OpenJPEG instead of NVIDIA's libraries.

What is replaced is the library alone. The processes, sockets, shared memory, deadlines and restarts are the
node's own. A test says by a file what befalls a device at its next call.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from scp.convert import gpu_backend
from scp.convert.gpu_backend import GpuFinding
from scp.convert.gpu_port import EncodeSettings, Frame, Gpu
from scp.convert.gpu_thread import GpuLimits
from scp.convert.gpu_versions import LEAST, gpu_library, installed_versions
from scp.elements import Buffer
from scp.pipeline import gpus
from tests.convert.gpus import SoftwareGpu, all_missing, short, wrong

REPOSITORY = Path(__file__).parents[2]
LIMITS = GpuLimits(deadline_seconds=3.0, retry_seconds=0.2, longest_retry_seconds=0.4)
"""Short enough for a test; the first call, which imports the codecs, has to fit in."""
RETRY_SECONDS = 0.2
SILENCE_SECONDS = 6.0

_HOOK = """
import sys
if "scp.pipeline.gpu" in sys.orig_argv or "serve" in sys.orig_argv:
    from pathlib import Path
    from tests.pipeline.software_gpus import install
    install(Path(__file__).parent)
"""


class SoftwareGpus:
    """What processes that are started from now on find on this machine.

    Parameters
    ----------
    folder
        For what they read and write; it does not exist yet.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_HOOK)
        (folder / "count").write_text(str(count))
        for name, least in LEAST.items():
            version = ".".join(map(str, least))
            about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{REPOSITORY}")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(gpus, "RETRY_SECONDS", RETRY_SECONDS)
        monkeypatch.setattr(gpus, "_SILENCE_SECONDS", SILENCE_SECONDS)
        self.library = gpu_library(installed_versions())

    def fault(self, device: int, name: str) -> None:
        """What befalls the device at its next call, once: one of :data:`FAULTS`, or ``open``."""
        aside = self._folder / "aside"
        aside.write_text(name)
        aside.rename(self._folder / f"fault-{device}")

    def has_happened(self, device: int) -> bool:
        return not (self._folder / f"fault-{device}").exists()

    def frames(self, device: int, kind: str) -> int:
        """How many went through calls of that kind, all processes of the device together."""
        calls = self._folder / f"calls-{device}"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return sum(int(line.split()[1]) for line in lines if line.split()[0] == kind)


def _raise(error: Exception) -> Callable[[list[Any]], list[Any]]:
    def fault(answers: list[Any]) -> list[Any]:
        raise error

    return fault


def _hang(answers: list[Any]) -> list[Any]:
    threading.Event().wait()
    return answers


def _kill(number: signal.Signals) -> Callable[[list[Any]], list[Any]]:
    def fault(answers: list[Any]) -> list[Any]:
        os.kill(os.getpid(), number)
        return answers

    return fault


FAULTS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "error": _raise(RuntimeError("CUDA error 700: an illegal memory access was encountered")),
    "memory": _raise(MemoryError("CUDA error 2: out of memory")),
    "none": all_missing,
    "short": short,
    "wrong": wrong,
    "hang": _hang,
    "death": _kill(signal.SIGKILL),
    "stop": _kill(signal.SIGSTOP),
}


class _Device(SoftwareGpu):
    def __init__(self, folder: Path, number: int) -> None:
        super().__init__()
        self.name = gpu_library(installed_versions())
        self._folder = folder
        self._number = number
        if self._fault() == "open":
            raise RuntimeError("CUDA error 999: unknown error")

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[bytes | None]:
        return self._done("encode", super().encode(frames, settings))

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        return self._done("decode", super().decode(codestreams))

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        return self._done("differing", super().differing(codestreams, frames))

    def _done(self, kind: str, answers: list[Any]) -> list[Any]:
        with (self._folder / f"calls-{self._number}").open("a") as calls:
            calls.write(f"{kind} {len(answers)}\n")
        fault = self._fault()
        return FAULTS[fault](answers) if fault else answers

    def _fault(self) -> str:
        path = self._folder / f"fault-{self._number}"
        try:
            name = path.read_text()
        except FileNotFoundError:
            return ""
        path.unlink()
        return name


def install(folder: Path) -> None:
    """In a process of a node, before it runs."""
    count = int((folder / "count").read_text())
    gpus.RETRY_SECONDS = RETRY_SECONDS  # type: ignore[misc]
    gpus._SILENCE_SECONDS = SILENCE_SECONDS  # type: ignore[misc]

    def find() -> GpuFinding:
        names = tuple(f"Software {number}" for number in range(count))
        library = gpu_library(installed_versions())
        return GpuFinding(
            library=library, devices=names, why_not="" if names else "no GPU, or no driver for it"
        )

    def open_gpu(device: int) -> Gpu:
        return _Device(folder, device)

    if "scp.pipeline.gpu" in sys.orig_argv:
        gpu_backend.find_gpus = find
        gpu_backend.open_gpu = open_gpu
        gpu_backend.gpu_limits = lambda codec: LIMITS
