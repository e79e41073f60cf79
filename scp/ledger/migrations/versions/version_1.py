"""The tables of version 1."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "1"
down_revision = None


def upgrade() -> None:
    whole = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
    moment = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
    op.create_table(
        "instances",
        sa.Column("number", whole, primary_key=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("sop_class_uid", sa.Text, nullable=False),
        sa.Column("sop_instance_uid", sa.Text, nullable=False),
        sa.Column("study_instance_uid", sa.Text, nullable=False),
        sa.Column("series_instance_uid", sa.Text, nullable=False),
        sa.Column("calling_ae_title", sa.Text, nullable=False),
        sa.Column("called_ae_title", sa.Text, nullable=False),
        sa.Column("peer_address", sa.Text, nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.Column("finished_at", moment, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("form", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("not_collapsed", sa.Text),
        sa.Column("source_transfer_syntax", sa.Text, nullable=False),
        sa.Column("result_transfer_syntax", sa.Text, nullable=False),
        sa.Column("source_bytes", whole, nullable=False),
        sa.Column("result_bytes", whole, nullable=False),
        sa.Column("dataset_sha256", sa.Text, nullable=False),
        sa.Column("normal_sha256", sa.Text, nullable=False),
        sa.Column("pixel_sha256", sa.Text, nullable=False),
        sa.Column("result_sha256", sa.Text, nullable=False),
        sa.Column("destinations", sa.Text, nullable=False),
        sa.Column("is_conflict", sa.Boolean, nullable=False),
        sa.Column("became", sa.Text, nullable=False),
        sa.Column("frame", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.UniqueConstraint("job", "instance"),
    )
    op.create_index("instances_by_uid", "instances", ["sop_instance_uid", "finished_at"])
    op.create_index("instances_by_result", "instances", ["result_sha256"])
    op.create_index("instances_by_time", "instances", ["finished_at"])
    is_collapsed = sa.text("became <> ''")
    op.create_index(
        "collapsed_by_series",
        "instances",
        ["series_instance_uid"],
        sqlite_where=is_collapsed,
        postgresql_where=is_collapsed,
    )
    op.create_table(
        "sums",
        sa.Column("state", sa.Text, primary_key=True),
        sa.Column("form", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, primary_key=True),
        sa.Column("not_collapsed", sa.Text, primary_key=True),
        sa.Column("instances", whole, nullable=False),
        sa.Column("source_bytes", whole, nullable=False),
        sa.Column("result_bytes", whole, nullable=False),
    )
