"""The ledger in SQLite: one writer, readers in other processes while it runs.

Write-ahead logging, because with a rollback journal a reader that takes its time makes the writer
wait; synchronous=FULL, because with less the last commits are not on the disk when they return. It
needs a local file system, as the spool does.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    QueuePool,
    RowMapping,
    create_engine,
    event,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from scp.durable import Disk
from scp.errors import LedgerError, NodeError
from scp.ledger.ports import Delivered, LedgerRow, State, Totals
from scp.ledger.schema import SCHEMA_VERSION, instances, metadata, sums
from scp.ledger.tally import Tally, TallyKey, tally, totals_of
from scp.model import CollapseReason, Form, Identity, Origin, PassReason

BUSY_SECONDS: Final = 30.0
"""How long a call waits for a lock that another program holds, a backup for one."""

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PASSING: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)


class SqlLedger:
    """A :class:`~scp.ledger.ports.Ledger` in one file. Safe to use from several threads."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._engine = engine

    @classmethod
    def open_for_writing(cls, path: Path, disk: Disk) -> Self:
        """Open the ledger of a node that starts, made where missing.

        Raises
        ------
        NodeError
            It is damaged, cannot be written, or a newer dcmpress wrote it.
        """
        if not path.exists():
            # Made here for its permissions; SQLite gives its side files the same.
            disk.append_to(path).close()
            disk.sync_folder(path.parent)
        ledger = cls(path, _engine(path, "rw", _prepare_for_writing))
        with ledger._opening(), ledger._engine.begin() as connection:
            if ledger._checked_version(connection) == 0:
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return ledger

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Open what a node, running or not, has written.

        Raises
        ------
        NodeError
            There is none, it is damaged, cannot be read, or a newer dcmpress wrote it.
        """
        if not path.exists():
            raise NodeError(f"there is no ledger at {path}: no node has run on this data folder")
        ledger = cls(path, _engine(path, "ro", lambda connection: None))
        with ledger._opening(), ledger._engine.begin() as connection:
            if ledger._checked_version(connection) == 0:
                raise NodeError(f"{path} is empty: no node has finished its first start on it")
        return ledger

    def record(self, rows: Sequence[LedgerRow]) -> None:
        if not rows:
            return
        by_key = {(row.job, row.instance): row for row in reversed(rows)}
        statement = (
            insert(instances)
            .on_conflict_do_nothing(index_elements=["job", "instance"])
            .returning(instances.c.job, instances.c.instance)
        )
        with self._reported(), self._engine.begin() as connection:
            values = [_values(row) for row in reversed(by_key.values())]
            added = connection.execute(statement, values).all()
            _add_up(connection, tally(by_key[job, instance] for job, instance in added))

    def totals(self) -> Totals:
        with self._reported(), self._engine.begin() as connection:
            groups = connection.execute(select(sums)).mappings().all()
        return totals_of(
            {
                TallyKey(
                    state=State(group["state"]),
                    form=Form(group["form"]) if group["form"] else None,
                    reason=PassReason(group["reason"]) if group["reason"] else None,
                    not_collapsed=_collapse_reason(group["not_collapsed"]),
                ): Tally(group["instances"], group["source_bytes"], group["result_bytes"])
                for group in groups
            }
        )

    def knows(self, job: str) -> bool:
        query = select(instances.c.number).where(instances.c.job == job).limit(1)
        with self._reported(), self._engine.begin() as connection:
            return connection.execute(query).first() is not None

    def has_collapsed(self, series_instance_uid: str) -> bool:
        query = select(instances.c.number).where(
            instances.c.series_instance_uid == series_instance_uid,
            instances.c.became != "",
            instances.c.destinations != "{}",  # Else it was given up before anybody had it.
        )
        with self._reported(), self._engine.begin() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def finished_since(self, since: datetime) -> list[LedgerRow]:
        return self._newest(instances.c.finished_at >= _text(since))[::-1]

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

    def recent(self, limit: int) -> list[LedgerRow]:
        return self._newest(limit=limit)

    def close(self) -> None:
        self._engine.dispose()

    def _newest(
        self, *conditions: ColumnElement[bool], limit: int | None = None
    ) -> list[LedgerRow]:
        newest = (instances.c.finished_at.desc(), instances.c.number.desc())
        query = select(instances).where(*conditions).order_by(*newest).limit(limit)
        with self._reported(), self._engine.begin() as connection:
            return [_row(found) for found in connection.execute(query).mappings()]

    def _checked_version(self, connection: Connection) -> int:
        version: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version > SCHEMA_VERSION:
            raise NodeError(
                f"{self._path} was written by a newer dcmpress (format {version}, this one "
                f"knows {SCHEMA_VERSION}): install that version, or name another data folder"
            )
        return version

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            with self._reported():
                yield
        except LedgerError as error:
            self.close()
            raise NodeError(str(error)) from error
        except NodeError:
            self.close()
            raise

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            # The low byte is the primary code (SQLite's documentation, "Result and Error Codes").
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise NodeError(f"the ledger {self._path} is damaged: {error.orig}") from error
            if code in _PASSING:
                raise LedgerError(f"the ledger {self._path}: {error.orig}") from error
            raise


def _engine(path: Path, mode: str, prepare: Callable[[sqlite3.Connection], None]) -> Engine:
    address = f"file:{quote(os.fspath(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        # isolation_level: transactions begin where the listener below says, not where the driver
        # guesses.
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            prepare(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _prepare_for_writing(connection: sqlite3.Connection) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")


def _add_up(connection: Connection, added: dict[TallyKey, Tally]) -> None:
    for key, group in added.items():
        statement = insert(sums).values(
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
                index_elements=["state", "form", "reason", "not_collapsed"],
                set_={column: column + statement.excluded[column.name] for column in counts},
            )
        )


def _values(row: LedgerRow) -> dict[str, Any]:
    return {
        "job": row.job,
        "instance": row.instance,
        "sop_class_uid": row.identity.sop_class_uid,
        "sop_instance_uid": row.identity.sop_instance_uid,
        "study_instance_uid": row.identity.study_instance_uid,
        "series_instance_uid": row.identity.series_instance_uid,
        "calling_ae_title": row.origin.calling_ae_title,
        "called_ae_title": row.origin.called_ae_title,
        "peer_address": row.origin.peer_address,
        "received_at": _text(row.received_at),
        "finished_at": _text(row.finished_at),
        "state": str(row.state),
        "rule": row.rule,
        "form": row.form and str(row.form),
        "reason": row.reason and str(row.reason),
        "not_collapsed": row.not_collapsed and str(row.not_collapsed),
        "source_transfer_syntax": row.source_transfer_syntax,
        "result_transfer_syntax": row.result_transfer_syntax,
        "source_bytes": row.source_bytes,
        "result_bytes": row.result_bytes,
        "dataset_sha256": row.dataset_sha256,
        "normal_sha256": row.normal_sha256,
        "pixel_sha256": row.pixel_sha256,
        "result_sha256": row.result_sha256,
        "destinations": json.dumps(
            {name: [answer.status, _text(answer.at)] for name, answer in row.destinations.items()}
        ),
        "is_conflict": row.is_conflict,
        "became": row.became,
        "frame": row.frame,
        "note": row.note,
    }


def _row(found: RowMapping) -> LedgerRow:
    values = {name: value for name, value in found.items() if name != "number"}
    identity = Identity(**{name: values.pop(name) for name in Identity.__slots__})
    origin = Origin(**{name: values.pop(name) for name in Origin.__slots__})
    answers = json.loads(values["destinations"])
    values |= {
        "received_at": datetime.fromisoformat(values["received_at"]),
        "finished_at": datetime.fromisoformat(values["finished_at"]),
        "state": State(values["state"]),
        "form": Form(values["form"]) if values["form"] else None,
        "reason": PassReason(values["reason"]) if values["reason"] else None,
        "not_collapsed": _collapse_reason(values["not_collapsed"]),
        "destinations": {
            name: Delivered(status=status, at=datetime.fromisoformat(at))
            for name, (status, at) in answers.items()
        },
    }
    return LedgerRow(identity=identity, origin=origin, **values)


def _collapse_reason(value: str | None) -> CollapseReason | None:
    return CollapseReason(value) if value else None


def _text(moment: datetime) -> str:
    """Of one width, so that the order of texts is that of times."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
