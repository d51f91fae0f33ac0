"""The tables of the server's store. Times are in UTC, ISO 8601, so that they sort as text."""

from __future__ import annotations

import sqlalchemy as sql

TABLES = sql.MetaData(info={"migrations": "restain.web.migrations"})

ANNOTATIONS = sql.Table(
    "annotations",
    TABLES,
    sql.Column("image", sql.String(64), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("changed", sql.String(32), nullable=False),
    sql.Column("features", sql.Text, nullable=False),
)
ACCOUNTS = sql.Table(
    "accounts",
    TABLES,
    # The name as it is compared: without case, since tablets begin a name with a capital.
    sql.Column("key", sql.String(240), primary_key=True),
    sql.Column("name", sql.String(80), nullable=False),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("password", sql.Text, nullable=False),
    sql.Column("created", sql.String(32), nullable=False),
    sql.Column("changed", sql.String(32), nullable=False),
)
SESSIONS = sql.Table(
    "sessions",
    TABLES,
    # SHA-256 of the token that the browser holds.
    sql.Column("digest", sql.String(64), primary_key=True),
    sql.Column("account", sql.ForeignKey("accounts.key", ondelete="CASCADE"), nullable=False, index=True),
    sql.Column("created", sql.String(32), nullable=False),
    sql.Column("seen", sql.String(32), nullable=False),
)
JOBS = sql.Table(
    "jobs",
    TABLES,
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
UPLOADS = sql.Table(
    "uploads",
    TABLES,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("created", sql.String(32), nullable=False),
    sql.Column("owner", sql.String(80), nullable=False),
    sql.Column("name", sql.Text, nullable=False),
)
