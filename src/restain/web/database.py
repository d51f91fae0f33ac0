"""Tables of the server's database. Times are UTC in ISO 8601, so that they sort as text."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sql

from restain.database import Database

FILE = "restain.sqlite"
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
    # The name in the form that is compared (account_key).
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
    # SHA-256 of the token in the browser's cookie.
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
    # The account's name, empty without accounts. No reference: a job outlives its account.
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


def open_database(state: Path, url: str | None = None) -> Database:
    """The SQLite file in ``state``, or the database of ``url``.

    Raises:
        RestainError: if it cannot be opened, or was written by a newer restain.
    """
    return Database(state / FILE if url is None else url, TABLES)


def utc_now(timespec: str = "seconds") -> str:
    return datetime.now(UTC).isoformat(timespec=timespec)
