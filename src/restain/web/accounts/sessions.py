"""Sessions: which browser is signed in to which account."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import sqlalchemy as sql

from restain.database import Database, StoreFault
from restain.web.accounts.account import Account, Role
from restain.web.accounts.store import VerifiedAccount, account_key
from restain.web.database import ACCOUNTS, SESSIONS

MAX_IDLE, MAX_AGE = timedelta(hours=12), timedelta(days=7)
"""A session ends so long after its last request, and after its beginning."""
_RESOLUTION = timedelta(minutes=1)
"""Resolution of the time of the last request, so that not every tile writes to the database."""
TOKEN_BYTES = 32


class Sessions:
    """Sessions by their token, of which only a digest is stored. They survive a restart of the server."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, verified: VerifiedAccount) -> str | None:
        """The token of a new session, 256 random bits; None if account or password changed since verification."""
        token, now = secrets.token_urlsafe(TOKEN_BYTES), datetime.now(UTC)
        expired = (SESSIONS.c.seen <= _iso(now - MAX_IDLE)) | (SESSIONS.c.created <= _iso(now - MAX_AGE))
        key = account_key(verified.account.name)
        unchanged = (ACCOUNTS.c.key == key) & (ACCOUNTS.c.password == verified.stored)
        with self._database.write() as connection:
            connection.execute(SESSIONS.delete().where(expired))
            if connection.execute(sql.select(ACCOUNTS.c.key).where(unchanged)).first() is None:
                return None
            values = {"account": key, "created": _iso(now), "seen": _iso(now)}
            connection.execute(SESSIONS.insert().values(digest=_digest(token), **values))
        return token

    def account(self, token: str) -> Account | None:
        """The account of a session that has not ended."""
        now, here = datetime.now(UTC), SESSIONS.c.digest == _digest(token)
        query = (
            sql.select(ACCOUNTS.c.name, ACCOUNTS.c.role, SESSIONS.c.created, SESSIONS.c.seen)
            .select_from(SESSIONS.join(ACCOUNTS))
            .where(here)
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        idle, age = (now - datetime.fromisoformat(time) for time in (row.seen, row.created))
        if idle >= MAX_IDLE or age >= MAX_AGE:
            return None
        if idle >= _RESOLUTION:
            # A full disk shortens the session, but does not end it now.
            with contextlib.suppress(StoreFault), self._database.write() as connection:
                connection.execute(SESSIONS.update().where(here).values(seen=_iso(now)))
        return Account(row.name, Role(row.role))

    def end(self, token: str) -> None:
        with self._database.write() as connection:
            connection.execute(SESSIONS.delete().where(SESSIONS.c.digest == _digest(token)))


def _digest(token: str) -> str:
    # All bits of the token are random, so a fast hash without salt is enough.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
