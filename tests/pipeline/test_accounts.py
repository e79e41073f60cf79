"""Counters at every stage of an instance's way, and what counts as the same dataset again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.buffer.job import JobInstance
from scp.ledger.memory import MemoryLedger
from scp.ledger.ports import State
from scp.pipeline.accounts import Accounts
from scp.pipeline.live import Live
from scp.telemetry import Counters
from tests.deliver.peers import HandPeer
from tests.pipeline.conftest import MakeParts
from tests.pipeline.jobs import NOON, come_again, instance, job_of, takes
from tests.pipeline.parts import Parts, archive, pacs

WINDOW = 600.0


class WallClock:
    """Wall time that a test turns."""

    def __init__(self) -> None:
        self.seconds = NOON.timestamp()

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def wall() -> WallClock:
    return WallClock()


@pytest.fixture
def accounts(wall: WallClock) -> Accounts:
    return Accounts(MemoryLedger(), WINDOW, wall)


# -- counters --------------------------------------------------------------------------------------


@pytest.fixture
def parts(make_parts: MakeParts, tmp_path: Path) -> Iterator[Parts]:
    """One instance is taken by the archive and refused by the PACS, when they are up."""
    (tmp_path / "archive").touch()
    with HandPeer(answer=lambda number: 0xA900) as peer:
        yield make_parts(destinations={"archive": archive(tmp_path), "pacs": pacs(peer.port)})


def stage(counters: Counters) -> tuple[int, ...]:
    assert counters.is_balanced
    return (
        counters.received,
        counters.pending,
        counters.delivered,
        counters.skipped,
        counters.held,
        counters.discarded,
    )


def test_every_instance_is_in_one_counter_at_every_stage(parts: Parts, tmp_path: Path) -> None:
    """Received, pending, delivered, skipped, held, discarded; nine instances of four jobs."""
    assert stage(parts.counters(uncommitted=9)) == (9, 9, 0, 0, 0, 0)

    parts.start(parts.job("skipped", count=2, send_to=()))
    parts.start(parts.job("repeated", count=1, repeat_of="job-0"))
    parts.until(lambda: not parts.dispatch.live)
    assert stage(parts.counters(uncommitted=6)) == (8, 6, 0, 2, 0, 0)

    archived = parts.start(parts.job("archived", count=3, send_to=["archive"]))
    both = parts.start(parts.job("both", count=3, send_to=("archive", "pacs")))
    parts.until(lambda: both.unfinished == {"archive"})
    assert stage(parts.counters()) == (8, 3, 0, 2, 3, 0)

    (tmp_path / "archive").unlink()
    parts.dispatch.retry(["archived"])
    parts.until(lambda: not parts.dispatch.live)
    assert len(archived.taken) == len(both.taken) == 3
    assert stage(parts.counters()) == (8, 0, 3, 2, 3, 0)

    parts.dispatch.discard("both", "a test")
    assert stage(parts.counters()) == (8, 0, 3, 2, 3, 0)
    parts.until(lambda: not parts.dispatch.live)
    assert stage(parts.counters()) == (8, 0, 3, 2, 0, 3)
    assert parts.counters().converted == 6


INSTANCES = st.lists(
    st.builds(
        lambda send_to, repeat_of, reason, taken: (
            {
                "send_to": send_to,
                "repeat_of": repeat_of,
                "form": "original" if reason else "htj2k",
                "reason": reason,
            },
            taken,
        ),
        st.sampled_from([(), ("archive",), ("archive", "pacs")]),
        st.sampled_from(["", "", "job-0"]),
        st.sampled_from(["", "lossy_source", "deadline"]),
        st.sets(st.sampled_from(["archive", "pacs"])),
    ),
    min_size=1,
    max_size=6,
)


@given(INSTANCES)
def test_a_job_that_goes_into_the_ledger_takes_its_numbers_along(
    drawn: list[tuple[dict[str, object], set[str]]],
) -> None:
    ledger = MemoryLedger()
    accounts = Accounts(ledger, WINDOW)
    instances = [instance(f"{n}.dcm", **changes) for n, (changes, _) in enumerate(drawn)]
    job = Live(job=job_of("job-1", instances), folder=Path("job-1"))
    for number, (_, taken) in enumerate(drawn):
        for destination in taken:
            takes(destination, [f"{number}.dcm"], job)
    before = accounts.counters(0, [job], 0)

    ledger.record(list(job.rows("given up")))
    accounts.finished("job-1", ledger.totals())
    after = accounts.counters(0, [], 0)

    assert before.is_balanced
    assert after.is_balanced
    assert before.received == sum(not each.repeat_of for each in instances)
    assert (after.pending, after.held, after.discarded) == (0, 0, before.pending + before.held)
    for name in ("received", "delivered", "skipped", "converted", "passed_through", "reasons"):
        assert getattr(after, name) == getattr(before, name), name


def test_instances_of_jobs_that_cannot_be_read_are_received_and_held(accounts: Accounts) -> None:
    assert stage(accounts.counters(2, [], 3)) == (5, 2, 0, 0, 3, 0)


# -- the same dataset again ------------------------------------------------------------------------

SOURCE = instance(dataset_sha256="dataset", normal_sha256="normal", result_sha256="result")


def remember(accounts: Accounts, source: JobInstance = SOURCE, job: str = "job-1") -> None:
    accounts.remember(job_of(job, [source]))


def test_the_same_bytes_are_a_repeat_and_other_bytes_a_conflict(accounts: Accounts) -> None:
    remember(accounts)
    other = come_again(SOURCE, dataset_sha256="other", normal_sha256="also other")

    assert accounts.find_repeat(*come_again(SOURCE), SOURCE.send_to) == ("job-1", False)
    assert accounts.find_repeat(*other, SOURCE.send_to) == ("", True)


def test_the_same_dataset_in_another_vr_encoding_is_a_repeat(accounts: Accounts) -> None:
    remember(accounts)
    implicit = come_again(SOURCE, transfer_syntax="1.2.840.10008.1.2", dataset_sha256="other")

    assert accounts.find_repeat(*implicit, SOURCE.send_to) == ("job-1", False)


def test_equal_bytes_under_another_transfer_syntax_are_another_dataset(accounts: Accounts) -> None:
    remember(accounts)
    same_bytes = come_again(SOURCE, transfer_syntax="1.2.840.10008.1.2", normal_sha256="other")

    assert accounts.find_repeat(*same_bytes, SOURCE.send_to) == ("", True)


def test_what_could_not_be_digested_equals_nothing(accounts: Accounts) -> None:
    unknown = instance(dataset_sha256="", normal_sha256="")
    remember(accounts, unknown)

    assert accounts.find_repeat(*come_again(unknown), unknown.send_to) == ("", True)


@pytest.mark.parametrize(
    ("send_to", "is_repeat"),
    [
        (["archive", "pacs"], True),
        (["pacs"], True),
        ([], True),
        (["research"], False),
        (["archive", "research"], False),
    ],
    ids=str,
)
def test_it_is_a_repeat_only_where_it_went_before(
    accounts: Accounts, send_to: list[str], *, is_repeat: bool
) -> None:
    remember(accounts)

    found = accounts.find_repeat(*come_again(SOURCE), send_to)

    # The same dataset is no conflict with itself, wherever it goes.
    assert found == ("job-1" if is_repeat else "", False)


def test_of_several_jobs_the_one_that_served_all_its_destinations_is_repeated(
    accounts: Accounts,
) -> None:
    remember(accounts, instance(dataset_sha256="dataset", send_to=("archive",)), "job-1")
    remember(accounts, instance(dataset_sha256="dataset", send_to=("research",)), "job-2")

    assert accounts.find_repeat(*come_again(SOURCE), ["research"]) == ("job-2", False)


@given(st.lists(st.sets(st.sampled_from(["archive", "pacs", "research"])), max_size=6))
def test_whatever_titles_it_comes_under_each_destination_gets_it_once(
    wanted: list[set[str]],
) -> None:
    accounts = Accounts(MemoryLedger(), WINDOW)
    given_to: list[str] = []

    for number, each in enumerate(wanted):
        again = come_again(SOURCE)
        repeat_of, is_conflict = accounts.find_repeat(*again, sorted(each))
        left = accounts.left_for(*again, sorted(each))
        assert not is_conflict
        assert not (repeat_of and left)
        if not repeat_of:
            remember(accounts, replace(SOURCE, send_to=left), f"job-{number}")
            given_to += left

    assert sorted(given_to) == sorted(set().union(*wanted))


def test_it_is_known_while_it_is_in_the_spool_and_for_the_window_after(
    accounts: Accounts, wall: WallClock
) -> None:
    remember(accounts)
    wall.seconds += 10 * WINDOW
    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("job-1", False)

    accounts.finished("job-1", accounts.totals)

    wall.seconds += WINDOW
    accounts.prune(now=100.0)
    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("job-1", False)
    wall.seconds += 0.1
    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("", False)


def test_what_the_window_has_passed_over_is_forgotten_and_the_rest_kept(
    accounts: Accounts, wall: WallClock
) -> None:
    """A long-running node's memory holds what is open and one window, not its whole past."""
    remember(accounts, job="old")
    accounts.finished("old", accounts.totals)
    wall.seconds += WINDOW + 1
    remember(accounts, job="new")

    accounts.prune(now=100.0)
    wall.seconds -= WINDOW + 1

    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("new", False)
    accounts.forget("new")
    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("", False)


