"""The accounts in the server's database."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sql

from restain.database import Database
from restain.errors import RestainError
from restain.web.accounts import passwords
from restain.web.accounts.account import Account, Role
from restain.web.database import ACCOUNTS, SESSIONS, utc_now
from restain.web.errors import RequestError
from restain.web.texts import text

MAX_NAME = 80


@dataclass(frozen=True)
class AccountEntry:
    """An account, when it was created, and in how many browsers it is signed in."""

    account: Account
    created: datetime
    sessions: int


@dataclass(frozen=True)
class VerifiedAccount:
    """An account whose password was verified against the hash ``stored``."""

    account: Account
    stored: str


class NoAccount(RestainError):  # noqa: N818  (as RestainError)
    """There is no account of that name."""


class AccountStore:
    """Accounts by name, whatever the case. A change is on disk when it returns, and ends the account's sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def any(self) -> bool:
        with self._database.read() as connection:
            return connection.execute(sql.select(ACCOUNTS.c.key).limit(1)).first() is not None

    def entries(self) -> list[AccountEntry]:
        """All accounts by name."""
        columns = (ACCOUNTS.c.name, ACCOUNTS.c.role, ACCOUNTS.c.created)
        query = (
            sql.select(*columns, sql.func.count(SESSIONS.c.digest))
            .select_from(ACCOUNTS.outerjoin(SESSIONS))
            .group_by(ACCOUNTS.c.key, *columns)
            .order_by(ACCOUNTS.c.key)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [AccountEntry(Account(name, Role(role)), datetime.fromisoformat(at), n) for name, role, at, n in rows]

    def add(self, name: str, role: Role, password: str) -> Account:
        """Create an account. Raises RestainError if the name is taken, or name or password are not valid."""
        name = unicodedata.normalize("NFC", name.strip())
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise RestainError(f"A name has 1 to {MAX_NAME} printable characters.")
        now = utc_now()
        values = {"name": name, "role": role.value, "password": _hash(password), "created": now, "changed": now}
        try:
            with self._database.write() as connection:
                connection.execute(ACCOUNTS.insert().values(key=account_key(name), **values))
        except sql.exc.IntegrityError:
            raise RestainError(
                f"The account '{name}' exists already; 'restain accounts password' changes its password."
            ) from None
        return Account(name, role)

    def remove(self, name: str) -> None:
        """Remove an account. Raises NoAccount if there is none."""
        self._change(name, ACCOUNTS.delete())

    def set_password(self, name: str, password: str) -> str:
        """Set a password and give its hash. Raises NoAccount, or RestainError if the password is not valid."""
        stored = _hash(password)
        self._change(name, ACCOUNTS.update().values(password=stored, changed=utc_now()))
        return stored

    def verify(self, name: str, password: str) -> VerifiedAccount | None:
        """The account if the password is right. An unknown name takes as long as a wrong password."""
        query = sql.select(ACCOUNTS).where(ACCOUNTS.c.key == account_key(name))
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if not passwords.verify(password, None if row is None else row.password) or row is None:
            return None
        stored = row.password
        if passwords.is_outdated(stored):
            # Not if the password was changed in between.
            here, stored = (
                (ACCOUNTS.c.key == row.key) & (ACCOUNTS.c.password == stored),
                passwords.hash_password(password),
            )
            with self._database.write() as connection:
                connection.execute(ACCOUNTS.update().where(here).values(password=stored))
        return VerifiedAccount(Account(row.name, Role(row.role)), stored)

    def _change(self, name: str, statement: sql.Update | sql.Delete) -> None:
        """Change an account and end its sessions. Raises NoAccount if there is none."""
        key = account_key(name)
        with self._database.write() as connection:
            connection.execute(SESSIONS.delete().where(SESSIONS.c.account == key))
            if connection.execute(statement.where(ACCOUNTS.c.key == key)).rowcount == 0:
                raise NoAccount(f"There is no account '{name[:MAX_NAME]}'; 'restain accounts list' lists all accounts.")


def account_key(name: str) -> str:
    """The name as it is compared: tablets capitalise it, and keyboards compose letters in several ways."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name.strip()).casefold())
    return "".join(one for one in folded if one.isprintable())[:240]


def _hash(password: str) -> str:
    try:
        passwords.check_length(password)
    except RequestError as error:
        raise RestainError(text("en", error.key, **error.values)) from None
    return passwords.hash_password(password)
