"""Several nodes in one database: each counts, keeps and vouches for its own."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import column, table, text

from scp.config.ledger import LedgerSection
from scp.durable import Disk
from scp.errors import NodeError
from scp.ledger import migrate
from scp.ledger.nodes import known_name, node_name
from scp.ledger.open import open_for_writing
from scp.ledger.ports import Search, State
from scp.ledger.postgres import PostgresDatabase
from scp.ledger.rows import values_of
from scp.ledger.sql import SqlLedger
from tests.ledger.postgres import PostgresServer
from tests.ledger.rows import NOON, row

NOWHERE = Path("/nonexistent")
SERVER = LedgerSection.model_validate({"url": "postgresql://db.example/ledger"})


@pytest.fixture
def two(postgres: PostgresServer) -> Iterator[tuple[SqlLedger, SqlLedger]]:
    """The ledgers of nodes A and B: rows 1 and 2 of A, row 3 of B."""
    section = postgres.new_database()
    with ExitStack() as ends:
        first, second = (
            ends.enter_context(closing(open_for_writing(section, NOWHERE, Disk(), name)))
            for name in ("A", "B")
        )
        first.record([row(1), row(2, state=State.DISCARDED)])
        second.record([row(3, became="2.25.7")])
        yield first, second


def test_each_counts_its_own(two: tuple[SqlLedger, SqlLedger]) -> None:
    first, second = two

    states = [ledger.totals().states for ledger in two]

    assert [each[State.DELIVERED] for each in states] == [1, 1]
    assert [each[State.DISCARDED] for each in states] == [1, 0]
    assert [each.node for each in first.recent(5)] == ["B", "A", "A"]
    # After a restart of one, too.
    second.record([row(4)])
    assert (first.totals().finished, second.totals().finished) == (2, 2)


def test_what_another_delivered_is_no_repeat_and_nothing_to_vouch_for(
    two: tuple[SqlLedger, SqlLedger],
) -> None:
    uids = [row(number).identity.sop_instance_uid for number in (1, 2, 3)]

    for ledger, own in zip(two, (uids[:2], uids[2:]), strict=True):
        for found in (ledger.finished_since(NOON), ledger.find_instances(uids)):
            assert sorted(each.identity.sop_instance_uid for each in found) == own


def test_old_rows_leave_by_the_time_that_their_own_node_keeps_them(
    two: tuple[SqlLedger, SqlLedger],
) -> None:
    first, second = two

    assert first.forget(NOON + timedelta(days=1), 10) == 2

    assert [each.node for each in second.recent(5)] == ["B"]


def test_a_person_finds_the_rows_of_all_or_of_one(two: tuple[SqlLedger, SqlLedger]) -> None:
    first, _ = two

    assert [each.node for each in first.search(Search())] == ["A", "A", "B"]
    assert [each.node for each in first.search(Search(node="B"))] == ["B"]
    assert first.studies(Search(node="C")) == []


def test_a_series_that_any_of_them_has_collapsed_is_collapsed(
    two: tuple[SqlLedger, SqlLedger],
) -> None:
    for ledger in two:
        assert ledger.history_of(row().identity.series_instance_uid).volumes == {"2.25.7"}


def test_what_was_there_before_nodes_had_names_is_that_of_the_first_that_starts(
    postgres: PostgresServer,
) -> None:
    section = postgres.new_database()
    database = PostgresDatabase(section)
    config = Config()
    config.set_main_option("script_location", str(migrate._FOLDER))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "3")
        values = {name: value for name, value in values_of(row(1)).items() if name != "node"}
        connection.execute(table("instances", *map(column, values)).insert(), values)
        connection.execute(
            text("INSERT INTO sums VALUES ('delivered', 'htj2k', '', '', 1, 500, 200)")
        )
    database.engine.dispose()

    with ExitStack() as ends:
        first, second = (
            ends.enter_context(closing(open_for_writing(section, NOWHERE, Disk(), name)))
            for name in ("A", "B")
        )
        second.record([row(2)])

        assert [ledger.totals().states[State.DELIVERED] for ledger in (first, second)] == [1, 1]
        assert [ledger.totals().source_bytes for ledger in (first, second)] == [500, 500]
        assert first.finished_since(NOON) == [replace(row(1), node="A")]
        assert second.finished_since(NOON) == [replace(row(2), node="B")]


def test_a_nodes_name_stays_whatever_it_is_called_later(tmp_path: Path) -> None:
    path = tmp_path / "node-name"

    made = node_name(SERVER, path, "CT GATE", Disk())

    assert made.startswith("CT GATE-")
    assert node_name(SERVER, path, "OTHER", Disk()) == made
    assert known_name(SERVER, path) == made
    assert node_name(SERVER, tmp_path / "other", "CT GATE", Disk()) != made


def test_a_file_is_one_nodes_and_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "node-name"

    assert node_name(LedgerSection(), path, "CT", Disk()) == known_name(LedgerSection(), path) == ""
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff", b"a\nb", b"x" * 41])
def test_a_damaged_name_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node-name"
    path.write_bytes(content)

    with pytest.raises(NodeError, match="put it back from a backup, or delete it"):
        node_name(SERVER, path, "CT", Disk())


def test_a_name_that_is_not_there_is_not_made_by_who_only_asks(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="cannot be read"):
        known_name(SERVER, tmp_path / "node-name")

    assert not list(tmp_path.iterdir())
