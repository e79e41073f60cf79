"""Nodes for end-to-end tests, and their end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
