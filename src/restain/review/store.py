"""Where a study is kept: tables, and the steps that bring an older store to them.

SQLite unless another URL is given; the statements are SQLAlchemy's, so that Postgres can hold them. Answers are only ever
added: what a reader answered first stays beside what it was changed to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from restain.errors import RestainError

FILE = "study.sqlite"

_T = sql.MetaData()
META = sql.Table("meta", _T, sql.Column("schema_version", sql.Integer, nullable=False))
STUDY = sql.Table(
    "study",
    _T,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("definition", sql.Text, nullable=False),
    sql.Column("width", sql.Integer, nullable=False),
    sql.Column("height", sql.Integer, nullable=False),
    sql.Column("created", sql.String(32), nullable=False),
)
READERS = sql.Table(
    "readers",
    _T,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(80), nullable=False, unique=True),
)
IMAGES = sql.Table(
    "images",
    _T,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("path", sql.Text, nullable=False),
    sql.Column("case_id", sql.String(80), nullable=False),
    sql.Column("modality", sql.String(10), nullable=False),
    sql.Column("width", sql.Integer, nullable=False),
    sql.Column("height", sql.Integer, nullable=False),
)
ITEMS = sql.Table(
    "items",
    _T,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("token", sql.String(40), nullable=False, unique=True),
    sql.Column("reader_id", sql.ForeignKey("readers.id"), nullable=False),
    sql.Column("image_id", sql.ForeignKey("images.id"), nullable=False),
    sql.Column("session", sql.Integer, nullable=False),
    sql.Column("position", sql.Integer, nullable=False),
    sql.Column("repeat", sql.Boolean, nullable=False),
    sql.Column("offered", sql.String(32)),
    sql.Column("seen", sql.String(32)),
    sql.UniqueConstraint("reader_id", "position"),
)
ANSWERS = sql.Table(
    "answers",
    _T,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("item_id", sql.ForeignKey("items.id"), nullable=False, index=True),
    sql.Column("question", sql.String(40), nullable=False),
    sql.Column("value", sql.Text, nullable=False),
    sql.Column("at", sql.String(32), nullable=False),
    sql.Column("seconds", sql.Float),
)


def _first(connection: sql.Connection) -> None:
    _T.create_all(connection)


STEPS: tuple[Callable[[sql.Connection], None], ...] = (_first,)
"""What brings a store from version ``n`` to ``n + 1``; a step that has shipped is never changed, a new one is added."""


class Store:
    """An open store. A transaction is on disk when its block ends, or leaves no trace.

    Raises:
        RestainError: if the store cannot be opened, or was written by a newer restain.
    """

    def __init__(self, url: str, where: str) -> None:
        self.where = where
        lite = url.startswith("sqlite")
        self._engine = sql.create_engine(url, **({"connect_args": {"timeout": 30}} if lite else {}))
        if lite:
            sql.event.listen(self._engine, "connect", _strict)
            sql.event.listen(self._engine, "begin", _begin)
        try:
            self._migrate()
        except sql.exc.SQLAlchemyError as fault:
            self._engine.dispose()
            words = str(getattr(fault, "orig", None) or type(fault).__name__)
            raise RestainError(f"{where} cannot be used as a study's store ({words}).") from None

    @classmethod
    def in_folder(cls, folder: Path) -> Store:
        path = folder / FILE
        return cls(f"sqlite:///{path}", str(path))

    @contextmanager
    def write(self) -> Iterator[sql.Connection]:
        """A transaction that may write; others wait for its end.

        Raises:
            RestainError: if the store refuses (no space, no rights, gone).
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sql.exc.OperationalError as fault:
            raise RestainError(f"{self.where} cannot be written ({fault.orig}).") from None

    @contextmanager
    def read(self) -> Iterator[sql.Connection]:
        """A transaction that reads one state and holds up nobody."""
        try:
            with self._engine.connect().execution_options(reads_only=True) as connection:
                yield connection
        except sql.exc.OperationalError as fault:
            raise RestainError(f"{self.where} cannot be read ({fault.orig}).") from None

    def close(self) -> None:
        self._engine.dispose()

    def _migrate(self) -> None:
        with self._engine.begin() as connection:
            fresh = not sql.inspect(connection).has_table(META.name)
            version = 0 if fresh else int(connection.execute(sql.select(META.c.schema_version)).scalar_one())
            if version > len(STEPS):
                raise RestainError(
                    f"{self.where} was written by a newer restain (schema {version}, this one knows {len(STEPS)})."
                )
            for step in STEPS[version:]:
                step(connection)
            if fresh:
                connection.execute(META.insert().values(schema_version=len(STEPS)))
            elif version < len(STEPS):
                connection.execute(META.update().values(schema_version=len(STEPS)))


def make_store(folder: Path, url: str | None) -> Store:
    """The store for a new study; whether it holds one already is for the caller to see.

    Raises:
        RestainError: if the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise RestainError(f"{folder} cannot be made ({fault.strerror}).") from None
    if url is None:
        try:
            # Its own user's alone: the file says which image is which, and who answered what.
            os.close(os.open(folder / FILE, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as fault:
            raise RestainError(f"{folder / FILE} cannot be made ({fault.strerror}).") from None
    return Store.in_folder(folder) if url is None else Store(url, _nameless(url))


def open_store(folder: Path, url: str | None) -> Store:
    """The store of a study that exists.

    Raises:
        RestainError: if there is none.
    """
    if url is not None:
        return Store(url, _nameless(url))
    if not (folder / FILE).is_file() or (folder / FILE).stat().st_size == 0:
        raise RestainError(f"{folder} holds no study; 'restain review create' makes one.")
    return Store.in_folder(folder)


def _nameless(url: str) -> str:
    try:
        return sql.engine.make_url(url).render_as_string(hide_password=True)
    except sql.exc.ArgumentError:
        raise RestainError("The store's URL is none; an example is postgresql+psycopg://user@host/study.") from None


def _strict(connection: Any, _record: Any) -> None:
    """SQLite as a store of answers: a write is on the disk when it is done; SQLAlchemy, not the driver, begins."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sql.Connection) -> None:
    # A writer takes its place at once: one that began by reading would fail when another wrote in between.
    reads = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
