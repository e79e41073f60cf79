"""Parts of a coordinator for tests, and their end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.bench import Bench
from tests.pipeline.front import Front
from tests.pipeline.parts import Parts, config_for
from tests.pipeline.workers import Crew, crew_of

type MakeParts = Callable[..., Parts]
type MakeFront = Callable[..., Front]


@pytest.fixture
def make_parts(tmp_path: Path) -> Iterator[MakeParts]:
    """``make_parts(ledger=..., disk=..., **sections)``; what it made is ended after the test."""
    made: list[Parts] = []

    def make(**options: Any) -> Parts:
        parts = {name: options.pop(name) for name in ("ledger", "disk") if name in options}
        made.append(Parts(config_for(tmp_path, **options), **parts))
        return made[-1]

    yield make
    for parts in made:
        parts.close()


@pytest.fixture(scope="session")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """A worker for all tests that need one and leave it, or its successor, idle."""
    with crew_of(config_for(tmp_path_factory.mktemp("worker"))) as crew:
        yield crew


@pytest.fixture
def bench(tmp_path: Path, one_worker: Crew) -> Iterator[Bench]:
    made = Bench(tmp_path, one_worker)
    yield made
    made.until(lambda: not one_worker.pool.busy and not one_worker.pool.queued)


@pytest.fixture
def make_front(tmp_path: Path, one_worker: Crew) -> Iterator[MakeFront]:
    """``make_front(disk=..., **sections)``; what it made is ended after the test."""
    made: list[Front] = []

    def make(disk: Any = None, **sections: Any) -> Front:
        made.append(Front(config_for(tmp_path, **sections), one_worker, disk=disk))
        return made[-1]

    yield make
    for front in made:
        front.close()
