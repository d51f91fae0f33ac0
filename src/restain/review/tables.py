"""Tables of a study. Answers are only added: the first answer stays beside those that replaced it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from restain.database import Database
from restain.errors import RestainError
from restain.files import make_folder
from restain.review.definition import Modality

FILE = "study.sqlite"


class Time(sql.TypeDecorator[datetime]):
    """A UTC time as ISO 8601 text, which sorts by time."""

    impl = sql.String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sql.Dialect) -> str | None:
        return None if value is None else value.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: sql.Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


TABLES = sql.MetaData(info={"migrations": "restain.review.migrations"})
STUDY = sql.Table(
    "study",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("definition", sql.Text, nullable=False),
    sql.Column("width", sql.Integer, nullable=False),
    sql.Column("height", sql.Integer, nullable=False),
    sql.Column("created", Time, nullable=False),
)
READERS = sql.Table(
    "readers",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(80), nullable=False, unique=True),
)
IMAGES = sql.Table(
    "images",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("path", sql.Text, nullable=False),
    sql.Column("case_id", sql.String(80), nullable=False),
    sql.Column("modality", sql.Enum(Modality, native_enum=False, length=10, values_callable=list), nullable=False),
    sql.Column("width", sql.Integer, nullable=False),
    sql.Column("height", sql.Integer, nullable=False),
)
ITEMS = sql.Table(
    "items",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("token", sql.String(40), nullable=False, unique=True),
    sql.Column("reader_id", sql.ForeignKey("readers.id"), nullable=False),
    sql.Column("image_id", sql.ForeignKey("images.id"), nullable=False),
    # The name in the database is that of older studies.
    sql.Column("session", sql.Integer, key="part", nullable=False),
    sql.Column("position", sql.Integer, nullable=False),
    sql.Column("repeat", sql.Boolean, nullable=False),
    sql.Column("offered", Time),
    sql.Column("seen", Time),
    sql.UniqueConstraint("reader_id", "position"),
)
ANSWERS = sql.Table(
    "answers",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("item_id", sql.ForeignKey("items.id"), nullable=False, index=True),
    sql.Column("question", sql.String(40), nullable=False),
    sql.Column("value", sql.Text, nullable=False),
    sql.Column("at", Time, nullable=False),
    sql.Column("seconds", sql.Float),
)


def create_database(folder: Path, url: str | None) -> Database:
    """The database of a new study: ``folder/study.sqlite``, or that of ``url``.

    Raises:
        RestainError: if the folder or the database cannot be created.
    """
    make_folder(folder)
    return Database(folder / FILE if url is None else url, TABLES)


def open_database(folder: Path, url: str | None) -> Database:
    """The database of an existing study.

    Raises:
        RestainError: if there is none.
    """
    if url is not None:
        return Database(url, TABLES)
    path = folder / FILE
    if not path.is_file() or path.stat().st_size == 0:
        raise RestainError(NO_STUDY.format(folder))
    return Database(path, TABLES)


NO_STUDY = "{} holds no study; create one with 'restain review create'."
