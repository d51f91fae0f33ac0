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

from restain.database.migrate import migrate
from restain.errors import RestainError, needs

WAIT = 30
"""Seconds that a writer waits for another, and a connection for its server."""


class StoreFault(RestainError):  # noqa: N818  (as RestainError)
    """The database does not answer, or refuses: no space, no rights, gone."""


class Database:
    """An open database. A transaction is on disk when its block ends, or leaves no trace.

    ``where`` names it in sentences, without its password. Several processes and machines may hold it open at once.

    Raises:
        RestainError: if the URL is none, or names another kind of database; if it was written by a newer restain.
        StoreFault: if it cannot be opened.
    """

    def __init__(self, place: str | Path, tables: sql.MetaData) -> None:
        """``place``: a URL, or the path of a SQLite file, which is made where it is not there, and is its own user's alone.
        ``tables``: what it holds; their ``info["migrations"]`` is the package with the steps, ``restain.PACKAGE.migrations``.
        """
        if isinstance(place, Path):
            _make_private(place)
            self.url, self.where = sql.URL.create("sqlite", database=str(place)), str(place)
        else:
            self.url = _parsed(place)
            self.where = self.url.render_as_string(hide_password=True)
        self._lock = zlib.crc32(tables.info["migrations"].encode())
        self._engine = self._connected()
        try:
            # The transaction of a writer: two servers that start at once do not both migrate.
            with self._engine.begin() as connection:
                self._take_turn(connection)
                migrate(connection, tables, self.where)
        except sql.exc.DBAPIError as fault:
            self.close()
            raise StoreFault(f"{self.where} cannot be used as a store ({self._words_of(fault)}).") from None
        except BaseException:
            self.close()
            raise

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
            raise StoreFault(f"{self.where} cannot be {what} ({self._words_of(fault)}).") from None

    def _words_of(self, fault: sql.exc.SQLAlchemyError) -> str:
        """What the driver said, in one line and without the password."""
        said = str(getattr(fault, "orig", None) or type(fault).__name__).strip()
        line = said.splitlines()[0] if said else type(fault).__name__
        return line.replace(str(self.url.password), "***") if self.url.password else line


def _make_private(path: Path) -> None:
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise StoreFault(f"{path} cannot be used as a store ({fault.strerror}).") from None
    # Of a file that another user owns, the rights are theirs to choose.
    with contextlib.suppress(PermissionError):
        os.fchmod(handle, 0o600)
    os.close(handle)


def _parsed(url: str) -> sql.URL:
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
