"""The accounts of a server."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sql

from restain.database import Database
from restain.errors import RestainError
from restain.web.accounts import passwords
from restain.web.faults import Fault
from restain.web.identity import Account, Role
from restain.web.tables import ACCOUNTS, SESSIONS
from restain.web.texts import text

LONGEST_NAME = 80


@dataclass(frozen=True)
class Entry:
    """An account as a list shows it; ``sessions``: in how many browsers it is signed in."""

    account: Account
    created: datetime
    sessions: int


@dataclass(frozen=True)
class Known:
    """An account whose password was given, and what was kept of that, so that a change in between shows."""

    account: Account
    kept: str


class NoAccount(RestainError):  # noqa: N818  (as RestainError)
    """There is none of that name."""


class Roster:
    """Accounts by name; capitals make no other name. A change is on disk when it returns, and ends the account's sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def any(self) -> bool:
        with self._database.read() as connection:
            return connection.execute(sql.select(ACCOUNTS.c.key).limit(1)).first() is not None

    def entries(self) -> list[Entry]:
        """All of them, by name."""
        count = sql.func.count(SESSIONS.c.digest)
        query = (
            sql.select(ACCOUNTS.c.name, ACCOUNTS.c.role, ACCOUNTS.c.created, count)
            .select_from(ACCOUNTS.outerjoin(SESSIONS))
            .group_by(ACCOUNTS.c.key, ACCOUNTS.c.name, ACCOUNTS.c.role, ACCOUNTS.c.created)
            .order_by(ACCOUNTS.c.key)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Entry(Account(name, Role(role)), datetime.fromisoformat(at), n) for name, role, at, n in rows]

    def add(self, name: str, role: Role, password: str) -> Account:
        """
        Raises:
            RestainError: if there is such a name already, or it or the password is none.
        """
        account, key, kept, now = Account(_name(name), role), key_of(name), _kept(password), _now()
        values = {"name": account.name, "role": role.value, "password": kept, "created": now, "changed": now}
        try:
            with self._database.write() as connection:
                connection.execute(ACCOUNTS.insert().values(key=key, **values))
        except sql.exc.IntegrityError:
            raise RestainError(
                f"There is an account '{account.name}' already; 'restain accounts password' changes its password."
            ) from None
        return account

    def remove(self, name: str) -> None:
        """Raises NoAccount if there is none."""
        with self._database.write() as connection:
            connection.execute(SESSIONS.delete().where(SESSIONS.c.account == key_of(name)))
            if connection.execute(ACCOUNTS.delete().where(ACCOUNTS.c.key == key_of(name))).rowcount == 0:
                raise _unknown(name)

    def set_password(self, name: str, password: str) -> str:
        """What is kept of the password now. Raises NoAccount if there is none, RestainError if it is no password."""
        kept = _kept(password)
        values = {"password": kept, "changed": _now()}
        with self._database.write() as connection:
            connection.execute(SESSIONS.delete().where(SESSIONS.c.account == key_of(name)))
            if (
                connection.execute(ACCOUNTS.update().where(ACCOUNTS.c.key == key_of(name)).values(**values)).rowcount
                == 0
            ):
                raise _unknown(name)
        return kept

    def check(self, name: str, password: str) -> Known | None:
        """The account, if name and password belong together. An unknown name takes as long as a wrong password."""
        query = sql.select(ACCOUNTS).where(ACCOUNTS.c.key == key_of(name))
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if not passwords.fits(password, None if row is None else row.password) or row is None:
            return None
        kept = row.password
        if passwords.outdated(kept):
            # Only if nobody changed it in between.
            here, kept = (ACCOUNTS.c.key == row.key) & (ACCOUNTS.c.password == kept), passwords.hashed(password)
            with self._database.write() as connection:
                connection.execute(ACCOUNTS.update().where(here).values(password=kept))
        return Known(Account(row.name, Role(row.role)), kept)


def key_of(name: str) -> str:
    """The name as it is compared: tablets begin it with a capital, keyboards compose letters in several ways."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name.strip()).casefold())
    return "".join(one for one in folded if one.isprintable())[:240]


def _name(given: str) -> str:
    name = unicodedata.normalize("NFC", given.strip())
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise RestainError(f"A name has 1 to {LONGEST_NAME} printable characters.")
    return name


def _kept(password: str) -> str:
    try:
        passwords.check_length(password)
    except Fault as fault:
        raise RestainError(text("en", fault.key, **fault.values)) from None
    return passwords.hashed(password)


def _unknown(name: str) -> NoAccount:
    return NoAccount(f"There is no account '{name[:LONGEST_NAME]}'; 'restain accounts list' shows those there are.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
