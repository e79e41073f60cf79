"""What a peer refused is not proposed again for a while, and asked for again in the end."""

from pathlib import Path

from scp.deliver.negotiation import Proposal
from scp.deliver.refusals import ALONE_SECONDS, REMEMBERED_SECONDS, Refusals

HTJ2K = Proposal("1.2", "1.2.840.10008.1.2.4.202")
NATIVE = Proposal("1.2", "1.2.840.10008.1.2.1")
BOTH = [HTJ2K, NATIVE]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def remembering(path: Path | None = None, peer: str = "PACS@a:104") -> tuple[Refusals, Clock]:
    clock = Clock()
    return Refusals(path, peer, wall=clock), clock


def test_what_was_refused_is_not_proposed_where_something_else_is_left() -> None:
    refusals, clock = remembering()

    refusals.note("US", {HTJ2K: False, NATIVE: True})
    clock.now += REMEMBERED_SECONDS - 1

    assert refusals.usable("US", BOTH) == [NATIVE]
    assert refusals.usable("OTHER", BOTH) == BOTH


def test_a_refusal_is_forgotten_after_a_while() -> None:
    refusals, clock = remembering()

    refusals.note("US", {HTJ2K: False})
    clock.now += REMEMBERED_SECONDS

    assert refusals.usable("US", BOTH) == BOTH


def test_a_refusal_counts_at_once_for_whoever_is_started_then(tmp_path: Path) -> None:
    refusals, clock = remembering(tmp_path / "refused")
    clock.now += 0.9
    refusals.note("US", {HTJ2K: False})

    after = Refusals(tmp_path / "refused", "PACS@a:104", wall=clock)

    assert after.usable("US", BOTH) == [NATIVE]


def test_where_nothing_is_left_the_peer_is_asked_again_soon_but_not_at_once() -> None:
    refusals, clock = remembering()

    refusals.note("US", {HTJ2K: False, NATIVE: False})
    at_once = refusals.usable("US", BOTH)
    clock.now += ALONE_SECONDS

    assert at_once == []
    assert refusals.usable("US", BOTH) == BOTH


def test_what_is_accepted_later_is_no_longer_refused() -> None:
    refusals, _ = remembering()
    refusals.note("US", {HTJ2K: False})

    refusals.note("US", {HTJ2K: True})

    assert refusals.usable("US", BOTH) == BOTH


def test_a_person_who_asks_for_another_try_is_not_told_what_was_refused_before() -> None:
    refusals, _ = remembering()
    refusals.note("US", {HTJ2K: False, NATIVE: False})

    refusals.forget()

    assert refusals.usable("US", BOTH) == BOTH


def test_a_clock_that_was_set_back_keeps_nothing_refused() -> None:
    refusals, clock = remembering()
    refusals.note("US", {HTJ2K: False})

    clock.now -= 10_000_000

    assert refusals.usable("US", BOTH) == BOTH


def test_a_restart_remembers_and_another_peer_under_the_same_name_does_not(tmp_path: Path) -> None:
    path = tmp_path / "refused.json"
    remembering(path)[0].note("US", {HTJ2K: False})

    assert remembering(path)[0].usable("US", BOTH) == [NATIVE]
    assert remembering(path, "PACS@b:104")[0].usable("US", BOTH) == BOTH
    assert [each.name for each in tmp_path.iterdir()] == ["refused.json"]


def test_a_damaged_file_costs_one_more_question(tmp_path: Path) -> None:
    path = tmp_path / "refused.json"
    path.write_text('{"peer": "PACS@a:104", "refused": [[1]]}')

    assert remembering(path)[0].usable("US", BOTH) == BOTH


def test_a_peer_that_refuses_everything_of_everything_fills_no_memory() -> None:
    refusals, _ = remembering()

    refusals.note("US", {Proposal(f"1.{n}", "1.2"): False for n in range(5000)})

    assert refusals.usable("US", [Proposal("1.0", "1.2")]) != []
    assert refusals.usable("US", [Proposal("1.4999", "1.2")]) == []
