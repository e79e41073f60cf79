"""Threads that share a GPU: each work goes to who has least to do, and a failure is its member's alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from scp.convert.gpu_port import GpuUnavailableError
from scp.convert.gpu_team import GpuTeam
from tests.convert.gpus import FaultyGpu, SoftwareGpu, raising
from tests.convert.test_gpu_thread import CODESTREAMS, CUDA_ERROR, FRAMES, SETTINGS, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_work_goes_past_a_member_that_is_busy(bench: Bench) -> None:
    busy = bench.hang()
    team = GpuTeam([bench.thread(FaultyGpu(busy)), bench.thread(SoftwareGpu())])

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(team.encode, FRAMES, SETTINGS)
        assert busy.entered.wait(10)
        for _ in range(3):
            assert team.differing(CODESTREAMS, FRAMES) == [False, False, False]
        assert not first.done()
        busy.released.set()

    assert first.result(10) == SoftwareGpu().encode(FRAMES, SETTINGS)
    assert team.status.frames == 12
    assert [member.status.frames for member in team.members] == [3, 9]


def test_a_member_that_fails_is_left_alone_and_the_other_goes_on(bench: Bench) -> None:
    team = GpuTeam([bench.thread(FaultyGpu(raising(CUDA_ERROR))), bench.thread(SoftwareGpu())])

    with pytest.raises(GpuUnavailableError):
        team.encode(FRAMES, SETTINGS)

    for _ in range(3):
        assert team.encode(FRAMES, SETTINGS) == SoftwareGpu().encode(FRAMES, SETTINGS)
    status = team.status
    assert (status.is_in_use, status.retry_seconds, status.failures) == (True, 0.0, 1)
    assert "CUDA error 700" in status.last_error


def test_without_a_member_that_is_in_use_it_is_said_when_one_will_be(bench: Bench) -> None:
    team = GpuTeam([bench.thread(SoftwareGpu()), bench.thread(SoftwareGpu())])

    team.distrust("it was wrong")

    assert not team.status.is_in_use
    assert 0 < team.status.retry_seconds <= 30
    with pytest.raises(GpuUnavailableError, match="left alone"):
        team.decode(CODESTREAMS)


def test_one_member_of_no_more_use_asks_for_a_new_process(bench: Bench) -> None:
    failing = [FaultyGpu(raising(CUDA_ERROR)) for _ in range(3)]
    team = GpuTeam([bench.thread(*failing), bench.thread(SoftwareGpu())])

    for number in range(3):
        assert not team.status.wants_new_process, number
        with suppress(GpuUnavailableError):
            team.encode_in_place(FRAMES, SETTINGS)
        bench.clock.now += 1000

    assert team.status.wants_new_process
