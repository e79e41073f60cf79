"""What time it is, where the machine's clock may be wrong: no promise is cut short by that."""

import logging
from pathlib import Path

import pytest

from scp.durable import Disk
from scp.pipeline.trusted_clock import DOUBT_SECONDS, TrustedClock
from tests.buffer.recorder import HookedDisk
from tests.pipeline.parts import HandClock, no_room_for

NOON = 1_796_212_800.0
DAY = 86400.0
YEAR = 365 * DAY


class Site:
    """A machine with a clock that can be set, and a node that can be started again."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "clock.json"
        self.wall = HandClock(NOON)
        self.now = HandClock()
        self.disk: Disk = HookedDisk()
        self.start()

    def start(self) -> None:
        self.clock = TrustedClock(self.file, self.disk, wall=self.wall, now=self.now)

    def run(self, seconds: float) -> None:
        """Let time pass as it does, the node looking now and then."""
        for _ in range(10):
            self.wall.seconds += seconds / 10
            self.now.seconds += seconds / 10
            self.clock.note()

    def be_down(self, seconds: float) -> None:
        self.wall.seconds += seconds
        self.now.seconds = 5.0  # The machine was started again.
        self.start()

    def set_clock(self, seconds: float) -> None:
        self.wall.seconds += seconds

    @property
    def times(self) -> tuple[float, float]:
        """To act and to promise by, since noon of the first day."""
        return self.clock.to_act() - NOON, self.clock.to_promise() - NOON


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_clock_that_goes_as_clocks_do_is_believed(site: Site) -> None:
    site.run(DAY)
    assert site.times == (DAY, DAY)
    site.set_clock(-1800.0)
    site.run(DAY)
    assert site.times == (2 * DAY - 1800, 2 * DAY - 1800)


def test_a_clock_set_ahead_brings_nothing_forward_until_it_has_been_so_for_a_day(
    site: Site,
) -> None:
    site.run(DAY)
    site.set_clock(10 * YEAR)

    site.run(DOUBT_SECONDS / 2)

    assert site.times == (1.5 * DAY, 10 * YEAR + 1.5 * DAY)
    site.run(DOUBT_SECONDS)
    assert site.times == (10 * YEAR + 2.5 * DAY, 10 * YEAR + 2.5 * DAY)


def test_a_clock_that_is_mended_within_the_day_has_done_nothing(site: Site) -> None:
    site.set_clock(10 * YEAR)
    site.run(DAY / 2)
    site.set_clock(-10 * YEAR)
    site.run(DAY)

    assert site.times == (1.5 * DAY, 1.5 * DAY)


def test_a_clock_set_back_makes_no_promise_shorter(site: Site) -> None:
    site.run(DAY)
    site.set_clock(-10 * YEAR)

    site.run(DAY / 2)

    assert site.times == (1.5 * DAY - 10 * YEAR, 1.5 * DAY)


def test_a_clock_that_is_wrong_after_a_restart_is_not_believed_at_once(site: Site) -> None:
    site.run(DAY)

    site.be_down(10 * YEAR)
    site.run(DAY / 2)

    assert site.times == (1.5 * DAY, 10 * YEAR + 1.5 * DAY)


def test_a_short_restart_and_a_long_one_are_made_up_for(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    site.run(DAY)
    site.be_down(600.0)
    assert site.times == (DAY + 600, DAY + 600)
    assert not caplog.messages

    site.be_down(3 * DAY)
    site.run(1.5 * DAY)

    assert site.times == (5.5 * DAY + 600, 5.5 * DAY + 600)
    assert [message[:32] for message in caplog.messages] == [
        "the clock is 72 hours ahead of w",
        "the clock is believed again",
    ]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"believed": "noon"}', b"{}"])
def test_a_damaged_note_is_as_none(
    site: Site, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    site.file.write_bytes(content)

    site.be_down(DAY)

    assert site.times == (DAY, DAY)
    assert "cannot be read" in caplog.text


def test_a_full_disk_keeps_nobody_from_knowing_the_time(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.disk = HookedDisk(no_room_for("create", "clock"))
    site.start()

    site.run(DAY)

    assert site.times == (DAY, DAY)
    assert "the time cannot be noted" in caplog.text
