"""Who compresses and who proves, with a GPU and without."""

import numpy as np
import pytest

from scp.config.schema import CodecSection, Htj2kSection
from scp.convert.gpu_backend import (
    CPU_BYTES_A_SECOND,
    codecs_for,
    find_gpus,
    gpu_limits,
    prove_a_frame,
)
from scp.convert.gpu_port import GpuError
from scp.convert.gpu_thread import GpuLimits, GpuThread
from scp.convert.ports import ComparingDecoder
from tests.convert.gpus import FaultyGpu, SoftwareGpu, format_of, raising, wrong
from tests.convert.images import ENCODER, NOISE, OPENJPEG, OPENJPH, Array

LARGE: Array = np.random.default_rng(4).integers(0, 4096, (1, 512, 512, 1)).astype("<u2")
MAMMOGRAM: Array = np.tile(LARGE, (1, 4, 2, 1))
LIBRARY = "nvJPEG2000 1"


def test_what_was_found_is_said_plainly() -> None:
    found = find_gpus()

    assert bool(found.why_not) != bool(found.library and found.devices)


def codec(backend: str = "auto", verify: str = "independent") -> CodecSection:
    return CodecSection.model_validate({"backend": backend, "verify": verify})


@pytest.mark.parametrize(
    ("backend", "verify", "frames", "encoder", "judge"),
    [
        ("auto", "independent", MAMMOGRAM, ENCODER.name, LIBRARY),
        ("auto", "independent", LARGE, LIBRARY, OPENJPH.name),
        ("gpu", "independent", MAMMOGRAM, LIBRARY, OPENJPH.name),
        ("gpu", "independent", LARGE, LIBRARY, OPENJPH.name),
        ("auto", "off", LARGE, LIBRARY, ""),
        ("auto", "off", MAMMOGRAM, LIBRARY, ""),
        ("gpu", "off", LARGE, LIBRARY, ""),
    ],
)
def test_no_library_proves_its_own_work(
    backend: str, verify: str, frames: Array, encoder: str, judge: str
) -> None:
    gpu = GpuThread(LIBRARY, SoftwareGpu)
    compresses, proves = codecs_for(codec(backend, verify), gpu)()
    form = format_of(frames, 12)

    codestreams = compresses.encode(frames, form, Htj2kSection())

    assert np.array_equal(OPENJPEG.decode(codestreams, form), frames)
    if proves is not None:
        assert isinstance(proves, ComparingDecoder)
        assert not any(proves.differs(codestreams, frames, form))
    assert (compresses.name, proves.name if proves else "") == (encoder, judge)
    gpu.close()


@pytest.mark.parametrize("backend", ["auto", "gpu"])
def test_without_a_gpu_and_with_one_that_fails_the_cpu_does_both(backend: str) -> None:
    faulty = GpuThread(LIBRARY, lambda: FaultyGpu(raising(RuntimeError("CUDA 700"))))
    form = format_of(LARGE, 12)

    for gpu in (None, faulty):
        encoder, judge = codecs_for(codec(backend), gpu)()
        codestreams = encoder.encode(LARGE, form, Htj2kSection())
        assert judge is not None
        if isinstance(judge, ComparingDecoder):
            assert judge.differs(codestreams, LARGE, form) == [False]
        else:
            assert np.array_equal(judge.decode(codestreams, form), LARGE)
        assert (encoder.name, judge.name) == (ENCODER.name, OPENJPEG.name)

    assert faulty.status.failures == 1
    faulty.close()


def test_each_instance_names_who_did_its_own_work() -> None:
    gpu = GpuThread(LIBRARY, lambda: FaultyGpu(raising(RuntimeError("CUDA 700"))))
    codecs = codecs_for(codec(), gpu)
    form = format_of(MAMMOGRAM, 12)
    (encoder, first), (_, second) = codecs(), codecs()
    codestreams = encoder.encode(MAMMOGRAM, form, Htj2kSection())
    assert isinstance(first, ComparingDecoder)

    first.differs(codestreams, MAMMOGRAM, form)

    assert (first.name, second.name if second else "") == (OPENJPEG.name, OPENJPEG.name)
    gpu.close()


def test_small_frames_are_the_cpus() -> None:
    gpu = SoftwareGpu()
    form = format_of(NOISE, 12)

    for backend in ("auto", "gpu"):
        encoder, judge = codecs_for(codec(backend), GpuThread(LIBRARY, lambda: gpu))()
        codestreams = encoder.encode(NOISE, form, Htj2kSection())
        assert isinstance(judge, ComparingDecoder)
        assert not any(judge.differs(codestreams, NOISE, form))
        assert (encoder.name, judge.name) == (ENCODER.name, OPENJPEG.name)

    assert gpu.batches == []


def test_what_a_busy_gpu_sends_away_is_proved_by_the_cpu_alone() -> None:
    gpu = SoftwareGpu()
    thread = GpuThread(LIBRARY, lambda: gpu, GpuLimits(cpu_bytes_a_second=1e12))
    codecs = codecs_for(codec(), thread)
    form = format_of(LARGE, 12)
    names = []

    for _ in range(4):
        encoder, judge = codecs()
        codestreams = encoder.encode(LARGE, form, Htj2kSection())
        assert isinstance(judge, ComparingDecoder)
        assert judge.differs(codestreams, LARGE, form) == [False]
        names.append((encoder.name, judge.name))

    assert set(names) == {(LIBRARY, OPENJPH.name), (ENCODER.name, OPENJPEG.name)}
    thread.close()


def test_a_gpu_that_decodes_wrongly_is_found_before_it_is_used() -> None:
    prove_a_frame(SoftwareGpu())
    with pytest.raises(GpuError, match="something else than was encoded"):
        prove_a_frame(FaultyGpu(wrong))


def test_work_waits_for_the_gpu_only_where_the_configuration_wants_it() -> None:
    assert gpu_limits(codec("gpu")).cpu_bytes_a_second is None
    assert gpu_limits(codec("auto")).cpu_bytes_a_second == CPU_BYTES_A_SECOND
