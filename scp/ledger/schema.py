"""The tables. Changing them raises ``SCHEMA_VERSION`` and brings a step from the one before."""

from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_VERSION: Final = 1
"""Kept in SQLite's user_version; 0 is a file without tables."""

metadata: Final = MetaData()

instances: Final = Table(
    "instances",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("job", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("peer_address", Text, nullable=False),
    Column("received_at", Text, nullable=False),
    Column("finished_at", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("form", Text),
    Column("reason", Text),
    Column("not_collapsed", Text),
    Column("source_transfer_syntax", Text, nullable=False),
    Column("result_transfer_syntax", Text, nullable=False),
    Column("source_bytes", Integer, nullable=False),
    Column("result_bytes", Integer, nullable=False),
    Column("dataset_sha256", Text, nullable=False),
    Column("normal_sha256", Text, nullable=False),
    Column("pixel_sha256", Text, nullable=False),
    Column("result_sha256", Text, nullable=False),
    Column("destinations", Text, nullable=False),
    Column("is_conflict", Boolean, nullable=False),
    Column("became", Text, nullable=False),
    Column("frame", Integer, nullable=False),
    Column("note", Text, nullable=False),
    UniqueConstraint("job", "instance"),
    Index("instances_by_uid", "sop_instance_uid", "finished_at"),
    Index("instances_by_result", "result_sha256"),
    Index("instances_by_time", "finished_at"),
    Index("collapsed_by_series", "series_instance_uid", sqlite_where=text("became <> ''")),
)
"""One row for each instance; times are ISO 8601 in UTC with microseconds."""

sums: Final = Table(
    "sums",
    metadata,
    Column("state", Text, primary_key=True),
    Column("form", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("not_collapsed", Text, primary_key=True),
    Column("instances", Integer, nullable=False),
    Column("source_bytes", Integer, nullable=False),
    Column("result_bytes", Integer, nullable=False),
)
"""Sums of ``instances``, changed in the same transaction; what is absent is empty."""
