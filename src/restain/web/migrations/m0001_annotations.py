"""Annotations. A store from before versions were counted has the table already and is taken over as it is."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    if sql.inspect(op.get_bind()).has_table("annotations"):
        return
    op.create_table(
        "annotations",
        sql.Column("image", sql.String(64), primary_key=True),
        sql.Column("name", sql.Text, nullable=False),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("changed", sql.String(32), nullable=False),
        sql.Column("features", sql.Text, nullable=False),
    )
