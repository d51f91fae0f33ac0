"""Where a study is kept: its tables.

SQLite unless another URL is given, which may be Postgres. Answers are only ever added: what a reader answered first stays
beside what it was changed to.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sql

from restain.database import Database
from restain.errors import RestainError
from restain.files import make_folder

FILE = "study.sqlite"

TABLES = sql.MetaData(info={"migrations": "restain.review.migrations"})
STUDY = sql.Table(
    "study",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("definition", sql.Text, nullable=False),
    sql.Column("width", sql.Integer, nullable=False),
    sql.Column("height", sql.Integer, nullable=False),
    sql.Column("created", sql.String(32), nullable=False),
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
    sql.Column("modality", sql.String(10), nullable=False),
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
    sql.Column("session", sql.Integer, nullable=False),
    sql.Column("position", sql.Integer, nullable=False),
    sql.Column("repeat", sql.Boolean, nullable=False),
    sql.Column("offered", sql.String(32)),
    sql.Column("seen", sql.String(32)),
    sql.UniqueConstraint("reader_id", "position"),
)
ANSWERS = sql.Table(
    "answers",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("item_id", sql.ForeignKey("items.id"), nullable=False, index=True),
    sql.Column("question", sql.String(40), nullable=False),
    sql.Column("value", sql.Text, nullable=False),
    sql.Column("at", sql.String(32), nullable=False),
    sql.Column("seconds", sql.Float),
)


def make_store(folder: Path, url: str | None) -> Database:
    """The store for a new study; whether it holds one already is for the caller to see.

    Raises:
        RestainError: if the folder cannot be made.
    """
    make_folder(folder)
    # Its own user's alone: the file says which image is which, and who answered what.
    return Database(folder / FILE if url is None else url, TABLES)


def open_store(folder: Path, url: str | None) -> Database:
    """The store of a study that exists.

    Raises:
        RestainError: if there is none.
    """
    if url is not None:
        return Database(url, TABLES)
    path = folder / FILE
    if not path.is_file() or path.stat().st_size == 0:
        raise RestainError(f"{folder} holds no study; 'restain review create' makes one.")
    return Database(path, TABLES)
