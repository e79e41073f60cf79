"""Modality, a hash of the Patient ID and the proof's decoder; indexes for what people ask."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    for name in ("modality", "patient_id_hash", "verified_by"):
        op.add_column("instances", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.drop_index("collapsed_by_series", "instances")
    op.drop_index("instances_by_time", "instances")
    op.create_index("instances_by_time", "instances", ["finished_at", "number"])
    op.create_index("instances_by_series", "instances", ["series_instance_uid"])
    op.create_index("instances_by_study", "instances", ["study_instance_uid"])
    for index, column in (("object", "became"), ("patient", "patient_id_hash")):
        is_there = sa.text(f"{column} <> ''")
        op.create_index(
            f"instances_by_{index}",
            "instances",
            [column],
            sqlite_where=is_there,
            postgresql_where=is_there,
        )
