"""One database, and transactions that promise the same on SQLite and on Postgres."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from restain.database.faults import StoreFault, words_of
from restain.database.migrate import migrate
from restain.errors import RestainError, needs

WAIT = 30
"""Seconds that a writer waits for another, and a connection for its server."""


class Database:
    """An open database. A transaction is on disk when its block ends, or leaves no trace.

    ``where`` names it in sentences, without its password. Several processes and machines may hold it open at once.

    Raises:
        RestainError: if the URL is none, or names another kind of database; if it was written by a newer restain.
        StoreFault: if it cannot be opened.
    """

    def __init__(self, url: str | sql.URL, migrations: str, where: str | None = None) -> None:
        """``migrations``: the package with the steps that make the tables, ``restain.ROOM.migrations``."""
        self.url = _parsed(url)
        self.where = where or self.url.render_as_string(hide_password=True)
        self._lock = zlib.crc32(migrations.encode())
        self._engine = self._connected()
        try:
            # The transaction of a writer: two servers that start at once do not both migrate.
            with self._engine.begin() as connection:
                self._take_turn(connection)
                migrate(connection, migrations, self.where)
        except sql.exc.DBAPIError as fault:
            self.close()
            raise StoreFault(f"{self.where} cannot be used as a store ({words_of(fault, self.url)}).") from None
        except BaseException:
            self.close()
            raise

    @classmethod
    def in_file(cls, path: Path, migrations: str) -> Database:
        """SQLite in a file, which is made where it is not there, and is its own user's alone.

        Raises:
            RestainError: as the class.
        """
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise StoreFault(f"{path} cannot be used as a store ({fault.strerror}).") from None
        # Of a file that another user owns, the rights are theirs to choose.
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, 0o600)
        os.close(handle)
        return cls(sql.URL.create("sqlite", database=str(path)), migrations, str(path))

    @contextmanager
    def write(self) -> Iterator[sql.Connection]:
        """A transaction that may write. One at a time: what it reads stays so until its end.

        Raises:
            StoreFault: if the database refuses or is gone.
        """
        with self._told("written"), self._engine.begin() as connection:
            self._take_turn(connection)
            yield connection

    @contextmanager
    def read(self) -> Iterator[sql.Connection]:
        """A transaction that reads one state and holds up nobody.

        Raises:
            StoreFault: if the database refuses or is gone.
        """
        with self._told("read"), self._engine.connect() as connection:
            options: dict[str, Any] = {"reads_only": True}
            if not self._lite:
                options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            yield connection.execution_options(**options)

    def close(self) -> None:
        self._engine.dispose()

    @property
    def _lite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def _connected(self) -> sql.Engine:
        if not self._lite:
            with needs("postgres", self.where):
                # A connection that the server dropped is replaced before it is used.
                return sql.create_engine(self.url, pool_pre_ping=True, connect_args={"connect_timeout": WAIT})
        engine = sql.create_engine(self.url, connect_args={"timeout": WAIT})
        sql.event.listen(engine, "connect", _strict)
        sql.event.listen(engine, "begin", _begin)
        return engine

    def _take_turn(self, connection: sql.Connection) -> None:
        if not self._lite:
            # What BEGIN IMMEDIATE is to SQLite; it ends with the transaction, also when its process is killed.
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(self._lock)))

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sql.exc.IntegrityError, sql.exc.DataError, sql.exc.ProgrammingError):
            # Of the statement, not of the database.
            raise
        except (sql.exc.DBAPIError, sql.exc.TimeoutError) as fault:
            raise StoreFault(f"{self.where} cannot be {what} ({words_of(fault, self.url)}).") from None


def _parsed(url: str | sql.URL) -> sql.URL:
    example = "an example is postgresql+psycopg://user:password@host/restain"
    try:
        parsed = sql.make_url(url)
    except (sql.exc.ArgumentError, ValueError):
        # Not the URL itself: it may hold a password.
        raise RestainError(f"The database's URL is none; {example}.") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise RestainError(f"A database of {parsed.drivername} is neither SQLite nor Postgres; {example}.")
    return parsed


def _strict(connection: Any, _record: Any) -> None:
    """SQLite as a store of answers: a write is on the disk when it is done; SQLAlchemy, not the driver, begins."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sql.Connection) -> None:
    # A writer takes its place at once: one that began by reading would fail when another wrote in between.
    reads = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
