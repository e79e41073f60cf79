"""What holds on a real GPU: nvJPEG2000 and the CPU's codecs agree on every word.

Skipped where there is none; run with ``pytest -m gpu`` on a machine that has one.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from scp.config.schema import Htj2kSection
from scp.convert import pydicom_plugin
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder
from scp.convert.codestream import decompositions_for, earns_rpcl, parse_codestream
from scp.convert.cuda import CudaDevice, CudaMemory, gpu_names
from scp.convert.gpu_fallback import GpuVerifier, GpuWithCpuFallback
from scp.convert.gpu_port import EncodeSettings, Gpu, GpuError
from scp.convert.gpu_thread import GpuLimits, GpuThread
from scp.convert.gpu_versions import gpu_library, installed_versions
from tests.convert.gpus import format_of
from tests.convert.images import ENCODER, OPENJPEG, OPENJPH, Array, convert, image, save
from tests.convert.test_codec_cpu import content

pytestmark = pytest.mark.gpu

PLAIN = Htj2kSection()
SIZES = [(16, 16), (17, 333), (64, 65), (234, 256), (513, 64), (600, 700), (40, 4097), (2050, 130)]


def open_gpu() -> Gpu:
    from scp.convert.nvimagecodec import NvImageCodec

    return NvImageCodec()


@pytest.fixture(scope="module")
def gpu() -> Iterator[GpuThread]:
    try:
        library = gpu_library(installed_versions())
    except GpuError as error:
        pytest.skip(f"no extra `gpu` here: {error}")
    if not gpu_names():
        pytest.skip("no GPU here")
    thread = GpuThread(library, open_gpu)
    yield thread
    thread.close()


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize(
    ("bits", "allocated", "signed", "samples"),
    [
        (8, 8, False, 1),
        (5, 8, False, 1),
        (8, 16, False, 1),
        (9, 16, False, 1),
        (12, 16, False, 1),
        (16, 16, False, 1),
        (9, 16, True, 1),
        (12, 16, True, 1),
        (16, 16, True, 1),
        (8, 8, False, 3),
        (12, 16, False, 3),
        (16, 16, False, 3),
    ],
)
@pytest.mark.parametrize("kind", ["noise", "extremes"])
def test_every_word_comes_back_whoever_encodes_and_whoever_decodes(
    gpu: GpuThread, rows: int, columns: int, bits: int, allocated: int, signed: bool,
    samples: int, kind: str,
) -> None:  # fmt: skip
    frames = content((2, rows, columns, samples), bits, signed, kind, allocated)

    for transformed in {False, samples == 3}:
        form = format_of(frames, bits, colour_transform=transformed)
        by_gpu = GpuEncoder(gpu).encode(frames, form, PLAIN)
        by_cpu = ENCODER.encode(frames, form, PLAIN)

        for decoder in (OPENJPEG, OPENJPH, GpuDecoder(gpu)):
            assert np.array_equal(decoder.decode(by_gpu, form), frames), decoder.name
        assert np.array_equal(GpuDecoder(gpu).decode(by_cpu, form), frames)
        assert GpuDecoder(gpu).differs(by_cpu, frames, form) == [False, False]
        parsed = [parse_codestream(each) for each in by_gpu]
        assert {each.precision for each in parsed} == {bits}
        # nvJPEG2000 takes no more decompositions than the shorter side allows.
        if decompositions_for(rows, columns) <= parsed[0].decompositions:
            assert all(earns_rpcl(each, form) for each in parsed)


@pytest.mark.parametrize("at", [0, 1, 7, -1])
@pytest.mark.parametrize("columns", [64, 67])
def test_one_bit_that_differs_is_found_wherever_it_is(
    gpu: GpuThread, at: int, columns: int
) -> None:
    frames = content((3, 65, columns, 1), 8, False, "noise", 8)
    form = format_of(frames, 8)
    codestreams = ENCODER.encode(frames, form, PLAIN)
    decoder = GpuDecoder(gpu)
    assert decoder.differs(codestreams, frames, form) == [False] * 3

    changed: Array = frames.copy()
    changed[1].reshape(-1)[at] ^= 1

    assert decoder.differs(codestreams, changed, form) == [False, True, False]
    assert decoder.differs([codestreams[0]] * 3, frames, form) == [False, True, True]


def test_a_decoded_frame_of_before_never_stands_in_for_one_that_failed(gpu: GpuThread) -> None:
    frames = content((4, 200, 200, 1), 12, False, "noise", 16)
    form = format_of(frames, 12)
    codestreams = ENCODER.encode(frames, form, PLAIN)
    decoder = GpuDecoder(gpu)
    assert decoder.differs(codestreams, frames, form) == [False] * 4

    header = codestreams[2].index(b"\xff\x93") + 2
    gutted = [*codestreams[:2], codestreams[2][:header] + b"\xff\xd9", codestreams[3]]

    with pytest.raises(GpuError):
        decoder.differs(gutted, frames, form)
    assert gpu.status.is_in_use
    assert decoder.differs(codestreams, frames, form) == [False] * 4


def test_damage_in_a_codestream_proves_nothing(gpu: GpuThread) -> None:
    frames = content((1, 512, 512, 1), 12, False, "noise", 16)
    form = format_of(frames, 12)
    good = ENCODER.encode(frames, form, PLAIN)[0]
    decoder = GpuDecoder(gpu)

    for at in range(len(good) // 2, len(good) - 100, len(good) // 11):
        damaged = good[:at] + bytes(each ^ 0x5A for each in good[at : at + 4]) + good[at + 4 :]
        try:
            assert decoder.differs([damaged], frames, form) == [True]
        except GpuError:
            continue


def test_callers_of_different_series_share_the_gpu(gpu: GpuThread) -> None:
    series = [
        content((3, 100 + 10 * number, 200, 1), 8 + number % 8, False, "noise", 16)
        for number in range(12)
    ]

    def prove(number: int) -> bool:
        frames, form = series[number], format_of(series[number], 8 + number % 8)
        encoded = GpuEncoder(gpu).encode(frames, form, PLAIN)
        same = np.array_equal(OPENJPH.decode(encoded, form), frames)
        by_cpu = ENCODER.encode(frames, form, PLAIN)
        return same and not any(GpuDecoder(gpu).differs(by_cpu, frames, form))

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(prove, range(12)))


def test_without_memory_on_the_device_the_cpu_does_it_and_later_the_gpu_again(
    gpu: GpuThread,
) -> None:
    frames = content((4, 2048, 2048, 1), 12, False, "noise", 16)
    form = format_of(frames, 12)
    codestreams = ENCODER.encode(frames, form, PLAIN)
    now = [0.0]
    own = GpuThread("of this test", open_gpu, GpuLimits(retry_seconds=30), lambda: now[0])
    device = CudaDevice()
    hog = CudaMemory(device)
    hog.reserve(device.memory()[0] - 48 * 2**20)

    try:
        encoder = GpuWithCpuFallback(GpuEncoder(own), ENCODER)
        verifier = GpuVerifier(GpuDecoder(own), OPENJPEG, own.distrust)
        assert OPENJPEG.decode(encoder.encode(frames, form, PLAIN), form).shape == frames.shape
        assert not any(verifier.differs(codestreams, frames, form))
        assert (encoder.shares.gpu, verifier.shares.gpu) == (0, 0)
    finally:
        device.use()
        hog.free()
    now[0] += 1000
    assert not any(verifier.differs(codestreams, frames, form))
    assert None not in GpuEncoder(own).encode_some(frames, form, PLAIN)
    assert verifier.shares.gpu == 4
    own.close()


def test_other_threads_run_while_the_gpu_works(gpu: GpuThread) -> None:
    frames = content((4, 3328, 4096, 1), 12, False, "noise", 16)
    form = format_of(frames, 12)
    encoder = GpuEncoder(gpu)
    encoder.encode(frames, form, PLAIN)
    ticks, stop = [0], threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks[0] += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    encoder.encode(frames, form, PLAIN)
    stop.set()
    ticker.join()

    assert ticks[0] > 5


@pytest.mark.parametrize("side", [(1, 1), (1, 500), (2, 100), (3, 100), (15, 15)])
def test_what_the_encoder_would_do_with_a_tiny_frame(gpu: GpuThread, side: tuple[int, int]) -> None:
    """It may refuse it, never write something else."""
    frames = content((1, *side, 1), 12, False, "noise", 16)
    settings = EncodeSettings(
        precision=12, decompositions=5, code_block=64, progression="RPCL", colour_transform=False
    )

    (codestream,) = gpu.encode(list(frames), settings)

    if codestream is not None:
        assert np.array_equal(OPENJPEG.decode([codestream], format_of(frames, 12)), frames)


@pytest.mark.parametrize("shape", [(1, 2500, 2000, 1), (40, 256, 256, 1), (12, 300, 400, 3)])
def test_pydicom_decodes_on_the_gpu(gpu: GpuThread, tmp_path: Path, shape: tuple[int, ...]) -> None:
    frames = content(shape, 8, False, "noise", 8)
    source = save(image(frames), tmp_path / "source.dcm")
    convert(source, tmp_path / "result.dcm")

    pydicom_plugin.register()
    try:
        array = dcmread(tmp_path / "result.dcm").pixel_array
    finally:
        pydicom_plugin.unregister()

    assert np.array_equal(array.reshape(frames.shape), frames)
