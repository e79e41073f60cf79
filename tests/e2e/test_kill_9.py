"""kill -9 of the whole node while a modality sends."""

import random
import threading
import time
from pathlib import Path

import pydicom
import pytest

from scp.deliver.send import send_files
from scp.errors import DeliveryError
from tests.e2e.conftest import StartNode
from tests.e2e.judges import assert_converted
from tests.e2e.node import RunningNode, no_decoding, until
from tests.e2e.peers import free_port
from tests.material import ct_series, write_all


class Modality(threading.Thread):
    """Sends file after file, each until it is acknowledged, as long as that takes."""

    def __init__(self, node: RunningNode, paths: list[Path]) -> None:
        super().__init__(name="modality", daemon=True)
        self._node = node
        self._paths = paths
        self._give_up = threading.Event()
        self.acknowledged = 0

    def run(self) -> None:
        for path in self._paths:
            while not self._give_up.is_set() and not self._took(path):
                self._give_up.wait(0.05)
            self.acknowledged += 1

    def _took(self, path: Path) -> bool:
        try:
            (receipt,) = send_files([path], self._node.peer(), no_decoding)
        except DeliveryError:
            return False
        return receipt.status == "0000"

    def stop(self) -> None:
        self._give_up.set()
        self.join(10)


@pytest.mark.timeout(240)
def test_kill_9_of_the_whole_node_at_any_moment_loses_and_repeats_nothing(
    node: StartNode, tmp_path: Path
) -> None:
    paths = [
        path
        for seed in range(1, 9)
        for path in write_all(ct_series(8, 128, 128, seed=seed), tmp_path / f"{seed}")
    ]
    running = node({"node": {"port": free_port()}, "series": {"quiet_seconds": 0.2}})
    moments = random.Random(20261104)
    modality = Modality(running, paths)
    modality.start()

    try:
        for part in (1, 2, 3):
            until(lambda part=part: modality.acknowledged >= part * 16, "nothing is acknowledged")  # type: ignore[misc]
            time.sleep(moments.uniform(0.0, 0.3))
            running.kill9()
            running.start()
        until(lambda: modality.acknowledged == len(paths), "not everything is acknowledged")
    finally:
        modality.stop()

    running.wait_for(received=len(paths), delivered=len(paths), converted=len(paths))
    assert sorted(path.name for path in running.archived()) == sorted(path.name for path in paths)
    for path in paths:
        assert_converted(path, running.delivered(pydicom.dcmread(path, stop_before_pixels=True)))
