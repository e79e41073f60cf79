"""Nodes for end-to-end tests, and their end."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.disks import DISK_BYTES, SmallDisk
from tests.e2e.node import RunningNode, Tree

type StartNode = Callable[..., RunningNode]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[StartNode]:
    """``node(config)`` starts one; several get a name each. All are stopped and checked at the end."""
    started: list[RunningNode] = []

    def start(config: Tree | None = None, name: str = "node") -> RunningNode:
        running = RunningNode(tmp_path / name, config or {})
        started.append(running)
        return running.start()

    yield start
    for running in started:
        running.close()


SHARED: Tree = {
    "series": {"quiet_seconds": 0.6, "max_open_seconds": 5.0},
    "rules": [
        {
            "name": "radiographs at once",
            "match": {"Modality": ["CR", "DX"]},
            "deliver": "at_once",
            "send_to": ["archive"],
        },
        {
            "name": "slow senders",
            "match": {"called_ae_title": "SLOW"},
            "quiet_seconds": 3.0,
            "send_to": ["archive"],
        },
        {"name": "nowhere", "match": {"called_ae_title": "NOWHERE"}, "send_to": []},
        {
            "name": "as it came",
            "match": {"called_ae_title": "ORIGINAL"},
            "convert": "original",
            "send_to": ["archive"],
        },
        {
            "name": "whole series only",
            "match": {"called_ae_title": "COUNTED", "instances": {"ge": 3}},
            "convert": "original",
            "send_to": ["archive"],
        },
    ],
}


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """One node for the tests of the group "shared node", each with series of its own."""
    running = RunningNode(tmp_path_factory.mktemp("shared") / "node", SHARED).start()
    yield running
    running.close()


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    folder = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
