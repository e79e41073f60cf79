"""Native copies for peers: a delivery's thread asks, the coordinator's thread has them made."""

import threading
from pathlib import Path

import pydicom
import pytest
from pydicom.pixels.utils import pixel_array

from scp.deliver.ports import Receipt
from scp.deliver.send import item_of
from scp.errors import (
    ConversionError,
    PeerUnavailableError,
    ScpError,
    WorkerLostError,
)
from tests.convert.images import shipped
from tests.pipeline.bench import Bench
from tests.pipeline.jobs import EXPLICIT
from tests.pipeline.parts import config_for
from tests.pipeline.workers import SECONDS, Answers, Gate, crew_of

RLE = shipped("MR_small_RLE.dcm")
LOSSY = shipped("SC_rgb_jpeg_dcmtk.dcm")


class Delivery:
    """A thread that wants a copy, and what it got."""

    def __init__(self, bench: Bench, path: Path) -> None:
        item = item_of(path)
        assert not isinstance(item, Receipt)
        self.answer: Path | ScpError | None = None
        self._bench = bench

        def deliver() -> None:
            try:
                self.answer = bench.converter.decode(item, EXPLICIT, False)
            except ScpError as error:
                self.answer = error

        self._thread = threading.Thread(target=deliver)
        self._thread.start()

    def get(self) -> Path | ScpError | None:
        """With the coordinator at work."""
        self._bench.until(lambda: self.answer)
        return self.get_alone()

    def get_alone(self) -> Path | ScpError | None:
        """With the coordinator gone."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "it still waits"
        return self.answer


def test_a_copy_is_native_and_the_callers_to_delete(bench: Bench) -> None:
    path = Delivery(bench, RLE).get()

    assert isinstance(path, Path)
    copy = pydicom.dcmread(path)
    assert copy.file_meta.TransferSyntaxUID == EXPLICIT
    assert (pixel_array(copy) == pixel_array(pydicom.dcmread(RLE))).all()
    assert bench.cached() == [path]
    path.unlink()


def test_what_cannot_be_decoded_is_an_error_that_says_so_and_leaves_nothing(bench: Bench) -> None:
    error = Delivery(bench, LOSSY).get()

    assert isinstance(error, ConversionError)
    assert not isinstance(error, WorkerLostError)
    assert "lossy" in str(error)
    assert bench.cached() == []


def test_a_copy_goes_before_every_conversion(bench: Bench, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    answers = Answers()
    bench.crew.pool.submit(gate.task, -1, answers.to("gate"))
    bench.crew.pool.submit(Gate(tmp_path / "later").task, 1, answers.to("later"))
    delivery = Delivery(bench, RLE)
    bench.until(lambda: bench.crew.pool.queued == 2)

    gate.open()

    path = delivery.get()
    assert isinstance(path, Path)
    assert answers.order == ["gate"]
    bench.miss_deadline()
    bench.miss_deadline()
    assert answers.order == ["gate", "later"]


def test_a_copy_that_took_two_workers_fails_by_the_error_that_is_tried_again(bench: Bench) -> None:
    before = bench.crew.pool.replaced
    frozen = bench.crew.freeze()
    delivery = Delivery(bench, RLE)
    bench.until(lambda: bench.crew.pool.busy)

    bench.miss_deadline()
    frozen += bench.crew.freeze()
    bench.miss_deadline()

    error = delivery.get()
    assert isinstance(error, WorkerLostError)
    assert str(error) == "a task took 2 workers with it"
    assert bench.crew.pool.replaced == before + 2
    assert len(set(frozen)) == 2
    assert bench.cached() == []


def test_a_copy_that_comes_too_late_is_deleted(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(tmp_path / "gate")
    bench.crew.pool.submit(gate.task, -1, Answers().to("gate"))
    monkeypatch.setattr("scp.pipeline.converter._PEER_SECONDS", 0.1)
    error = Delivery(bench, RLE).get()
    assert isinstance(error, WorkerLostError)
    assert str(error) == "no worker came to it"

    gate.open()
    bench.until(lambda: not bench.crew.pool.busy)

    assert bench.crew.pool.queued == 0
    assert bench.cached() == []


@pytest.mark.parametrize("when", ["running", "queued", "posted", "asked too late"])
def test_nobody_waits_for_a_copy_when_the_node_stops(tmp_path: Path, when: str) -> None:
    """The order of a coordinator's end: the pool, then once more what was posted, then nothing."""
    with crew_of(config_for(tmp_path)) as crew:
        bench = Bench(tmp_path, crew)
        crew.freeze()
        if when == "queued":
            crew.pool.submit(Gate(tmp_path / "gate").task, -1, Answers().to("gate"))
        delivery = None
        if when != "asked too late":
            delivery = Delivery(bench, RLE)
            bench.wait_until_asked()
        if when in ("running", "queued"):
            bench.inbox.run_posted()

        crew.pool.stop(0)
        bench.inbox.run_posted()

        delivery = delivery or Delivery(bench, RLE)
        error = delivery.get_alone()
        assert isinstance(error, PeerUnavailableError)
        assert str(error) == "the node stops"
        assert bench.cached() == []
