"""Accounts and their sessions. Times are in UTC, ISO 8601, so that they sort as text."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    op.create_table(
        "accounts",
        # The name as it is compared: without case, since tablets begin a name with a capital.
        sql.Column("key", sql.String(240), primary_key=True),
        sql.Column("name", sql.String(80), nullable=False),
        sql.Column("role", sql.String(16), nullable=False),
        sql.Column("password", sql.Text, nullable=False),
        sql.Column("created", sql.String(32), nullable=False),
        sql.Column("changed", sql.String(32), nullable=False),
    )
    op.create_table(
        "sessions",
        # SHA-256 of the token that the browser holds.
        sql.Column("digest", sql.String(64), primary_key=True),
        sql.Column(
            "account", sql.String(240), sql.ForeignKey("accounts.key", ondelete="CASCADE"), nullable=False, index=True
        ),
        sql.Column("created", sql.String(32), nullable=False),
        sql.Column("seen", sql.String(32), nullable=False),
    )
