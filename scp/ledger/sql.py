"""The ledger in a database: one writer, readers in other processes while it runs."""

import contextlib
import itertools
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
    union,
)
from sqlalchemy.exc import DBAPIError

from scp.durable import Disk
from scp.errors import DeliveryError, LedgerError, NodeError
from scp.ledger.database import Database
from scp.ledger.migrate import check_version, migrate
from scp.ledger.ports import LedgerRow, Search, SeriesHistory, State, Totals
from scp.ledger.rows import collapse_reason, row_of, values_of
from scp.ledger.schema import instances, sums
from scp.ledger.sqlite import SqliteDatabase
from scp.ledger.tally import Tally, TallyKey, tally, totals_of
from scp.model import CollapseReason, Form, PassReason

_PAGE: Final = 1000
"""Rows read at a time. Between pages no transaction is open: one that lasts as long as somebody
reads the screen would keep SQLite from reusing its log, and PostgreSQL from cleaning up."""
_NUMBERS_A_QUERY: Final = 500


class SqlLedger:
    """A :class:`~scp.ledger.ports.Ledger` in a database. Safe to use from several threads.

    The tables are looked at, or made, by the first transaction that reaches the database.
    """

    def __init__(self, database: Database, *, is_writer: bool) -> None:
        self._database = database
        self._is_writer = is_writer
        self._is_ready = False
        self._preparing = threading.Lock()
        """Held for the first transaction, so that no two make the tables."""

    @classmethod
    def open_for_writing(cls, path: Path, disk: Disk) -> Self:
        """Open the file of a node that starts, made where missing.

        Raises
        ------
        NodeError
            It is damaged, cannot be written, or a newer dcmpress wrote it.
        """
        if not path.exists():
            # Made here for its permissions; SQLite gives its side files the same.
            disk.append_to(path).close()
            disk.sync_folder(path.parent)
        ledger = cls(SqliteDatabase(path, is_writer=True), is_writer=True)
        ledger.must_open()
        return ledger

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Open the file that a node, running or not, has written.

        Raises
        ------
        NodeError
            There is none, it is damaged, cannot be read, or another dcmpress wrote it.
        """
        if not path.exists():
            raise NodeError(f"there is no ledger at {path}: no node has run on this data folder")
        ledger = cls(SqliteDatabase(path, is_writer=False), is_writer=False)
        ledger.must_open()
        return ledger

    def must_open(self) -> None:
        """Look at the tables now.

        Raises
        ------
        NodeError
            They cannot be used; the ledger is closed.
        """
        try:
            self.open()
        except LedgerError as error:
            self.close()
            raise NodeError(str(error)) from error
        except NodeError:
            self.close()
            raise

    def open(self) -> None:
        """As :meth:`must_open`, but a database that cannot be reached is a LedgerError."""
        with self._transaction(is_first=True):
            pass

    def record(self, rows: Sequence[LedgerRow]) -> None:
        if not rows:
            return
        by_key = {(row.job, row.instance): row for row in reversed(rows)}
        statement = (
            self._database.insert(instances)
            .on_conflict_do_nothing(index_elements=["job", "instance"])
            .returning(instances.c.job, instances.c.instance)
        )
        with self._transaction() as connection:
            node = {"node": self._database.node}
            values = [values_of(row) | node for row in reversed(by_key.values())]
            added = connection.execute(statement, values).all()
            self._add_up(connection, tally(by_key[job, instance] for job, instance in added))

    def totals(self) -> Totals:
        with self._transaction() as connection:
            own = select(sums).where(sums.c.node == self._database.node)
            groups = connection.execute(own).mappings().all()
        return totals_of(
            {
                TallyKey(
                    state=State(group["state"]),
                    form=Form(group["form"]) if group["form"] else None,
                    reason=PassReason(group["reason"]) if group["reason"] else None,
                    not_collapsed=collapse_reason(group["not_collapsed"]),
                ): Tally(group["instances"], group["source_bytes"], group["result_bytes"])
                for group in groups
            }
        )

    def known(self, jobs: Collection[str]) -> set[str]:
        found: set[str] = set()
        for names in itertools.batched(jobs, _NUMBERS_A_QUERY):
            query = select(instances.c.job).where(instances.c.job.in_(names)).distinct()
            with self._transaction() as connection:
                found.update(connection.execute(query).scalars())
        return found

    def history_of(self, series_instance_uid: str) -> SeriesHistory:
        was_cut = instances.c.not_collapsed == str(CollapseReason.SERIES_WAS_CUT)
        query = select(
            instances.c.became, case((was_cut, instances.c.sop_instance_uid), else_="")
        ).where(
            instances.c.series_instance_uid == series_instance_uid,
            or_(instances.c.became != "", was_cut),
            instances.c.destinations != "{}",  # Else it was given up before anybody had it.
        )
        with self._transaction() as connection:
            found = connection.execute(query.distinct()).all()
        return SeriesHistory(
            volumes=frozenset(became for became, _ in found if became),
            cut=frozenset(uid for _, uid in found if uid),
        )

    def finished_since(self, since: datetime) -> list[LedgerRow]:
        return self._newest(instances.c.finished_at >= since, self._is_own)[::-1]

    def find_results(
        self, *, result_sha256: str | None = None, sop_instance_uid: str | None = None
    ) -> list[LedgerRow]:
        conditions: list[ColumnElement[bool]] = []
        if result_sha256 is not None:
            conditions.append(instances.c.result_sha256 == result_sha256)
        if sop_instance_uid is not None:
            conditions.append(instances.c.sop_instance_uid == sop_instance_uid)
        if not conditions:
            raise ValueError("a digest, a UID or both are needed")
        return self._newest(*conditions)

    def search(self, search: Search) -> Iterator[LedgerRow]:
        conditions = _conditions(search)
        numbers = _numbers(search)
        if numbers is None:
            yield from self._by_time(conditions)
            return
        with self._transaction() as connection:
            found = sorted(connection.execute(numbers).scalars())
        for page in itertools.batched(found, _NUMBERS_A_QUERY):
            query = select(instances).where(instances.c.number.in_(page), *conditions)
            yield from self._rows(query.order_by(instances.c.number))

    def studies(self, search: Search) -> list[str]:
        query = select(instances.c.study_instance_uid).where(*_conditions(search)).distinct()
        numbers = _numbers(search)
        if numbers is not None:
            query = query.where(instances.c.number.in_(numbers))
        with self._transaction() as connection:
            return sorted(connection.execute(query).scalars())

    def forget(self, before: datetime, limit: int) -> int:
        oldest = (
            select(instances.c.number)
            .where(instances.c.finished_at < before, self._is_own)
            .order_by(instances.c.finished_at, instances.c.number)
            .limit(limit)
        )
        with self._transaction() as connection:
            numbers = connection.execute(oldest).scalars().all()
            for page in itertools.batched(numbers, _NUMBERS_A_QUERY):
                connection.execute(delete(instances).where(instances.c.number.in_(page)))
        return len(numbers)

    def find_instances(self, uids: Collection[str]) -> list[LedgerRow]:
        found: list[LedgerRow] = []
        for page in itertools.batched(sorted(uids), _NUMBERS_A_QUERY):
            found += self._newest(instances.c.sop_instance_uid.in_(page), self._is_own)
        return found

    def recent(self, limit: int) -> list[LedgerRow]:
        return self._newest(limit=limit)

    def close(self) -> None:
        self._database.engine.dispose()

    @property
    def _is_own(self) -> ColumnElement[bool]:
        return instances.c.node == self._database.node

    def _newest(
        self, *conditions: ColumnElement[bool], limit: int | None = None
    ) -> list[LedgerRow]:
        newest = (instances.c.finished_at.desc(), instances.c.number.desc())
        return self._rows(select(instances).where(*conditions).order_by(*newest).limit(limit))

    def _by_time(self, conditions: Sequence[ColumnElement[bool]]) -> Iterator[LedgerRow]:
        place = (instances.c.finished_at, instances.c.number)
        query = select(instances).where(*conditions).order_by(*place).limit(_PAGE)
        page_query: Select[Any] = query
        while True:
            with self._transaction() as connection:
                page = connection.execute(page_query).mappings().all()
            yield from map(row_of, page)
            if len(page) < _PAGE:
                return
            last = page[-1]
            page_query = query.where(
                tuple_(*place) > tuple_(last["finished_at"], last["number"], types=_TYPES)
            )

    def _rows(self, query: Select[Any]) -> list[LedgerRow]:
        with self._transaction() as connection:
            return [row_of(found) for found in connection.execute(query).mappings()]

    def _add_up(self, connection: Connection, added: dict[TallyKey, Tally]) -> None:
        for key, group in added.items():
            statement = self._database.insert(sums).values(
                node=self._database.node,
                state=key.state,
                form=key.form or "",
                reason=key.reason or "",
                not_collapsed=key.not_collapsed or "",
                instances=group.instances,
                source_bytes=group.source_bytes,
                result_bytes=group.result_bytes,
            )
            counts = [column for column in sums.c if isinstance(column.type, Integer)]
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["node", "state", "form", "reason", "not_collapsed"],
                    set_={column: column + statement.excluded[column.name] for column in counts},
                )
            )

    @contextmanager
    def _transaction(self, *, is_first: bool = False) -> Iterator[Connection]:
        self._database.check()
        alone = contextlib.nullcontext() if self._is_ready else self._preparing
        try:
            with alone, self._database.engine.begin() as connection:
                if not self._is_ready:
                    self._prepare(connection, is_first)
                yield connection
            self._is_ready = True
        except (DBAPIError, DeliveryError, OSError) as error:
            meaning = self._database.meaning_of(error)
            if meaning is None:
                raise
            raise meaning from error

    def _prepare(self, connection: Connection, is_first: bool) -> None:
        prepare = migrate if self._is_writer else check_version
        try:
            prepare(self._database, connection)
        except NodeError as error:
            if is_first:
                raise
            # A server that was away at the start: what it has does not stop a node that runs.
            raise LedgerError(str(error)) from error


_TYPES: Final = (instances.c.finished_at.type, instances.c.number.type)


def _conditions(search: Search) -> list[ColumnElement[bool]]:
    """All that is asked for but what :func:`_numbers` finds."""
    columns = instances.c
    conditions: list[ColumnElement[bool]] = []
    if search.patient_id_hash:
        conditions.append(columns.patient_id_hash == search.patient_id_hash)
    if search.ae_title:
        titles = (columns.calling_ae_title, columns.called_ae_title)
        conditions.append(or_(*(title == search.ae_title for title in titles)))
    if search.since is not None:
        conditions.append(columns.finished_at >= search.since)
    if search.until is not None:
        conditions.append(columns.finished_at < search.until)
    if search.state is not None:
        conditions.append(columns.state == str(search.state))
    if search.node is not None:
        conditions.append(columns.node == search.node)
    if search.destination:
        # A name has no character that JSON escapes. Not LIKE, for which SQLite's "pacs" is "PACS".
        keys = (f'"{search.destination}": {bracket}' for bracket in "{[")
        without = (func.replace(columns.destinations, key, "") for key in keys)
        conditions.append(or_(*(rest != columns.destinations for rest in without)))
    return conditions


def _numbers(search: Search) -> Any:
    """A query for the rows that an index of their own finds; None: the index by time has to do."""
    columns = instances.c
    if search.uid:
        uids = (
            columns.sop_instance_uid,
            columns.series_instance_uid,
            columns.study_instance_uid,
            columns.became,
        )
        return union(*(select(columns.number).where(uid == search.uid) for uid in uids))
    if search.patient_id_hash:
        return select(columns.number).where(columns.patient_id_hash == search.patient_id_hash)
    return None
