"""GPUs in processes of their own that fail, hang, die or lie: no frame is lost, and they come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scp.config.schema import Config
from scp.convert.gpu_team import MEMBERS
from scp.pipeline import gpus
from scp.pipeline.tasks import ConvertTask, Outcome
from tests.convert.images import OPENJPH
from tests.material import ct_series, write
from tests.pipeline.parts import config_for
from tests.pipeline.software_gpus import FAULTS, SoftwareGpus
from tests.pipeline.workers import Answers, Crew, crew_of

SLICES = 3


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Frames that are large enough for a GPU to prove."""
    return [write(one, tmp_path) for one in ct_series(SLICES, 2048, 1024)]


@contextmanager
def crew(tmp_path: Path, count: int = 1, **codec: Any) -> Iterator[Crew]:
    with crew_of(config_for(tmp_path, codec=codec), count, gpus=tmp_path / "gpus") as started:
        yield started
    assert not list((tmp_path / "gpus").glob("*"))


def convert(crew: Crew, sources: list[Path]) -> list[Outcome]:
    """All of them, in order; whatever befalls the GPU, each is converted and proved."""
    answers = Answers()
    for number, source in enumerate(sources):
        task = ConvertTask(source=source, target=source.with_suffix(f".{number}"))
        crew.pool.submit(task, 0, answers.to(str(number)))
    crew.until(lambda: len(answers.order) == len(sources))
    outcomes = [answers.of[str(number)] for number in range(len(sources))]
    assert all(isinstance(each, Outcome) for each in outcomes)
    assert all(each.is_converted and each.verified_by for each in outcomes)  # type: ignore[union-attr]
    return outcomes  # type: ignore[return-value]


def until_ready(crew: Crew, count: int) -> None:
    crew.until(lambda: crew.pool.gpus.ready == count and crew.pool.ready == len(crew.pool._workers))


def until_used(crew: Crew, sources: list[Path]) -> None:
    """Until the GPU proves again."""

    def is_used() -> bool:
        before = crew.pool.gpus.describe()[0]["frames"]
        convert(crew, sources[:1])
        crew.until(lambda: crew.pool.gpus.ready == 1)
        for _ in range(100):
            crew.turn()
            if crew.pool.gpus.describe()[0]["frames"] > before:
                return True
        return False

    crew.until(is_used)


def test_every_gpu_of_the_machine_has_a_process_and_its_share_of_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[Path]
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch, count=2)
    with crew(tmp_path, 2, backend="gpu") as started:
        until_ready(started, 2)
        outcomes = convert(started, sources * 3)
        described = started.pool.gpus.describe()

    assert {each.encoder for each in outcomes} == {software.library}
    assert {each.verified_by for each in outcomes} == {OPENJPH.name}
    assert [each["device"] for each in described] == ["Software 0", "Software 1"]
    assert software.frames(0, "encode") > 0 < software.frames(1, "encode")


def test_by_itself_a_gpu_compresses_small_frames_and_the_cpu_proves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch)
    sources = [write(one, tmp_path) for one in ct_series(SLICES)]
    with crew(tmp_path) as started:
        until_ready(started, 1)
        outcomes = convert(started, sources)

    assert {each.encoder for each in outcomes} == {software.library}
    assert {each.verified_by for each in outcomes} == {OPENJPH.name}


def test_by_itself_a_gpu_proves_large_frames_and_the_cpu_compresses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[Path]
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch)
    with crew(tmp_path) as started:
        until_ready(started, 1)
        outcomes = convert(started, sources)
        started.until(lambda: started.pool.gpus.describe()[0]["frames"] == SLICES + MEMBERS)
        (described,) = started.pool.gpus.describe()

    assert {each.verified_by for each in outcomes} == {software.library}
    assert all(each.encoder.startswith("openjph") for each in outcomes)
    assert (described["state"], described["failures"], described["last_error"]) == ("in use", 0, "")
    assert software.frames(0, "encode") == 0


