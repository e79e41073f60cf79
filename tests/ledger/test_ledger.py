"""The contract of every ledger."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from scp.durable import Disk
from scp.ledger.memory import MemoryLedger
from scp.ledger.open import open_for_writing
from scp.ledger.ports import Delivered, Ledger, Search, State
from scp.ledger.sql import SqlLedger
from scp.model import CollapseReason, Form, Origin, PassReason
from tests.ledger.postgres import PostgresServer
from tests.ledger.rows import NOON, row


def _in_memory(request: pytest.FixtureRequest, folder: Path) -> Ledger:
    return MemoryLedger()


def _in_sqlite(request: pytest.FixtureRequest, folder: Path) -> Ledger:
    return SqlLedger.open_for_writing(folder / "ledger.sqlite", Disk())


def _in_postgres(request: pytest.FixtureRequest, folder: Path) -> Ledger:
    server: PostgresServer = request.getfixturevalue("postgres")
    return open_for_writing(server.new_database(), folder / "none", Disk())


@pytest.fixture(params=[_in_memory, _in_sqlite, _in_postgres])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    make: Callable[[pytest.FixtureRequest, Path], Ledger] = request.param
    opened = make(request, tmp_path)
    yield opened
    opened.close()


def test_a_new_ledger_has_counted_nothing(ledger: Ledger) -> None:
    totals = ledger.totals()

    assert dict(totals.states) == dict.fromkeys(State, 0)
    assert totals.finished == totals.converted == totals.passed_through == 0
    assert ledger.recent(10) == []


def test_what_was_recorded_comes_back_equal(ledger: Ledger) -> None:
    full = row(
        form=Form.ORIGINAL,
        reason=PassReason.LOSSY_SOURCE,
        destinations={
            "pacs": Delivered(
                status="B000",
                at=NOON + timedelta(microseconds=7),
                attempts=3,
                transfer_syntax="1.2.840.10008.1.2.1",
                committed_at=NOON + timedelta(hours=1),
            ),
            "archive": Delivered(status="", at=NOON),
        },
        is_conflict=True,
        not_collapsed=CollapseReason.LOCALIZER,
        became="2.25.7",
        frame=12,
        restore_record="sidecar",
        modality="CT",
        patient_id_hash="ee",
        verified_by="openjpeg",
        source_bytes=2**40,
        note="the peer coerced elements: ä 語",
    )
    bare = row(1, form=None, state=State.SKIPPED, destinations={}, result_bytes=0)

    ledger.record([full, bare])

    assert ledger.recent(10) == [bare, full]


def test_rows_are_found_by_any_number_of_instance_uids(ledger: Ledger) -> None:
    rows = [row(number) for number in range(3)]
    again = replace(rows[1], job="later")
    ledger.record([*rows, again])
    uids = {each.identity.sop_instance_uid for each in rows[1:]}

    found = ledger.find_instances(uids | {f"2.26.{number}" for number in range(1200)})

    assert {(each.job, each.instance) for each in found} == {
        (each.job, each.instance) for each in (*rows[1:], again)
    }
    assert ledger.find_instances([]) == []


def test_recording_again_changes_nothing(ledger: Ledger) -> None:
    ledger.record([row(1), row(2)])

    ledger.record([row(2), row(3), row(3, note="twice in one call")])

    assert [found.instance for found in ledger.recent(10)] == [
        "instance-3.dcm",
        "instance-2.dcm",
        "instance-1.dcm",
    ]
    assert ledger.recent(1)[0].note == ""
    assert ledger.totals().finished == 3
    assert ledger.totals().source_bytes == 1500


def test_the_same_instance_in_another_job_is_another_row(ledger: Ledger) -> None:
    ledger.record([row(1), row(1, job="job-2")])

    assert ledger.totals().finished == 2


def test_why_instances_were_not_collapsed_is_summed_up_beside_what_they_became(
    ledger: Ledger,
) -> None:
    collapsed = row(1, form=Form.ENHANCED, became="2.25.7", frame=1)
    alone = row(2, form=Form.HTJ2K, not_collapsed=CollapseReason.LOCALIZER)
    passed = row(
        3,
        form=Form.ORIGINAL,
        reason=PassReason.LOSSY_SOURCE,
        not_collapsed=CollapseReason.LOCALIZER,
    )

    ledger.record([collapsed, alone, passed])

    totals = ledger.totals()
    assert totals.not_collapsed == {CollapseReason.LOCALIZER: 2}
    assert (totals.converted, totals.passed_through) == (2, 1)


def test_a_series_that_was_collapsed_is_known(ledger: Ledger) -> None:
    first, second = row(1, became="2.25.7", frame=1), row(2)
    other = replace(second, identity=replace(second.identity, series_instance_uid="1.2.99"))
    ledger.record([first, other])

    assert ledger.history_of(first.identity.series_instance_uid).volumes
    assert not ledger.history_of("1.2.99").volumes
    assert not ledger.history_of("1.2.98").volumes


def test_what_was_delivered_of_a_series_that_was_cut_is_known(ledger: Ledger) -> None:
    cut = row(1, form=Form.HTJ2K, not_collapsed=CollapseReason.SERIES_WAS_CUT)
    late = row(2, form=Form.HTJ2K, not_collapsed=CollapseReason.LATE_INSTANCE)
    frame = row(3, became="2.25.7", frame=1)
    ledger.record([cut, late, frame])

    history = ledger.history_of(cut.identity.series_instance_uid)

    assert history.cut == {cut.identity.sop_instance_uid}
    assert history.volumes == {"2.25.7"}


def test_a_volume_that_was_given_up_before_anybody_had_it_is_forgotten(ledger: Ledger) -> None:
    given_up = row(1, became="2.25.7", frame=1, state=State.DISCARDED, destinations={})
    ledger.record([given_up])
    assert not ledger.history_of(given_up.identity.series_instance_uid).volumes

    ledger.record([row(2, became="2.25.8", frame=1, state=State.DISCARDED)])  # One of two had it.
    assert ledger.history_of(given_up.identity.series_instance_uid).volumes


def test_a_job_is_known_from_its_first_row_on(ledger: Ledger) -> None:
    assert ledger.known(["job-1"]) == set()

    ledger.record([])
    assert ledger.known(["job-1"]) == set()
    ledger.record([row(1, state=State.SKIPPED), row(2), row(1, job="job-2")])

    others = ["job", "job-", "job-3", "JOB-1", "job-1 ", "job_1", "job%", "", "instance-1.dcm"]
    assert ledger.known([*others, "job-1", "job-2"]) == {"job-1", "job-2"}
    assert ledger.known([]) == set()


def test_many_jobs_are_looked_up_at_once(ledger: Ledger) -> None:
    ledger.record([row(number, job=f"job-{number}") for number in range(0, 1200, 2)])

    known = ledger.known([f"job-{number}" for number in range(1200)])

    assert known == {f"job-{number}" for number in range(0, 1200, 2)}


def test_totals_tell_converted_from_passed_through_and_why(ledger: Ledger) -> None:
    passed = {"form": Form.ORIGINAL, "result_bytes": 500}
    ledger.record([row(1), row(2, form=Form.ENHANCED)])
    ledger.record(
        [
            row(3, reason=PassReason.NO_PIXEL_DATA, **passed),
            row(4, reason=PassReason.NO_PIXEL_DATA, **passed),
            row(5, reason=PassReason.DEADLINE, state=State.DISCARDED, **passed),
        ]
    )

    totals = ledger.totals()

    assert (totals.converted, totals.passed_through) == (2, 3)
    assert totals.reasons == {PassReason.NO_PIXEL_DATA: 2, PassReason.DEADLINE: 1}
    assert (totals.source_bytes, totals.result_bytes) == (2500, 1900)
    assert totals.states[State.DELIVERED] == 4
    assert totals.states[State.DISCARDED] == 1


def test_a_repeat_counts_neither_as_received_nor_as_converted(ledger: Ledger) -> None:
    ledger.record([row(1), row(2, state=State.REPEAT), row(3, state=State.SKIPPED, form=None)])

    totals = ledger.totals()

    assert totals.finished == 2
    assert totals.states[State.REPEAT] == 1
    assert (totals.converted, totals.passed_through) == (1, 0)
    assert totals.source_bytes == 500


def test_since_may_be_in_any_time_zone(ledger: Ledger) -> None:
    ledger.record([row()])
    tokyo = timezone(timedelta(hours=9))

    assert ledger.finished_since(NOON.astimezone(tokyo)) == [row()]
    assert ledger.finished_since(datetime(2026, 1, 5, 12, 1, tzinfo=UTC)) == []


def test_rows_that_finished_since_a_time_come_oldest_first(ledger: Ledger) -> None:
    ledger.record([row(3), row(1), row(2)])

    assert ledger.finished_since(row(2).finished_at) == [row(2), row(3)]


def test_results_are_found_by_digest_by_uid_and_by_both(ledger: Ledger) -> None:
    ledger.record([row(1), row(2), row(2, job="job-2", result_sha256="ff")])

    assert ledger.find_results(result_sha256="ff") == [row(2, job="job-2", result_sha256="ff")]
    assert len(ledger.find_results(sop_instance_uid="2.25.2")) == 2
    assert ledger.find_results(sop_instance_uid="2.25.1", result_sha256="ff") == []


def test_a_search_for_nothing_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="digest"):
        ledger.find_results()


def test_recent_gives_the_newest_and_no_more_than_asked_for(ledger: Ledger) -> None:
    ledger.record([row(number) for number in range(5)])

    assert ledger.recent(2) == [row(4), row(3)]


def test_recording_nothing_is_allowed(ledger: Ledger) -> None:
    ledger.record([])

    assert ledger.totals().finished == 0


OTHER = row(
    2,
    identity=replace(
        row().identity,
        sop_instance_uid="2.25.2",
        study_instance_uid="2.25.2000",
        series_instance_uid="2.25.2001",
    ),
    origin=Origin(calling_ae_title="MR1", called_ae_title="RESEARCH", peer_address="::1"),
    state=State.DISCARDED,
    destinations={"pacs": Delivered(status="0000", at=NOON, attempts=1)},
    patient_id_hash="ff",
    became="2.25.9",
    frame=1,
)


@pytest.mark.parametrize(
    "search",
    [
        Search(uid="2.25.2"),
        Search(uid="2.25.2000"),
        Search(uid="2.25.2001"),
        Search(uid="2.25.9"),
        Search(ae_title="MR1"),
        Search(ae_title="RESEARCH"),
        Search(since=NOON + timedelta(seconds=2), until=NOON + timedelta(seconds=3)),
        Search(state=State.DISCARDED),
        Search(destination="pacs"),
        Search(patient_id_hash="ff"),
        Search(patient_id_hash="ff", uid="2.25.2", ae_title="MR1", destination="pacs"),
    ],
)
def test_a_row_is_found_by_what_is_known_of_it(ledger: Ledger, search: Search) -> None:
    ledger.record([row(1), OTHER, row(3)])

    assert list(ledger.search(search)) == [OTHER]
    assert ledger.studies(search) == ["2.25.2000"]


@pytest.mark.parametrize(
    "search",
    [
        Search(uid="2.25"),
        Search(uid="2.25.2", state=State.DELIVERED),
        Search(patient_id_hash="ff", ae_title="CT1"),
        Search(destination="PACS"),
        Search(destination="status"),
        Search(destination="pac_"),
        Search(ae_title="%"),
        Search(since=NOON + timedelta(seconds=4)),
        Search(until=NOON),
    ],
)
def test_what_does_not_match_wholly_is_not_found(ledger: Ledger, search: Search) -> None:
    ledger.record([row(1), OTHER, row(3)])

    assert list(ledger.search(search)) == []
    assert ledger.studies(search) == []


def test_a_search_gives_everything_once_oldest_first_over_many_pages(ledger: Ledger) -> None:
    together = [row(number, finished_at=NOON, job="job-2") for number in range(1500)]
    ledger.record([row(number) for number in range(1, 1501)])
    ledger.record(together)

    found = list(ledger.search(Search()))

    assert found == [*together, *(row(number) for number in range(1, 1501))]
    series = ledger.search(Search(uid=row().identity.series_instance_uid))
    assert {(each.job, each.instance) for each in series} == {
        (each.job, each.instance) for each in found
    }


def test_rows_may_be_recorded_and_forgotten_while_somebody_reads(ledger: Ledger) -> None:
    ledger.record([row(number) for number in range(2500)])
    reader = ledger.search(Search())
    first = list(itertools.islice(reader, 10))

    ledger.record([row(number) for number in range(2500, 2510)])
    ledger.forget(NOON + timedelta(seconds=100), 1000)

    found = [*first, *reader]
    assert len(found) == len({each.instance for each in found})
    assert [each for each in found if each.finished_at >= row(100).finished_at][:2400] == [
        row(number) for number in range(100, 2500)
    ]


def test_what_is_old_is_forgotten_in_small_steps_and_stays_counted(ledger: Ledger) -> None:
    ledger.record([row(number) for number in range(10)])
    before = NOON + timedelta(seconds=7)
    counted = ledger.totals()

    assert [ledger.forget(before, 5), ledger.forget(before, 5), ledger.forget(before, 5)] == [
        5,
        2,
        0,
    ]

    assert list(ledger.search(Search())) == [row(7), row(8), row(9)]
    assert ledger.totals() == counted
    ledger.record([row(20)])
    assert ledger.totals().finished == 11


def test_what_no_text_may_hold_is_replaced(ledger: Ledger) -> None:
    odd = replace(row().origin, calling_ae_title="CT\0 1")

    ledger.record([row(1, origin=odd)])

    assert [each.instance for each in ledger.recent(5)] == [row(1).instance]
