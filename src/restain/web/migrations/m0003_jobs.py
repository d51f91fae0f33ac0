"""The queue of stainings."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sql.Column("id", sql.String(64), primary_key=True),
        sql.Column("created", sql.String(32), nullable=False),
        sql.Column("changed", sql.String(32), nullable=False),
        sql.Column("state", sql.String(16), nullable=False, index=True),
        # The account's name; empty where there are no accounts. Not a reference: a job outlives its account.
        sql.Column("owner", sql.String(80), nullable=False),
        sql.Column("source", sql.String(64), nullable=False),
        sql.Column("name", sql.Text, nullable=False),
        sql.Column("region", sql.JSON(none_as_null=True)),
        sql.Column("options", sql.JSON, nullable=False),
        sql.Column("message", sql.Text, nullable=False, server_default=""),
        sql.Column("done", sql.Integer, nullable=False, server_default="0"),
        sql.Column("total", sql.Integer, nullable=False, server_default="0"),
    )