def test_what_nobody_proves_the_gpu_compresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[Path]
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch)
    with crew_of(config_for(tmp_path, codec={"verify": "off"}), gpus=tmp_path / "gpus") as started:
        until_ready(started, 1)
        answers = Answers()
        task = ConvertTask(source=sources[0], target=tmp_path / "converted")
        started.pool.submit(task, 0, answers.to("it"))
        started.until(lambda: answers.order)

    outcome = answers.of["it"]
    assert isinstance(outcome, Outcome)
    assert (outcome.encoder, outcome.verified_by) == (software.library, "")


@pytest.mark.parametrize(
    ("fault", "backend"),
    [*((fault, "auto") for fault in sorted(FAULTS)), ("none", "gpu"), ("wrong", "gpu")],
)
def test_a_gpu_that_fails_costs_no_frame_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[Path], fault: str, backend: str
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch)
    with crew(tmp_path, backend=backend) as started:
        until_ready(started, 1)
        workers = set(started.pids())
        software.fault(0, fault)

        convert(started, sources)

        assert software.has_happened(0)
        if fault in ("death", "stop", "hang"):
            started.until(lambda: started.pool.gpus.describe()[0]["deaths"] >= 1)
        until_used(started, sources)
        (described,) = started.pool.gpus.describe()
        # No worker was lost over it.
        assert started.pool.replaced == 0
        assert len(workers & set(started.pids())) >= 1
    if fault in ("death", "stop", "hang"):
        assert described["last_error"]
    elif fault == "none":
        assert described["refused"] >= 1
    elif not (fault == "wrong" and backend == "gpu"):  # A codestream that is cut is no codestream.
        assert described["failures"] >= 1
        assert described["last_error"]


def test_a_gpu_that_cannot_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[Path]
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch)
    software.fault(0, "open")
    with crew(tmp_path) as started:
        started.until(lambda: started.pool.gpus.describe()[0]["deaths"] >= 1)
        (described,) = started.pool.gpus.describe()
        assert "CUDA error 999" in described["last_error"]
        convert(started, sources)

        until_ready(started, 1)
        until_used(started, sources)


@pytest.mark.parametrize("backend", ["auto", "gpu"])
def test_a_machine_without_a_gpu_says_why_and_its_cpu_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[Path], backend: str
) -> None:
    SoftwareGpus(tmp_path / "software", monkeypatch, count=0)
    with crew(tmp_path, backend=backend) as started:
        started.until(lambda: started.pool.gpus.why_not)
        assert started.pool.gpus.why_not == "no GPU, or no driver for it"
        assert started.pool.gpus.describe() == []
        convert(started, sources[:1])


def test_no_process_is_started_where_no_gpu_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[Path]
) -> None:
    SoftwareGpus(tmp_path / "software", monkeypatch)
    config: Config = config_for(tmp_path, codec={"backend": "cpu"})
    with crew_of(config, gpus=tmp_path / "gpus") as started:
        assert len(started.pids()) == 1
        assert (started.pool.gpus.describe(), started.pool.gpus.why_not) == ([], "")
        convert(started, sources[:1])


def test_where_the_library_is_missing_no_process_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "installed_versions", dict)
    with crew_of(config_for(tmp_path), gpus=tmp_path / "gpus") as started:
        assert len(started.pids()) == 1
        assert "is not installed" in started.pool.gpus.why_not


def test_each_death_in_a_row_makes_the_pause_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SoftwareGpus(tmp_path / "software", monkeypatch)
    monkeypatch.setattr(gpus, "RETRY_SECONDS", 30.0)
    with crew(tmp_path) as started:
        (gpu,) = started.pool.gpus._gpus
        pauses = []
        for deaths in (1, 2, 3):
            assert gpu.process is not None
            gpu.process.kill()
            started.until(lambda deaths=deaths: gpu.deaths == deaths)  # type: ignore[misc]
            assert started.pool.gpus.connections() == []
            pauses.append(round(started.pool.gpus.describe()[0]["retry_seconds"], -1))
            started.turn(1000.0)
        assert pauses == [30, 60, 120]
