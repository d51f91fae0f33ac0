"""Whose an uploaded image is."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    op.create_table(
        "uploads",
        sql.Column("id", sql.String(64), primary_key=True),
        sql.Column("created", sql.String(32), nullable=False),
        sql.Column("owner", sql.String(80), nullable=False),
        sql.Column("name", sql.Text, nullable=False),
    )
