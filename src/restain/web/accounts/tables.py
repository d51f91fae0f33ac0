"""The tables of accounts and sessions, as the steps in ``web/migrations`` make them. Times are in UTC, ISO 8601."""

from __future__ import annotations

import sqlalchemy as sql

_T = sql.MetaData()
ACCOUNTS = sql.Table(
    "accounts",
    _T,
    sql.Column("key", sql.String(240), primary_key=True),
    sql.Column("name", sql.String(80), nullable=False),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("password", sql.Text, nullable=False),
    sql.Column("created", sql.String(32), nullable=False),
    sql.Column("changed", sql.String(32), nullable=False),
)
SESSIONS = sql.Table(
    "sessions",
    _T,
    sql.Column("digest", sql.String(64), primary_key=True),
    sql.Column("account", sql.ForeignKey("accounts.key", ondelete="CASCADE"), nullable=False, index=True),
    sql.Column("created", sql.String(32), nullable=False),
    sql.Column("seen", sql.String(32), nullable=False),
)
