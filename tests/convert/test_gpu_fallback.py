"""Whatever the GPU does, every frame is compressed and proved, and the record says by whom."""

from pathlib import Path

import numpy as np
import pytest

from scp.config.schema import Htj2kSection
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder
from scp.convert.codestream import earns_rpcl, parse_codestream
from scp.convert.gpu_fallback import GpuVerifier, GpuWithCpuFallback, JudgeOfBoth
from scp.convert.gpu_thread import GpuLimits, GpuThread
from scp.convert.ports import FrameDecoder, FrameEncoder, FrameFormat, Frames
from scp.convert.transcode import transcode
from scp.errors import CodecError
from tests.convert.gpus import (
    Fault,
    FaultyGpu,
    Hang,
    SoftwareGpu,
    all_missing,
    format_of,
    missing,
    raising,
    right,
    short,
    wrong,
)
from tests.convert.images import ENCODER, NOISE, OPENJPEG, OPENJPH, Array, image, pixels, save

PLAIN = Htj2kSection()
FORMAT = format_of(NOISE, 12)
CODESTREAMS = ENCODER.encode(NOISE, FORMAT, PLAIN)
CUDA_ERROR = raising(RuntimeError("CUDA error 700"))


@pytest.mark.parametrize(
    ("fault", "gpu", "cpu"),
    [
        (right, 3, 0),
        (missing(1), 2, 1),
        (missing(0, 2), 1, 2),
        (all_missing, 0, 3),
        (short, 0, 3),
        (wrong, 0, 3),
        (CUDA_ERROR, 0, 3),
        (raising(MemoryError("no memory")), 0, 3),
    ],
)
def test_no_frame_is_lost_to_a_faulty_gpu(fault: Fault, gpu: int, cpu: int) -> None:
    encoder = GpuWithCpuFallback(GpuEncoder(FaultyGpu(fault)), ENCODER, 0)

    codestreams = encoder.encode(NOISE, FORMAT, PLAIN)

    assert np.array_equal(OPENJPEG.decode(codestreams, FORMAT), NOISE)
    assert all(earns_rpcl(parse_codestream(each), FORMAT) for each in codestreams)
    assert (encoder.shares.gpu, encoder.shares.cpu) == (gpu, cpu)


def test_no_frame_is_lost_to_a_gpu_that_hangs() -> None:
    hang = Hang()
    thread = GpuThread("hanging", lambda: FaultyGpu(hang), GpuLimits(deadline_seconds=0.1))
    encoder = GpuWithCpuFallback(GpuEncoder(thread), ENCODER, 0)

    codestreams = [encoder.encode(NOISE, FORMAT, PLAIN) for _ in range(2)]

    assert all(np.array_equal(OPENJPEG.decode(each, FORMAT), NOISE) for each in codestreams)
    assert thread.status.hangs == 1
    hang.released.set()
    thread.close()


def test_what_a_gpu_cannot_encode_is_encoded_by_the_cpu() -> None:
    frames: Array = NOISE.astype("<i1")
    form = format_of(frames, 8)
    encoder = GpuWithCpuFallback(GpuEncoder(SoftwareGpu()), ENCODER, 0)

    codestreams = encoder.encode(frames, form, PLAIN)

    assert np.array_equal(OPENJPEG.decode(codestreams, form), frames)


def test_the_name_tells_who_took_part() -> None:
    faults = (right, missing(1), all_missing)
    names = []
    for fault in faults:
        encoder = GpuWithCpuFallback(GpuEncoder(FaultyGpu(fault)), ENCODER, 0)
        encoder.encode(NOISE, FORMAT, PLAIN)
        names.append(encoder.name)

    gpu = SoftwareGpu().name
    assert names == [gpu, f"{gpu}; {ENCODER.name}", ENCODER.name]


def test_frames_that_are_not_as_described_are_refused_by_all() -> None:
    encoder = GpuWithCpuFallback(GpuEncoder(SoftwareGpu()), ENCODER, 0)

    with pytest.raises(CodecError):
        encoder.encode(NOISE[:, :4], FORMAT, PLAIN)


class Complaints(list[str]):
    """Why the GPU was distrusted."""


def verifier_with(fault: Fault) -> tuple[GpuVerifier, Complaints]:
    complaints = Complaints()
    gpu = GpuDecoder(FaultyGpu(fault))
    return GpuVerifier(gpu, OPENJPEG, complaints.append, worth_bytes=0), complaints


