"""Who is signed in, in which browser."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import sqlalchemy as sql

from restain.database import Database, StoreFault
from restain.web.accounts.roster import Known, key_of
from restain.web.identity import Account, Role
from restain.web.tables import ACCOUNTS, SESSIONS

IDLE, WHOLE = timedelta(hours=12), timedelta(days=7)
"""A session ends so long after its last request, and after its beginning."""
_COARSE = timedelta(minutes=1)
"""The last request is kept no finer, so that not every tile is a write."""
TOKEN_BYTES = 32


class Sessions:
    """Sessions by their token, of which only a digest is kept; a restart of the server keeps them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, known: Known) -> str | None:
        """The token of a new session: 256 random bits. ``None`` if account or password are no longer what they were."""
        token, now = secrets.token_urlsafe(TOKEN_BYTES), datetime.now(UTC)
        over = (SESSIONS.c.seen <= _written(now - IDLE)) | (SESSIONS.c.created <= _written(now - WHOLE))
        key = key_of(known.account.name)
        here = (ACCOUNTS.c.key == key) & (ACCOUNTS.c.password == known.kept)
        with self._database.write() as connection:
            connection.execute(SESSIONS.delete().where(over))
            if connection.execute(sql.select(ACCOUNTS.c.key).where(here)).first() is None:
                return None
            values = {"account": key, "created": _written(now), "seen": _written(now)}
            connection.execute(SESSIONS.insert().values(digest=_digest(token), **values))
        return token

    def account(self, token: str) -> Account | None:
        """Whose session it is, if it has not ended."""
        now = datetime.now(UTC)
        query = (
            sql.select(ACCOUNTS.c.name, ACCOUNTS.c.role, SESSIONS.c.created, SESSIONS.c.seen)
            .select_from(SESSIONS.join(ACCOUNTS))
            .where(SESSIONS.c.digest == _digest(token))
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        idle, whole = (now - datetime.fromisoformat(time) for time in (row.seen, row.created))
        if idle >= IDLE or whole >= WHOLE:
            return None
        if idle >= _COARSE:
            # A full disk shortens the session, and keeps nobody out now.
            with contextlib.suppress(StoreFault), self._database.write() as connection:
                here = SESSIONS.c.digest == _digest(token)
                connection.execute(SESSIONS.update().where(here).values(seen=_written(now)))
        return Account(row.name, Role(row.role))

    def end(self, token: str) -> None:
        with self._database.write() as connection:
            connection.execute(SESSIONS.delete().where(SESSIONS.c.digest == _digest(token)))


def _digest(token: str) -> str:
    # The token is random as a whole, so that a fast hash without salt is enough.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _written(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