def test_a_discarded_dataset_is_no_repeat_and_its_twin_in_another_job_still_is(
    accounts: Accounts,
) -> None:
    remember(accounts, job="given-up")
    remember(accounts, job="kept")

    accounts.forget("given-up")

    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("kept", False)


def test_a_repeat_is_not_remembered_in_place_of_what_it_repeats(accounts: Accounts) -> None:
    remember(accounts, instance(dataset_sha256="dataset", repeat_of="job-0"))

    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("", False)


def test_after_a_restart_the_ledger_knows_what_was_delivered_lately_and_where_to(
    wall: WallClock,
) -> None:
    ledger = MemoryLedger()
    done = Live(job=job_of("done", [SOURCE]), folder=Path("done"))
    takes("archive", [SOURCE.name], done)
    takes("pacs", [SOURCE.name], done)
    ledger.record(list(done.rows()))
    for name in ("discarded", "repeat"):
        other = instance(f"{name}.dcm", repeat_of="job-0" if name == "repeat" else "")
        ledger.record(list(Live(job=job_of(name, [other]), folder=Path(name)).rows("given up")))
    (finished,) = (row.finished_at.timestamp() for row in ledger.recent(9) if row.job == "done")
    wall.seconds = finished + WINDOW

    accounts = Accounts(ledger, WINDOW, wall)

    assert accounts.find_repeat(*come_again(SOURCE), ["pacs"]) == ("done", False)
    assert accounts.find_repeat(*come_again(SOURCE), ["research"]) == ("", False)
    for name in ("discarded", "repeat"):
        again = come_again(instance(f"{name}.dcm"))
        assert accounts.find_repeat(*again, ["pacs"]) == ("", False), name
    wall.seconds += 0.1
    assert Accounts(ledger, WINDOW, wall).find_repeat(*come_again(SOURCE), ["pacs"])[0] == ""


def test_totals_begin_with_what_the_ledger_had() -> None:
    ledger = MemoryLedger()
    skipped = instance(send_to=(), form="original", reason="rule_says_original")
    ledger.record(list(Live(job=job_of("job-1", [skipped]), folder=Path()).rows()))
    ledger.record(list(Live(job=job_of("job-2", [SOURCE]), folder=Path()).rows("given up")))

    accounts = Accounts(ledger, WINDOW)

    assert accounts.totals.states[State.SKIPPED] == 1
    assert stage(accounts.counters(0, [], 0)) == (2, 0, 0, 1, 0, 1)
    assert (accounts.counters(0, [], 0).converted, accounts.totals.source_bytes) == (1, 500)