@pytest.mark.parametrize(
    ("fault", "cpu"),
    [(right, 0), (missing(1), 3), (all_missing, 3), (short, 3), (CUDA_ERROR, 3)],
)
def test_what_the_gpu_cannot_prove_the_cpu_proves(fault: Fault, cpu: int) -> None:
    verifier, complaints = verifier_with(fault)

    assert verifier.differs(CODESTREAMS, NOISE, FORMAT) == [False, False, False]
    assert (verifier.shares.gpu, verifier.shares.cpu) == (3 - cpu, cpu)
    assert complaints == []


@pytest.mark.parametrize("fault", [right, missing(1), CUDA_ERROR])
def test_a_frame_that_differs_is_found_by_both_judges(fault: Fault) -> None:
    verifier, complaints = verifier_with(fault)
    changed = NOISE.copy()
    changed[1, 3, 4] ^= 1

    assert verifier.differs(CODESTREAMS, changed, FORMAT) == [False, True, False]
    assert complaints == []


def test_a_gpu_that_the_cpu_contradicts_is_distrusted() -> None:
    verifier, complaints = verifier_with(wrong)

    assert verifier.differs(CODESTREAMS, NOISE, FORMAT) == [False, False, False]
    assert verifier.shares.contradicted == 3
    assert complaints == ["3 frames were decoded to something else than by the CPU"]


def test_small_frames_are_the_cpus() -> None:
    gpu = SoftwareGpu()
    verifier = GpuVerifier(GpuDecoder(gpu), OPENJPEG, Complaints().append, NOISE[0].nbytes + 1)

    assert verifier.differs(CODESTREAMS, NOISE, FORMAT) == [False, False, False]
    assert gpu.batches == []
    assert verifier.name == OPENJPEG.name


@pytest.mark.parametrize("worth_bytes", [0, 2**30])
def test_a_codestream_that_is_missing_is_no_proof(worth_bytes: int) -> None:
    gpu = GpuDecoder(SoftwareGpu())
    verifier = GpuVerifier(gpu, OPENJPEG, Complaints().append, worth_bytes)

    with pytest.raises(CodecError, match="2 codestreams of 3 frames"):
        verifier.differs(CODESTREAMS[:2], NOISE, FORMAT)


