"""What a person is told of the node, looked at from time to time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scp.pipeline.alarms import Kind
from scp.pipeline.watch import LOOK_SECONDS, Watch
from tests.buffer.recorder import HookedDisk
from tests.pipeline.conftest import MakeParts
from tests.pipeline.parts import HandClock, Parts


class Share:
    """A disk whose archive hangs while a test wants it to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = threading.Event()

    def __call__(self, operation: str, path: Path) -> None:
        if path.suffix == ".tmp" or "archive" in path.parts:
            self.asked.set()
            self.answers.wait(60)


@pytest.fixture
def share() -> Iterator[Share]:
    made = Share()
    yield made
    made.answers.set()


def watch_over(parts: Parts, wall: HandClock) -> Watch:
    return Watch(
        parts.config,
        parts.layout,
        parts.disk,
        parts.dispatch,
        parts.queues,
        parts.originals,
        wall=wall,
    )


def down(watch: Watch) -> list[dict[str, object]]:
    return [each.facts for each in watch.conditions() if each.kind is Kind.DESTINATION_DOWN]


def test_a_destination_that_hangs_is_told_of_until_it_answers(
    make_parts: MakeParts, share: Share, caplog: pytest.LogCaptureFixture
) -> None:
    parts = make_parts(disk=HookedDisk(share))
    clock = HandClock(parts.wall.seconds)
    watch = watch_over(parts, clock)
    parts.start(parts.job("job-1", count=2))
    assert share.asked.wait(60)

    clock.seconds += 60
    assert down(watch) == []
    clock.seconds += 600
    assert down(watch) == [{"reason": "no answer", "pending": 2}]
    watch.tick(0.0)
    assert "notice, raised: archive does not answer what is being sent" in caplog.text

    # What is not yet known to be over is not said to be, by a node that was started again.
    clock.seconds -= 600
    again = watch_over(parts, clock)
    assert down(again) == [{"reason": "no answer", "pending": 2}]

    share.answers.set()
    parts.until(lambda: not parts.dispatch.live)
    assert down(again) == []
    watch.tick(2 * LOOK_SECONDS)
    assert "notice, resolved: no longer: archive does not answer" in caplog.text
