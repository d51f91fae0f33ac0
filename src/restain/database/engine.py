"""One database, with transactions of equal guarantees on SQLite and Postgres."""

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
"""Timeout in seconds of a writer for another writer, and of a connection for its server."""


class StoreFault(RestainError):  # noqa: N818  (as RestainError)
    """The database does not respond or refuses: no space, no permission, deleted."""


class Database:
    """An open database. A transaction is durable when its block ends, or leaves no trace.

    ``where`` names it in messages, without the password. Several processes and machines may have it open at once.

    Raises:
        RestainError: if the URL is invalid or of another kind of database, or a newer restain wrote the database.
        StoreFault: if it cannot be opened.
    """

    def __init__(self, place: str | Path, tables: sql.MetaData) -> None:
        """Open a database.

        Args:
            place: a URL, or the path of a SQLite file, which is created if it does not exist, readable by its user only.
            tables: with the package of their migrations, ``restain.PACKAGE.migrations``, in ``info["migrations"]``.
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
            # As a writer: two servers that start at once do not both migrate.
            with self._engine.begin() as connection:
                self._lock_writers(connection)
                migrate(connection, tables, self.where)
        except sql.exc.DBAPIError as fault:
            self.close()
            raise StoreFault(f"{self.where} cannot be used as a store ({self._message(fault)}).") from None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[sql.Connection]:
        """A transaction that may write, one at a time: nothing that it reads changes until it ends.

        Raises:
            StoreFault: if the database refuses or was deleted.
        """
        with self._translated("written"), self._engine.begin() as connection:
            self._lock_writers(connection)
            yield connection

    @contextmanager
    def read(self) -> Iterator[sql.Connection]:
        """A transaction that reads one state and blocks nobody.

        Raises:
            StoreFault: if the database refuses or was deleted.
        """
        with self._translated("read"), self._engine.connect() as connection:
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

    def _lock_writers(self, connection: sql.Connection) -> None:
        if not self._lite:
            # As BEGIN IMMEDIATE of SQLite; released with the transaction, even if the process is killed.
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(self._lock)))

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sql.exc.IntegrityError, sql.exc.DataError, sql.exc.ProgrammingError):
            # Errors of the statement, not of the database.
            raise
        except (sql.exc.DBAPIError, sql.exc.TimeoutError) as fault:
            raise StoreFault(f"{self.where} cannot be {what} ({self._message(fault)}).") from None

    def _message(self, fault: sql.exc.SQLAlchemyError) -> str:
        """The message of the driver, in one line and without the password."""
        message = str(getattr(fault, "orig", None) or type(fault).__name__).strip()
        line = message.splitlines()[0] if message else type(fault).__name__
        return line.replace(str(self.url.password), "***") if self.url.password else line


def _make_private(path: Path) -> None:
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise StoreFault(f"{path} cannot be used as a store ({fault.strerror}).") from None
    # Another user's file keeps its permissions.
    with contextlib.suppress(PermissionError):
        os.fchmod(handle, 0o600)
    os.close(handle)


def _parsed(url: str) -> sql.URL:
    example = "an example is postgresql+psycopg://user:password@host/restain"
    try:
        parsed = sql.make_url(url)
    except (sql.exc.ArgumentError, ValueError):
        # The URL is not repeated: it may contain a password.
        raise RestainError(f"The URL of the database is invalid; {example}.") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise RestainError(f"Unsupported database '{parsed.drivername}'; use SQLite or Postgres: {example}.")
    return parsed


def _strict(connection: Any, _record: Any) -> None:
    """Make SQLite writes durable, check foreign keys, and let SQLAlchemy begin transactions instead of the driver."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sql.Connection) -> None:
    # Writers lock at once: one that begins by reading would fail if another wrote in between.
    reads = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
