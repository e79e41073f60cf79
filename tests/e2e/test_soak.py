"""Everything at once, for as long as one likes: `scripts/soak [SECONDS]`.

Senders, kills of every kind of process, a disk that fills and peers that misbehave; in the end every
acknowledged instance is where it belongs, once, and the accounts balance.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pydicom
import pytest

from scp.deliver.send import send_files
from scp.errors import DeliveryError
from tests.accept.raw_peer import ABORT, RawPeer, associate_request
from tests.e2e.disks import MEGABYTE, SmallDisk
from tests.e2e.judges import assert_converted, dataset_bytes
from tests.e2e.node import RunningNode, is_alive, no_decoding, until
from tests.e2e.peers import first_half, free_port
from tests.material import ct_series, mr_series, radiograph, write_all

MODALITIES: Final = 3
SERIES: Final = 6
"""Instances of one."""
LAST_SECONDS: Final = 180.0
"""For what is left when nothing torments the node any more."""
RULES: Final = [
    {
        "name": "radiographs at once",
        "match": {"Modality": "DX"},
        "deliver": "at_once",
        "send_to": ["archive"],
    },
    {
        "name": "as it came",
        "match": {"Modality": "MR"},
        "convert": "original",
        "send_to": ["archive"],
    },
]


def _kill(pid: int) -> None:
    """Kill, and wait until that process is gone: a socket that it still has open answers nobody."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), "kill -9 did not end it")


class Soak:
    """A node, what was sent to it, and who torments it; a thread each until the time is over."""

    def __init__(self, node: RunningNode, disk: SmallDisk, folder: Path, seconds: float) -> None:
        self.node = node
        self.disk = disk
        self.folder = folder
        self.end = time.monotonic() + seconds
        self.acknowledged: list[Path] = []
        self.done: Counter[str] = Counter()
        """What was done to the node, for the report."""
        self._random = random.Random(20261125)
        self._life = threading.Lock()
        """Held by whoever kills, starts or fills: a node cannot start on a full disk."""
        self._failures: list[BaseException] = []

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__)
            for work in (*[self._send] * MODALITIES, self._misbehave, self._kill, self._fill)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.end - time.monotonic() + LAST_SECONDS)
        assert not any(thread.is_alive() for thread in threads), "somebody waits for the node"
        assert self._failures == []

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # whatever it is, the test is to say it
            self._failures.append(error)

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.end and not self._failures

    def _pause(self, least: float, most: float) -> None:
        time.sleep(max(0.0, min(self._random.uniform(least, most), self.end - time.monotonic())))

    # -- who behaves ---------------------------------------------------------------------------

    def _send(self) -> None:
        """Series after series, each instance until it is acknowledged."""
        while self.goes_on:
            seed = self._random.randrange(2**30)
            kind = self._random.choice(("ct", "mr", "dx"))
            if kind == "ct":
                images = list(ct_series(SERIES, 64, 64, seed=seed))
            elif kind == "mr":
                images = list(mr_series(SERIES, 64, 64, seed=seed))
            else:
                images = [radiograph(64, 64, seed=seed)]
            for path in write_all(images, self.folder / f"{kind}-{seed}"):
                deadline = self.end + LAST_SECONDS / 2
                while not self._took(path):
                    assert time.monotonic() < deadline, (
                        f"not taken: {path}\n{self.node.log()[-3000:]}"
                    )
                    time.sleep(0.1)
                self.acknowledged.append(path)

    def _took(self, path: Path) -> bool:
        try:
            (receipt,) = send_files([path], self.node.peer(), no_decoding)
        except DeliveryError:
            self.done["tries without an answer"] += 1
            return False
        self.done["other statuses"] += receipt.status != "0000"
        return receipt.status == "0000"

    # -- who does not --------------------------------------------------------------------------

    def _misbehave(self) -> None:
        """Peers that vanish, abort, lie about lengths or send nonsense, in the middle of instances."""
        (path,) = write_all(ct_series(1, 64, 64, seed=1), self.folder / "never")
        half = first_half(path)
        endings = {
            "vanished": b"",
            "aborted": ABORT,
            "long PDU": b"\4\0\xff\xff\xff\xff",
            "nonsense": self._random.randbytes(4000),
            "second request": associate_request(),
        }
        while self.goes_on:
            name = self._random.choice(list(endings))
            try:
                with RawPeer(("127.0.0.1", self.node.port)) as peer:
                    peer.associate()
                    peer.send(half[: self._random.randrange(1, len(half))])
                    peer.send(endings[name])
                self.done[name] += 1
            except (OSError, AssertionError, IndexError):  # turned away, or closed without a word
                self.done["misbehaving peers that were not served"] += 1
            self._pause(0.0, 0.3)

    def _kill(self) -> None:
        """kill -9 of any process, of all of them, or an orderly restart."""
        ways = ["receiver", "worker", "coordinator", "supervisor", "everything", "restart"]
        while self.goes_on:
            self._pause(1.0, 6.0)
            way = self._random.choice(ways)
            with self._life:
                if way == "everything":
                    self.node.kill9()
                elif way == "restart":
                    assert self.node.terminate() == 0
                elif way == "supervisor":
                    os.kill(self.node.pid, signal.SIGKILL)
                    self.node.wait()
                elif victims := self.node.processes(f"scp.pipeline.{way}"):
                    _kill(self._random.choice(victims))
                if way in ("everything", "restart", "supervisor"):
                    self.node.start()
                self.done[f"kill: {way}"] += 1

    def _fill(self) -> None:
        """Take all room, or nearly all, for a while."""
        while self.goes_on:
            self._pause(5.0, 15.0)
            with self._life:
                if self._random.random() < 0.5:
                    self.disk.fill()
                else:
                    self.disk.leave(self._random.randrange(MEGABYTE, 12 * MEGABYTE))
                self._pause(0.5, 2.0)
                self.disk.give_back()
                self.done["disk full"] += 1


