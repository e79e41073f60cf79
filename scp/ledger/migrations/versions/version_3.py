"""Where the record lies out of which a collapsed instance can be restored."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    op.add_column(
        "instances", sa.Column("restore_record", sa.Text, nullable=False, server_default="")
    )
