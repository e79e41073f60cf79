"""The GPU's codec keeps the contract of the codecs, and refuses up front what a GPU cannot do."""

from typing import Any

import numpy as np
import pytest

from scp.config.schema import Htj2kSection
from scp.convert.codec_gpu import (
    GpuDecoder,
    GpuEncoder,
    Proof,
    why_not_decoded,
    why_not_encoded,
)
from scp.convert.codestream import earns_rpcl, parse_codestream
from scp.convert.gpu_port import GpuError
from scp.convert.gpu_versions import NVIMAGECODEC, NVJPEG2000, gpu_library
from scp.convert.ports import ComparingDecoder
from scp.errors import CodecError
from tests.convert.gpus import (
    Fault,
    FaultyGpu,
    SoftwareGpu,
    all_missing,
    format_of,
    missing,
    raising,
    right,
    short,
    wrong,
)
from tests.convert.images import ENCODER, NOISE, OPENJPEG, Array

PLAIN = Htj2kSection()
FORMAT = format_of(NOISE, 12)
CODESTREAMS = ENCODER.encode(NOISE, FORMAT, PLAIN)
RGB: Array = np.random.default_rng(5).integers(0, 256, (2, 40, 17, 3)).astype("<u1")


@pytest.mark.parametrize(
    ("frames", "bits", "transformed"),
    [
        (NOISE, 12, False),
        ((NOISE.astype("<i2") - 2048), 12, False),
        (RGB, 8, True),
        (RGB, 8, False),
    ],
    ids=["unsigned", "signed", "rgb transformed", "rgb"],
)
def test_codestreams_decode_to_the_source_and_earn_the_label(
    frames: Array, bits: int, transformed: bool
) -> None:
    form = format_of(frames, bits, colour_transform=transformed)

    codestreams = GpuEncoder(SoftwareGpu()).encode(frames, form, PLAIN)

    assert np.array_equal(OPENJPEG.decode(codestreams, form), frames)
    assert all(earns_rpcl(parse_codestream(each), form) for each in codestreams)


def test_wide_frames_get_as_many_decompositions_as_the_label_demands() -> None:
    frames: Array = np.zeros((1, 20, 4097, 1), "<u2")
    gpu = SoftwareGpu()

    codestreams = GpuEncoder(gpu).encode(frames, format_of(frames, 12), PLAIN)

    assert gpu.settings[0].decompositions == 7
    assert earns_rpcl(parse_codestream(codestreams[0]), format_of(frames, 12))


def test_another_progression_gets_no_tlm() -> None:
    encoder = GpuEncoder(SoftwareGpu())

    codestreams = encoder.encode(NOISE, FORMAT, Htj2kSection(progression="LRCP"))

    assert parse_codestream(codestreams[0]).tlm == ()


@pytest.mark.parametrize(
    ("frames", "parameters", "why"),
    [
        (np.zeros((1, 32, 32, 1), "<i1"), PLAIN, "signed bytes"),
        (np.zeros((1, 1, 500, 1), "<u2"), PLAIN, "too small a frame"),
        (np.zeros((1, 500, 15, 1), "<u2"), PLAIN, "too small a frame"),
        (np.zeros((1, 32, 32, 3), "<i2"), PLAIN, "signed colour"),
        (np.zeros((1, 32, 32, 4), "<u1"), PLAIN, "number of samples"),
        (np.zeros((1, 32, 32, 1), "<u2"), Htj2kSection(code_block=(32, 64)), "code block"),
    ],
)
def test_what_a_gpu_cannot_encode_does_not_reach_it(
    frames: Array, parameters: Htj2kSection, why: str
) -> None:
    gpu = SoftwareGpu()
    form = format_of(frames, 8)

    with pytest.raises(GpuError, match=why):
        GpuEncoder(gpu).encode(frames, form, parameters)

    assert why_not_encoded(form, parameters) == why
    assert gpu.batches == []


def test_signed_samples_of_few_bits_do_not_reach_the_gpus_decoder() -> None:
    frames = (NOISE.astype("<i2") - 2048) // 16
    form = format_of(frames, 8)
    codestreams = ENCODER.encode(frames, form, PLAIN)
    gpu = SoftwareGpu()

    for asked in (form, format_of(frames, 12)):
        with pytest.raises(GpuError, match="signed samples"):
            GpuDecoder(gpu).differs(codestreams, frames, asked)

    assert why_not_decoded(form)
    assert gpu.batches == []


def test_frames_that_are_not_as_described_are_no_matter_of_the_gpu() -> None:
    with pytest.raises(CodecError) as caught:
        GpuEncoder(SoftwareGpu()).encode(NOISE[:, :4], FORMAT, PLAIN)

    assert not isinstance(caught.value, GpuError)


def test_a_frame_that_failed_is_told_from_those_that_did_not() -> None:
    encoder = GpuEncoder(FaultyGpu(missing(1)))

    some = encoder.encode_some(NOISE, FORMAT, PLAIN)

    assert [each is None for each in some] == [False, True, False]


def test_a_codestream_without_an_end_is_a_frame_that_failed() -> None:
    some = GpuEncoder(FaultyGpu(wrong)).encode_some(NOISE, FORMAT, PLAIN)

    assert some == [None, None, None]


