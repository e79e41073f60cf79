"""Which node a row is of: several may share a database. What is there becomes that of who migrates."""

import sqlalchemy as sa
from alembic import context, op

revision = "4"
down_revision = "3"

_KEYS = ("node", "state", "form", "reason", "not_collapsed")
_COUNTS = ("instances", "source_bytes", "result_bytes")


def upgrade() -> None:
    node: str = context.config.attributes["node"]
    # By the column's default, which costs nothing: an UPDATE would write every row once more.
    op.add_column("instances", sa.Column("node", sa.Text, nullable=False, server_default=node))
    if op.get_context().dialect.name == "postgresql":  # SQLite has one node, and no such statement.
        op.alter_column("instances", "node", server_default="")
    whole = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
    connection = op.get_bind()
    groups = connection.execute(sa.text("SELECT * FROM sums")).mappings().all()
    op.drop_table("sums")
    sums = op.create_table(
        "sums",
        *(sa.Column(name, sa.Text, primary_key=True) for name in _KEYS),
        *(sa.Column(name, whole, nullable=False) for name in _COUNTS),
    )
    op.bulk_insert(sums, [{"node": node, **group} for group in groups])
