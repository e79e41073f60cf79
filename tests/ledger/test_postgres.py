"""What only a server brings: it may be away, hang, or refuse us; nothing of that may take long."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from scp.config.ledger import LedgerSection
from scp.durable import Disk
from scp.errors import LedgerError, NodeError
from scp.ledger import postgres as module
from scp.ledger.open import open_for_reading, open_for_writing
from scp.ledger.postgres import PostgresDatabase
from scp.ledger.sql import SqlLedger
from tests.ledger.postgres import PASSWORD, USER, PostgresServer
from tests.ledger.rows import row

NOWHERE = Path("/nonexistent")


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_server_that_stops_and_returns_costs_the_calls_meanwhile(
    postgres: PostgresServer,
) -> None:
    clock = Clock()
    database = PostgresDatabase(postgres.new_database(), now=clock)
    with closing(SqlLedger(database, is_writer=True)) as ledger:
        ledger.record([row(1)])

        with stopped(postgres):
            for _ in range(3):
                with pytest.raises(LedgerError):
                    ledger.record([row(2)])
                clock.now += module.REST_SECONDS

        ledger.record([row(2)])
        assert ledger.recent(5) == [row(2), row(1)]


def test_after_a_failure_nobody_waits_for_the_server_for_a_while(postgres: PostgresServer) -> None:
    clock = Clock()
    database = PostgresDatabase(postgres.new_database(), now=clock)
    with closing(SqlLedger(database, is_writer=True)) as ledger:
        with stopped(postgres), pytest.raises(LedgerError):
            ledger.totals()

        with pytest.raises(LedgerError, match="is left alone for"):
            ledger.totals()
        clock.now += module.REST_SECONDS

        assert ledger.totals().finished == 0


def test_a_server_that_was_restarted_between_two_calls_is_no_failure(
    postgres: PostgresServer,
) -> None:
    with closing(open_for_writing(postgres.new_database(), NOWHERE, Disk())) as ledger:
        ledger.record([row(1)])
        with stopped(postgres):
            pass

        ledger.record([row(2)])

        assert ledger.totals().finished == 2


def test_a_server_that_is_away_at_the_start_gets_its_tables_later(postgres: PostgresServer) -> None:
    section = postgres.new_database()
    with stopped(postgres):
        ledger = open_for_writing(section, NOWHERE, Disk())
        with pytest.raises(NodeError):
            open_for_reading(section, NOWHERE)

    with closing(ledger):
        _until_taken(ledger)

        with closing(open_for_reading(section, NOWHERE)) as reader:
            assert reader.recent(5) == [row(1)]


def test_a_server_that_hangs_is_given_up(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    with closing(open_for_writing(postgres.new_database(), NOWHERE, Disk())) as ledger:
        postgres.freeze(is_frozen=True)
        started = time.monotonic()
        try:
            with pytest.raises(LedgerError):
                ledger.record([row(1)])
        finally:
            postgres.freeze(is_frozen=False)

        assert time.monotonic() - started < 60
        _until_taken(ledger)
        assert ledger.totals().finished == 1


def test_what_the_server_refuses_is_said_without_the_password(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    section = postgres.new_database()
    assert section.url
    inline = section.url.replace(f"{USER}@", f"{USER}:hunter2@")
    wrong = LedgerSection.model_validate({"url": inline})
    absent = LedgerSection.model_validate({"url": section.url, "password": {"file": "/no/such"}})
    nothing = postgres.section("nothing")

    for refused, why in (
        (wrong, "password authentication failed"),
        (absent, "/no/such cannot be read"),
        (nothing, '"nothing" does not exist'),
    ):
        with pytest.raises(NodeError, match=why) as caught:
            open_for_reading(refused, NOWHERE)
        assert "hunter2" not in str(caught.value)
        open_for_writing(refused, NOWHERE, Disk()).close()
    assert "hunter2" not in caplog.text
    assert PASSWORD not in caplog.text
    assert caplog.text.count("waits in the spool") == 3


def test_a_password_in_the_url_and_a_socket_work_too(postgres: PostgresServer) -> None:
    section = postgres.new_database()
    assert section.url
    name = section.url.rpartition("/")[2]
    quoted = PASSWORD.replace(" ", "%20")
    by_socket = f"postgresql://{USER}:{quoted}@:{postgres.port}/{name}?host={postgres.folder}"
    sections = [LedgerSection.model_validate({"url": by_socket})]

    for number, each in enumerate(sections):
        with closing(open_for_writing(each, NOWHERE, Disk())) as ledger:
            ledger.record([row(number)])
            assert ledger.totals().finished == number + 1


def test_a_server_without_a_trusted_certificate_is_refused_where_tls_is_asked_for(
    postgres: PostgresServer,
) -> None:
    name = (postgres.new_database().url or "").rpartition("/")[2]

    with pytest.raises(NodeError, match="refuses SSL"):
        open_for_reading(postgres.section(name, tls={}), NOWHERE)


def _until_taken(ledger: SqlLedger) -> None:
    """Record a row, as the node does: again and again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            ledger.record([row(1)])
            return
        except LedgerError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