@pytest.mark.heavy
@pytest.mark.timeout(0)
def test_every_acknowledged_instance_arrives_whatever_is_done_to_the_node(
    small_disk: SmallDisk, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seconds: float = request.config.getoption("--soak-seconds")
    node = RunningNode(
        tmp_path / "node",
        {
            "node": {"data": str(small_disk.folder / "data"), "port": free_port(), "receivers": 2},
            "limits": {"reserve": "8MB"},
            "series": {"quiet_seconds": 0.4},
            "rules": RULES,
        },
    ).start()
    try:
        torment(node, small_disk, tmp_path / "sent", seconds)
        node.close()
    finally:
        node.kill_if_it_runs()


def torment(node: RunningNode, disk: SmallDisk, sent_from: Path, seconds: float) -> None:
    soak = Soak(node, disk, sent_from, seconds)
    soak.run()
    until(node.is_ready, "the node does not answer after the last kill")
    status = node.wait_idle(LAST_SECONDS)

    sent = len(soak.acknowledged)
    print(
        f"\n{sent} instances acknowledged in {seconds:.0f} s; received {status['received']}, "
        f"repeats {status['repeats']}; {dict(sorted(soak.done.items()))}"
    )
    assert sent > 0
    assert status["held"] == 0, node.held()
    archived = [path for path in node.archived() if not path.name.startswith(".")]
    assert sorted(path.name for path in archived) == sorted(path.name for path in soak.acknowledged)
    passed = 0
    for path in soak.acknowledged:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        result = node.delivered(dataset)
        if dataset_bytes(result) == dataset_bytes(path):
            passed += 1
        else:
            assert dataset.Modality != "MR"
            assert_converted(path, result)
    assert status["received"] == status["delivered"] >= sent
    assert passed < sent, "nothing was converted"
    until(lambda: not node.left_in_spool(), lambda: f"left: {node.left_in_spool()}", LAST_SECONDS)
