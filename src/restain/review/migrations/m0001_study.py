"""The first tables. A store from before Alembic counted its versions itself, in ``meta``, and is taken over as it is."""

import sqlalchemy as sql
from alembic import op

from restain.errors import RestainError

revision, down_revision = "0001", None

KEEP_OFF = 2
"""What ``meta`` says since: an older restain takes it for a newer schema, and leaves the store alone."""


def upgrade() -> None:
    connection = op.get_bind()
    if sql.inspect(connection).has_table("meta"):
        version = connection.execute(sql.text("SELECT schema_version FROM meta")).scalar_one()
        if version > KEEP_OFF - 1:
            raise RestainError(f"The study's store was written by a newer restain (schema {version}).")
        connection.execute(sql.text("UPDATE meta SET schema_version = :version"), {"version": KEEP_OFF})
        return
    meta = op.create_table("meta", sql.Column("schema_version", sql.Integer, nullable=False))
    op.bulk_insert(meta, [{"schema_version": KEEP_OFF}])
    op.create_table(
        "study",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("definition", sql.Text, nullable=False),
        sql.Column("width", sql.Integer, nullable=False),
        sql.Column("height", sql.Integer, nullable=False),
        sql.Column("created", sql.String(32), nullable=False),
    )
    op.create_table(
        "readers",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("name", sql.String(80), nullable=False, unique=True),
    )
    op.create_table(
        "images",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("path", sql.Text, nullable=False),
        sql.Column("case_id", sql.String(80), nullable=False),
        sql.Column("modality", sql.String(10), nullable=False),
        sql.Column("width", sql.Integer, nullable=False),
        sql.Column("height", sql.Integer, nullable=False),
    )
    op.create_table(
        "items",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("token", sql.String(40), nullable=False, unique=True),
        sql.Column("reader_id", sql.Integer, sql.ForeignKey("readers.id"), nullable=False),
        sql.Column("image_id", sql.Integer, sql.ForeignKey("images.id"), nullable=False),
        sql.Column("session", sql.Integer, nullable=False),
        sql.Column("position", sql.Integer, nullable=False),
        sql.Column("repeat", sql.Boolean, nullable=False),
        sql.Column("offered", sql.String(32)),
        sql.Column("seen", sql.String(32)),
        sql.UniqueConstraint("reader_id", "position"),
    )
    op.create_table(
        "answers",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("item_id", sql.Integer, sql.ForeignKey("items.id"), nullable=False, index=True),
        sql.Column("question", sql.String(40), nullable=False),
        sql.Column("value", sql.Text, nullable=False),
        sql.Column("at", sql.String(32), nullable=False),
        sql.Column("seconds", sql.Float),
    )
