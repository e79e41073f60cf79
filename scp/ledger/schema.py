"""The tables as they are now; how they came to be so is in ``migrations``."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeEngine


class Moment(TypeDecorator[datetime]):
    """An aware time: ISO 8601 in UTC with microseconds where the database has no type for it."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str] | TypeEngine[datetime]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        # Of one width, so that the order of texts is that of times.
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(
        self, value: str | datetime | None, dialect: Dialect
    ) -> datetime | None:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return value and value.astimezone(UTC)


def _whole() -> TypeEngine[int]:
    """Of 64 bits; SQLite's are anyway."""
    return Integer().with_variant(BigInteger(), "postgresql")


def _empty(name: str) -> Column[str]:
    """A text that rows of earlier versions have not."""
    return Column(name, Text, nullable=False, server_default="")


metadata: Final = MetaData()

instances: Final = Table(
    "instances",
    metadata,
    Column("number", _whole(), primary_key=True),
    Column("job", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("peer_address", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("finished_at", Moment, nullable=False),
    Column("state", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("form", Text),
    Column("reason", Text),
    Column("not_collapsed", Text),
    Column("source_transfer_syntax", Text, nullable=False),
    Column("result_transfer_syntax", Text, nullable=False),
    Column("source_bytes", _whole(), nullable=False),
    Column("result_bytes", _whole(), nullable=False),
    Column("dataset_sha256", Text, nullable=False),
    Column("normal_sha256", Text, nullable=False),
    Column("pixel_sha256", Text, nullable=False),
    Column("result_sha256", Text, nullable=False),
    Column("destinations", Text, nullable=False),
    Column("is_conflict", Boolean, nullable=False),
    Column("became", Text, nullable=False),
    Column("frame", Integer, nullable=False),
    Column("note", Text, nullable=False),
    _empty("modality"),
    _empty("patient_id_hash"),
    _empty("verified_by"),
    _empty("restore_record"),
    _empty("node"),
    UniqueConstraint("job", "instance"),
    Index("instances_by_uid", "sop_instance_uid", "finished_at"),
    Index("instances_by_series", "series_instance_uid"),
    Index("instances_by_study", "study_instance_uid"),
    Index("instances_by_result", "result_sha256"),
    Index("instances_by_time", "finished_at", "number"),
    Index(
        "instances_by_object",
        "became",
        sqlite_where=text("became <> ''"),
        postgresql_where=text("became <> ''"),
    ),
    Index(
        "instances_by_patient",
        "patient_id_hash",
        sqlite_where=text("patient_id_hash <> ''"),
        postgresql_where=text("patient_id_hash <> ''"),
    ),
)
"""One row for each instance. ``destinations`` is a JSON object: name to the fields of ``Delivered``;
version 1 wrote a list of status and time for these."""

sums: Final = Table(
    "sums",
    metadata,
    Column("node", Text, primary_key=True),
    Column("state", Text, primary_key=True),
    Column("form", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("not_collapsed", Text, primary_key=True),
    Column("instances", _whole(), nullable=False),
    Column("source_bytes", _whole(), nullable=False),
    Column("result_bytes", _whole(), nullable=False),
)
"""Sums of each node's rows that ever were in ``instances``, changed in the same transaction as these are
added; what is absent is empty."""
