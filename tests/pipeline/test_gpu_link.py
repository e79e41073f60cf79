"""Frames to a GPU's process and answers back; whatever breaks, the caller hears of it in time."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scp.config.schema import Htj2kSection
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder
from scp.convert.gpu_port import EncodeSettings, Gpu, GpuUnavailableError
from scp.convert.gpu_thread import GpuLimits, GpuThread
from scp.pipeline.gpu_link import GpuLink, GpuServer
from tests.accept.stores import eventually
from tests.convert.gpus import FaultyGpu, Hang, SoftwareGpu, format_of, missing, raising
from tests.convert.images import ENCODER, NOISE, OPENJPEG, Array
from tests.pipeline.software_gpus import REPOSITORY

NAME = "software gpu 1.0"
FORMAT = format_of(NOISE, 12)
PLAIN = Htj2kSection()
CODESTREAMS = ENCODER.encode(NOISE, FORMAT, PLAIN)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A folder with servers, and links to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self._ends: list[GpuServer | GpuThread | GpuLink] = []

    def serve(self, gpu: Gpu, number: int = 0, limits: GpuLimits | None = None) -> GpuServer:
        thread = GpuThread(NAME, lambda: gpu, limits)
        server = GpuServer(self.folder / str(number), thread)
        self._ends += [server, thread]
        return server

    def link(self, first: int = 0, answer_seconds: float = 30.0) -> GpuLink:
        link = GpuLink(NAME, self.folder, first, answer_seconds=answer_seconds, clock=self.clock)
        self._ends.append(link)
        return link

    def also(self, *ends: GpuServer | GpuThread) -> None:
        """To be closed at the end."""
        self._ends += ends

    def close(self) -> None:
        for end in self._ends:
            end.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()
    assert list(tmp_path.iterdir()) == []


def proves(link: GpuLink, frames: Array = NOISE) -> bool:
    form = format_of(frames, 12)
    return not any(GpuDecoder(link).differs(ENCODER.encode(frames, form, PLAIN), frames, form))


def test_frames_are_encoded_decoded_and_compared_as_by_the_gpu_itself(place: Place) -> None:
    place.serve(SoftwareGpu())
    link = place.link()

    encoded = GpuEncoder(link).encode(NOISE, FORMAT, PLAIN)

    assert np.array_equal(OPENJPEG.decode(encoded, FORMAT), NOISE)
    assert np.array_equal(GpuDecoder(link).decode(CODESTREAMS, FORMAT), NOISE)
    changed: Array = NOISE.copy()
    changed[1, 3, 4] ^= 1
    assert GpuDecoder(link).differs(CODESTREAMS, changed, FORMAT) == [False, True, False]


@pytest.mark.parametrize("kind", ["<u2", "<i2", "|u1"])
@pytest.mark.parametrize("samples", [1, 3])
def test_every_word_arrives_whatever_its_type(place: Place, kind: str, samples: int) -> None:
    received: list[Array] = []

    class Keeper(SoftwareGpu):
        def differing(self, codestreams, frames):  # type: ignore[no-untyped-def]
            received.extend(frame.copy() for frame in frames)
            return [False] * len(frames)

    place.serve(Keeper())
    bits = np.random.default_rng(3).integers(0, 2**16, (2, 21, 33, samples))
    frames = np.ascontiguousarray(bits.astype(kind))

    place.link().differing([b"one", b"three"], list(frames))

    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(frames, received, strict=True))
    assert {each.dtype.str for each in received} == {kind}


def test_a_frame_that_the_gpu_refuses_comes_back_as_none(place: Place) -> None:
    place.serve(FaultyGpu(missing(1)))

    answers = place.link().differing(CODESTREAMS, list(NOISE))

    assert answers == [False, None, False]


def test_the_shared_memory_grows_with_the_work_and_is_given_back(place: Place) -> None:
    place.serve(SoftwareGpu())
    link = place.link()
    large = np.zeros((2, 4200, 4200, 1), "<u2")
    large[:, ::7] = 77

    assert proves(link)
    assert proves(link, large)
    assert link._area is not None
    assert os.fstat(link._area.descriptor).st_size == 0
    assert proves(link)
    assert proves(link, large)


def test_a_codestream_that_is_longer_than_its_frame_arrives_whole(place: Place) -> None:
    place.serve(SoftwareGpu())
    sizes = ((16, 16), (64, 48))
    noise = np.random.default_rng(5).integers(0, 2**16, 64 * 48).astype("<u2")
    frames = [noise[: rows * columns].reshape(rows, columns, 1) for rows, columns in sizes]
    settings = EncodeSettings(
        precision=16, decompositions=5, code_block=64, progression="RPCL", colour_transform=False
    )

    encoded = place.link().encode(frames, settings)

    assert encoded == SoftwareGpu().encode(frames, settings)
    assert len(encoded[0] or b"") > frames[0].nbytes


def test_the_shared_memory_is_pinned_while_it_is_mapped(place: Place) -> None:
    pinned: list[int] = []

    def pin(area: NDArray[np.uint8]) -> Callable[[], None]:
        pinned.append(area.nbytes)
        return lambda: pinned.remove(area.nbytes)

    thread = GpuThread(NAME, SoftwareGpu)
    place.also(thread, GpuServer(place.folder / "0", thread, pin))
    link = place.link()
    large = np.zeros((2, 1200, 1200, 1), "<u2")

    assert proves(link)
    small = pinned[:]
    assert proves(link, large)

    assert len(small) == len(pinned) == 1
    assert small[0] < large.nbytes < pinned[0]
    link.close()
    assert eventually(lambda: not pinned)


def test_what_is_too_large_is_left_to_the_cpu(place: Place) -> None:
    gpu = SoftwareGpu()
    place.serve(gpu)
    huge = np.zeros((1, 21000, 20000, 1), np.uint8)

    with pytest.raises(GpuUnavailableError, match="too many"):
        place.link().differing([b""], list(huge))

    assert gpu.batches == []


def test_workers_share_the_gpus_alike_and_take_another_where_theirs_is_missing(
    place: Place,
) -> None:
    devices = [SoftwareGpu(), SoftwareGpu()]
    servers = [place.serve(device, number) for number, device in enumerate(devices)]

    assert all(proves(place.link(first)) for first in range(4))
    assert [len(device.batches) for device in devices] == [2, 2]

    servers[0].close()
    assert all(proves(place.link(first)) for first in range(2))
    assert [len(device.batches) for device in devices] == [2, 4]


def test_callers_wait_for_each_other_and_not_for_ever(place: Place) -> None:
    gpu = SoftwareGpu()
    place.serve(gpu)
    results: list[bool] = []

    def work() -> None:
        link = place.link()
        results.extend(proves(link) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert results == [True] * 18
    assert sum(gpu.batches) == 3 * 18


# -- what breaks -----------------------------------------------------------------------------------


def test_without_any_process_it_says_so_at_once_and_looks_again_later(place: Place) -> None:
    link = place.link()
    for _ in range(2):
        with pytest.raises(GpuUnavailableError, match="no GPU answers"):
            link.differing(CODESTREAMS, list(NOISE))

    place.serve(SoftwareGpu())
    with pytest.raises(GpuUnavailableError):
        link.differing(CODESTREAMS, list(NOISE))
    place.clock.now += 1.1
    assert proves(link)


def test_what_the_gpu_raises_is_told(place: Place) -> None:
    place.serve(FaultyGpu(raising(RuntimeError("CUDA error 2"))), limits=GpuLimits(retry_seconds=0))
    link = place.link()

    with pytest.raises(GpuUnavailableError, match="CUDA error 2"):
        link.differing(CODESTREAMS, list(NOISE))

    assert proves(link)


def test_a_device_that_hangs_is_given_up_by_its_own_process(place: Place) -> None:
    hang = Hang()
    place.serve(FaultyGpu(hang), limits=GpuLimits(deadline_seconds=0.2))

    with pytest.raises(GpuUnavailableError, match=r"no answer after 0\.2 s"):
        place.link().differing(CODESTREAMS, list(NOISE))

    hang.released.set()


def test_a_process_that_says_nothing_is_given_up(place: Place) -> None:
    hang = Hang()
    place.serve(FaultyGpu(hang))
    link = place.link(answer_seconds=0.2)

    with pytest.raises(GpuUnavailableError, match=r"no answer after 0\.2 s"):
        link.differing(CODESTREAMS, list(NOISE))

    # It may still read the old area: the next work has one of its own, and another connection.
    with pytest.raises(GpuUnavailableError, match="no GPU answers"):
        link.differing(CODESTREAMS, list(NOISE))
    hang.released.set()
    place.clock.now += 1
    assert proves(place.link())


def test_a_process_that_does_not_greet_is_passed_over(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(place.folder / "0"))
        silent.listen(1)
        place.serve(SoftwareGpu(), number=1)

        assert proves(place.link())
    (place.folder / "0").unlink()


_DIES = """
import os, signal, sys, threading
from pathlib import Path
from scp.convert.gpu_thread import GpuThread
from scp.pipeline.gpu_link import GpuServer
from tests.convert.gpus import FaultyGpu
kill = lambda answers: os.kill(os.getpid(), signal.SIGKILL)
server = GpuServer(Path(sys.argv[1]), GpuThread("software gpu 1.0", lambda: FaultyGpu(kill)))
print("ready", flush=True)
threading.Event().wait()
"""


def test_the_death_of_the_process_is_heard_at_once_and_its_work_not_sent_again(
    place: Place,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _DIES, str(place.folder / "0")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        link = place.link()

        with pytest.raises(GpuUnavailableError, match="is gone"):
            link.differing(CODESTREAMS, list(NOISE))

        assert process.wait(30) == -signal.SIGKILL
    survivor = SoftwareGpu()
    place.serve(survivor)  # In its place, over the socket that it left.
    place.clock.now += 1.1
    assert proves(link)
    assert survivor.batches == [3]


def test_a_caller_that_dies_in_the_middle_harms_nobody(place: Place) -> None:
    hang = Hang()
    place.serve(FaultyGpu(hang))
    pid = os.fork()
    if pid == 0:
        try:
            place.link().differing(CODESTREAMS, list(NOISE))
        finally:
            os._exit(0)
    assert hang.entered.wait(30)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    hang.released.set()

    assert proves(place.link())


def test_a_gpu_that_was_contradicted_is_distrusted_by_all(place: Place) -> None:
    place.serve(SoftwareGpu(), limits=GpuLimits(retry_seconds=60))
    first, second = place.link(), place.link()
    assert proves(first)
    assert proves(second)

    first.distrust("it lies")

    with pytest.raises(GpuUnavailableError, match="it lies"):
        second.differing(CODESTREAMS, list(NOISE))


def test_others_on_the_machine_cannot_reach_it(place: Place) -> None:
    place.serve(SoftwareGpu())

    assert (place.folder / "0").stat().st_mode & 0o777 == 0o600