def test_a_codestream_that_no_one_can_decode_proves_nothing() -> None:
    verifier, _ = verifier_with(right)
    cut = [CODESTREAMS[0][: len(CODESTREAMS[0]) // 2], *CODESTREAMS[1:]]

    with pytest.raises(CodecError):
        verifier.differs(cut, NOISE, FORMAT)


@pytest.mark.parametrize("fault", [right, missing(1), CUDA_ERROR])
def test_frames_are_decoded_by_whoever_can(fault: Fault) -> None:
    verifier, _ = verifier_with(fault)

    assert np.array_equal(verifier.decode(CODESTREAMS, FORMAT), NOISE)


@pytest.mark.parametrize("fault", [right, missing(0), CUDA_ERROR])
def test_an_instance_is_converted_and_proved_with_a_gpu_at_either_end(
    tmp_path: Path, fault: Fault
) -> None:
    source = save(image(NOISE, bits_stored=12), tmp_path / "source.dcm")
    gpu_encodes = GpuWithCpuFallback(GpuEncoder(FaultyGpu(fault)), ENCODER, 0)
    gpu_proves, _ = verifier_with(fault)

    pairs: list[tuple[FrameEncoder, FrameDecoder]] = [
        (gpu_encodes, OPENJPH), (gpu_encodes, OPENJPEG), (ENCODER, gpu_proves),
    ]  # fmt: skip

    for number, (encoder, verifier) in enumerate(pairs):
        target = tmp_path / f"{number}.dcm"
        result = transcode(source, target, PLAIN, encoder, verifier)

        assert result.transfer_syntax == "1.2.840.10008.1.2.4.202"
        assert result.encoder == encoder.name
        assert np.array_equal(pixels(target), NOISE)


# -- an instance that two have compressed -----------------------------------------------------------


class Told:
    """A judge that remembers what it was asked."""

    def __init__(self, judge: FrameDecoder) -> None:
        self.name = judge.name
        self.asked: list[bytes] = []
        self._judge = judge

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        self.asked += codestreams
        return self._judge.decode(codestreams, frame_format)


@pytest.mark.parametrize(
    ("fault", "by_gpu"),
    [(right, [0, 1, 2]), (missing(1), [0, 2]), (missing(0, 2), [1]), (CUDA_ERROR, [])],
)
def test_each_frame_is_proved_by_a_library_that_did_not_write_it(
    fault: Fault, by_gpu: list[int]
) -> None:
    encoder = GpuWithCpuFallback(GpuEncoder(FaultyGpu(fault)), ENCODER, 0)
    openjph, openjpeg = Told(OPENJPH), Told(OPENJPEG)
    device = FaultyGpu(CUDA_ERROR)
    judge = JudgeOfBoth(
        encoder, openjph, GpuVerifier(GpuDecoder(device), openjpeg, lambda why: None, 0)
    )
    codestreams = encoder.encode(NOISE, FORMAT, PLAIN)

    assert judge.differs(codestreams, NOISE, FORMAT) == [False] * 3

    assert openjph.asked == [codestreams[number] for number in by_gpu]
    by_cpu = [number for number in range(3) if number not in by_gpu]
    assert openjpeg.asked == [codestreams[number] for number in by_cpu]
    names = [openjph.name] * bool(by_gpu) + [openjpeg.name] * bool(by_cpu)
    assert judge.name == "; ".join(names)
    assert np.array_equal(judge.decode(codestreams, FORMAT), NOISE)


def test_frames_are_told_apart_by_who_wrote_them_when_the_file_has_made_them_even(
    tmp_path: Path,
) -> None:
    frames: Array = np.random.default_rng(3).integers(0, 4096, (12, 20, 24, 1)).astype("<u2")
    source = save(image(frames, bits_stored=12), tmp_path / "source.dcm")
    encoder = GpuWithCpuFallback(GpuEncoder(FaultyGpu(missing(*range(1, 12)))), ENCODER, 0)
    openjph, openjpeg = Told(OPENJPH), Told(OPENJPEG)
    of_cpu = GpuVerifier(
        GpuDecoder(FaultyGpu(CUDA_ERROR)), openjpeg, lambda why: None, worth_bytes=0
    )

    transcode(
        source, tmp_path / "target.dcm", PLAIN, encoder, JudgeOfBoth(encoder, openjph, of_cpu)
    )

    assert any(each.endswith(b"\xff\xd9\0") for each in openjpeg.asked), "none was of odd length"
    assert (len(openjph.asked), len(openjpeg.asked)) == (1, 11)


@pytest.mark.parametrize("fault", [right, missing(1), CUDA_ERROR])
def test_a_difference_is_found_whoever_wrote_the_frame(fault: Fault) -> None:
    encoder = GpuWithCpuFallback(GpuEncoder(FaultyGpu(fault)), ENCODER, 0)
    verifier = GpuVerifier(GpuDecoder(SoftwareGpu()), OPENJPEG, lambda why: None, 0)
    judge = JudgeOfBoth(encoder, OPENJPH, verifier)
    codestreams = encoder.encode(NOISE, FORMAT, PLAIN)

    for number in range(3):
        changed: Array = NOISE.copy()
        changed[number, 5, 7] ^= 1
        expected = [at == number for at in range(3)]
        assert judge.differs(codestreams, changed, FORMAT) == expected


def test_what_is_too_large_for_the_gpu_to_encode_is_never_taken_for_its_work() -> None:
    gpu = SoftwareGpu()
    encoder = GpuWithCpuFallback(GpuEncoder(gpu), ENCODER, 0, below_bytes=NOISE[0].nbytes)
    smaller: Array = np.ascontiguousarray(NOISE[:, :20])

    codestreams = encoder.encode(NOISE, FORMAT, PLAIN)
    codestreams += encoder.encode(smaller, format_of(smaller, 12), PLAIN)

    assert not any(map(encoder.is_by_gpu, codestreams))
    assert gpu.batches == [], "an instance whose first frames were the CPU's stays there"


def test_large_frames_after_small_ones_are_told_apart() -> None:
    encoder = GpuWithCpuFallback(GpuEncoder(SoftwareGpu()), ENCODER, 0, NOISE[0].nbytes)
    smaller: Array = np.ascontiguousarray(NOISE[:, :20])

    by_gpu = encoder.encode(smaller, format_of(smaller, 12), PLAIN)
    by_cpu = encoder.encode(NOISE, FORMAT, PLAIN)

    assert [encoder.is_by_gpu(each) for each in (*by_gpu, *by_cpu)] == [True] * 3 + [False] * 3


def test_a_codestream_too_few_is_no_proof_of_what_two_wrote() -> None:
    encoder = GpuWithCpuFallback(GpuEncoder(SoftwareGpu()), ENCODER, 0)
    verifier = GpuVerifier(GpuDecoder(SoftwareGpu()), OPENJPEG, lambda why: None, 0)
    codestreams = encoder.encode(NOISE, FORMAT, PLAIN)

    with pytest.raises(CodecError):
        JudgeOfBoth(encoder, OPENJPH, verifier).differs(codestreams[1:], NOISE, FORMAT)