@pytest.mark.parametrize(
    "fault",
    [missing(1), all_missing, short, raising(RuntimeError("CUDA 700")), raising(MemoryError())],
)
def test_whatever_goes_wrong_is_an_error_that_names_the_gpu(fault: Fault) -> None:
    calls: list[Any] = [
        lambda gpu: GpuEncoder(gpu).encode(NOISE, FORMAT, PLAIN),
        lambda gpu: GpuDecoder(gpu).decode(CODESTREAMS, FORMAT),
        lambda gpu: GpuDecoder(gpu).differs(CODESTREAMS, NOISE, FORMAT),
    ]

    for call in calls:
        with pytest.raises(GpuError):
            call(FaultyGpu(fault))


def test_decoded_frames_have_the_type_of_the_source() -> None:
    few: Array = NOISE // 32
    form = format_of(few, 7)

    decoded = GpuDecoder(SoftwareGpu()).decode(ENCODER.encode(few, form, PLAIN), form)

    assert decoded.dtype == few.dtype
    assert np.array_equal(decoded, few)


def test_the_frame_that_differs_is_named() -> None:
    changed = NOISE.copy()
    changed[1, -1, -1] ^= 1

    assert GpuDecoder(SoftwareGpu()).differs(CODESTREAMS, changed, FORMAT) == [False, True, False]


def test_a_judge_that_can_compare_is_known_by_it() -> None:
    assert isinstance(GpuDecoder(SoftwareGpu()), ComparingDecoder)
    assert not isinstance(OPENJPEG, ComparingDecoder)


def test_many_instances_are_proved_in_one_call_and_each_has_its_own_answer() -> None:
    gpu = SoftwareGpu()
    changed = NOISE.copy()
    changed[0, 0, 0] ^= 1
    rgb = format_of(RGB, 8, colour_transform=True)
    proofs = [
        Proof(codestreams=CODESTREAMS, frames=NOISE, frame_format=FORMAT),
        Proof(codestreams=[b""] * 3, frames=NOISE, frame_format=FORMAT),
        Proof(codestreams=CODESTREAMS, frames=changed, frame_format=FORMAT),
        Proof(codestreams=ENCODER.encode(RGB, rgb, PLAIN), frames=RGB, frame_format=rgb),
    ]

    answers = GpuDecoder(gpu).differs_each(proofs)

    assert answers[0] == [False, False, False]
    assert isinstance(answers[1], CodecError)
    assert answers[2:] == [[True, False, False], [False, False]]
    assert gpu.batches == [8]


def test_an_instance_that_the_gpu_could_not_decode_leaves_the_others_their_answers() -> None:
    proof = Proof(codestreams=CODESTREAMS, frames=NOISE, frame_format=FORMAT)

    answers = GpuDecoder(FaultyGpu(missing(4))).differs_each([proof, proof])

    assert answers[0] == [False, False, False]
    assert isinstance(answers[1], GpuError)


def test_a_gpu_that_fails_fails_all_instances_of_the_call() -> None:
    proof = Proof(codestreams=CODESTREAMS, frames=NOISE, frame_format=FORMAT)
    gpu = FaultyGpu(raising(RuntimeError("CUDA 700")))

    answers = GpuDecoder(gpu).differs_each([proof, proof])

    assert [isinstance(answer, GpuError) for answer in answers] == [True, True]


@pytest.mark.parametrize("damage", ["cut", "empty", "size", "sign", "precision", "count"])
def test_codestreams_that_are_not_as_described_do_not_reach_the_gpu(damage: str) -> None:
    gpu = SoftwareGpu()
    frames: Array = NOISE[:1]
    data, asked = {
        "cut": ([CODESTREAMS[0][:60]], frames),
        "empty": ([b""], frames),
        "size": (CODESTREAMS[:1], np.ascontiguousarray(frames[:, :20])),
        "sign": (CODESTREAMS[:1], frames.astype("<i2")),
        "precision": (CODESTREAMS[:1], frames.astype("<u1")),
        "count": (CODESTREAMS[:2], frames),
    }[damage]

    with pytest.raises(CodecError) as caught:
        GpuDecoder(gpu).differs(data, asked, format_of(asked, 8 if damage == "precision" else 12))

    assert not isinstance(caught.value, GpuError)
    assert gpu.batches == []


def test_a_fault_that_is_over_is_over() -> None:
    encoder = GpuEncoder(FaultyGpu(raising(RuntimeError("CUDA 2")), right))
    with pytest.raises(GpuError):
        encoder.encode(NOISE, FORMAT, PLAIN)

    assert len(encoder.encode(NOISE, FORMAT, PLAIN)) == len(NOISE)


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {NVIMAGECODEC: "0.9.0.20"},
        {NVJPEG2000: "0.11.0.51"},
        {NVIMAGECODEC: "0.8.2", NVJPEG2000: "0.11.0.51"},
        {NVIMAGECODEC: "0.9.0.20", NVJPEG2000: "0.9.0.43"},
        {NVIMAGECODEC: "", NVJPEG2000: ""},
    ],
)
def test_libraries_that_are_missing_or_too_old_are_refused(versions: dict[str, str]) -> None:
    with pytest.raises(GpuError, match="or newer is needed"):
        gpu_library(versions)


def test_libraries_that_are_new_enough_are_named() -> None:
    versions = {NVIMAGECODEC: "0.9.0.20", NVJPEG2000: "0.9.1"}

    assert gpu_library(versions) == "nvJPEG2000 0.9.1 (nvImageCodec 0.9.0.20)"
