"""A worker gets its GPU, or one sentence that says why there is none."""

import numpy as np
import pytest

from scp.config.schema import Htj2kSection
from scp.convert import gpu_backend
from scp.convert.gpu_backend import GpuBackend, GpuFinding, device_for, find_gpus
from scp.convert.gpu_port import GpuError
from scp.convert.gpu_thread import GpuThread
from tests.convert.gpus import FaultyGpu, SoftwareGpu, format_of, raising
from tests.convert.images import ENCODER, NOISE, OPENJPEG, Array

LARGE: Array = np.random.default_rng(4).integers(0, 4096, (1, 512, 512, 1)).astype("<u2")
FOUND = GpuFinding(library="nvJPEG2000 1", devices=("A", "B"), why_not="")


def test_what_was_found_is_said_plainly() -> None:
    found = find_gpus()

    assert bool(found.why_not) != bool(found.library and found.devices)


@pytest.mark.parametrize(
    ("found", "device", "why"),
    [
        (GpuFinding(library="", devices=("A",), why_not="too old"), 0, "too old"),
        (FOUND, 2, "there is no GPU 2"),
    ],
)
def test_a_worker_without_a_gpu_hears_why(
    monkeypatch: pytest.MonkeyPatch, found: GpuFinding, device: int, why: str
) -> None:
    monkeypatch.setattr(gpu_backend, "find_gpus", lambda: found)

    with pytest.raises(GpuError, match=why):
        GpuBackend.of_device(device)


def test_encoders_and_judges_name_who_did_the_work_of_their_own_instance() -> None:
    gpu = FaultyGpu(raising(RuntimeError("CUDA 700")))
    backend = GpuBackend(GpuThread(gpu.name, lambda: gpu))
    form = format_of(LARGE, 12)
    first, second = backend.encoder(ENCODER), backend.verifier(OPENJPEG)

    codestreams = first.encode(LARGE, form, Htj2kSection())

    assert second.differs(codestreams, LARGE, form) == [False]
    assert (first.name, second.name) == (ENCODER.name, OPENJPEG.name)
    assert backend.status.failures == 1
    backend.close()


def test_large_frames_are_proved_by_the_gpu() -> None:
    backend = GpuBackend(GpuThread("software gpu 1.0", SoftwareGpu))
    form, small = format_of(LARGE, 12), format_of(NOISE, 12)
    parameters = Htj2kSection()
    verifier = backend.verifier(OPENJPEG)

    assert not any(verifier.differs(ENCODER.encode(LARGE, form, parameters), LARGE, form))
    assert verifier.name == "software gpu 1.0"
    assert not any(verifier.differs(ENCODER.encode(NOISE, small, parameters), NOISE, small))
    assert verifier.name == f"software gpu 1.0; {OPENJPEG.name}"
    backend.close()


def test_a_gpu_is_opened_before_a_frame_waits_for_it() -> None:
    gpu = SoftwareGpu()
    backend = GpuBackend(GpuThread(gpu.name, lambda: gpu))

    backend.warm_up(ENCODER)

    assert backend.status.frames == 1
    backend.close()


def test_a_gpu_that_cannot_be_opened_stops_nobody() -> None:
    gpu = FaultyGpu(raising(RuntimeError("CUDA 2")))
    backend = GpuBackend(GpuThread(gpu.name, lambda: gpu))

    backend.warm_up(ENCODER)

    assert "CUDA 2" in backend.status.last_error
    backend.close()


def test_workers_share_the_gpus_alike() -> None:
    assert [device_for(worker, 3) for worker in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert device_for(4, 0) == 0
