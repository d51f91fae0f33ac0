"""A study while it is read: which item a reader sees next, and what they answered. All state is in the database.

A page gets an :class:`Item`: a random token and the reader's own answers, and through the token, pixels. Every item has
its own token from :mod:`secrets`, so order, repeats and the items of other readers cannot be inferred. All images are
shown at one size, the smallest width and height in the study.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sql

from restain.database import Database
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.review import tables as db
from restain.review.definition import Modality, StudyDefinition, parse_definition
from restain.review.errors import AnswerConflict, ItemClosed, UnknownItem

_UNKNOWN = "There is no such item for this reader."
_CLOSED = "This item is closed; its answers can no longer be changed."


@dataclass(frozen=True)
class Item:
    """What a page shows; nothing in it depends on the modality. ``number`` counts the reader's items from 1."""

    token: str
    answers: dict[str, str]
    """The reader's current answers by name of the question."""
    number: int
    total: int


@dataclass(frozen=True)
class Progress:
    """How far a reader is. ``next_at`` is the end of the washout if nothing can be read before it."""

    done: int
    total: int
    next_at: datetime | None

    @property
    def finished(self) -> bool:
        return self.done == self.total


@dataclass(frozen=True)
class Reading:
    """One item for the analysis, with the current answers."""

    reader: str
    case: str
    modality: Modality
    part: int
    repeat: bool
    answers: dict[str, str]
    offered: datetime | None
    complete: bool


@dataclass(frozen=True)
class Answer:
    """One answer as given, replaced ones included; ``seconds`` is the time since the image was shown."""

    reader: str
    case: str
    modality: Modality
    part: int
    repeat: bool
    question: str
    value: str
    at: datetime
    seconds: float | None


@dataclass
class _State:
    """An item of a reader with its case and answers."""

    id: int
    token: str
    part: int
    position: int
    repeat: bool
    offered: datetime | None
    seen: datetime | None
    case: str
    modality: Modality
    answers: dict[str, str] = field(default_factory=dict)
    last_used: datetime | None = None
    """When the reader last saw or answered it."""

    def __post_init__(self) -> None:
        self.last_used = self.seen


class Study:
    """An open study; a context manager. Several processes and machines may hold it open at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._load()

    def _load(self) -> None:
        database = self._database
        with database.read() as connection:
            row = connection.execute(sql.select(db.STUDY)).first()
            readers = connection.execute(sql.select(db.READERS.c.name, db.READERS.c.id)).all()
        if row is None:
            raise RestainError(db.NO_STUDY.format(database.where))
        self.definition: StudyDefinition = parse_definition(json.loads(row.definition), database.where)
        self.size = Size(row.width, row.height)
        """Size of every image as shown, in level-0 px."""
        self._readers: dict[str, int] = {name: number for name, number in readers}
        self._needed = {question.name for question in self.definition.questions if question.needed}
        self._washout = timedelta(days=self.definition.washout_days)

    @classmethod
    def open(cls, folder: Path, url: str | None = None) -> Study:
        """The study of a folder, or of a database.

        Raises:
            RestainError: if there is none, or it cannot be read.
        """
        database = db.open_database(folder, url)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def add_reader(self, name: str) -> None:
        """Add a reader. Raises RestainError if the name is not valid, or is a reader's already."""
        from restain.review.create import add_reader

        add_reader(self._database, self.definition, name)
        self._load()

    @property
    def readers(self) -> tuple[str, ...]:
        return self.definition.readers

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of all images."""
        with self._database.read() as connection:
            return tuple(Path(path) for path in connection.execute(sql.select(db.IMAGES.c.path)).scalars())

    @property
    def id(self) -> str:
        """A hash of the tokens, for addresses; it does not depend on where the study is stored."""
        with self._database.read() as connection:
            tokens = connection.execute(sql.select(db.ITEMS.c.token).order_by(db.ITEMS.c.id)).scalars()
            return hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:20]

    def next_item(self, reader: str, now: datetime | None = None, without: Collection[str] = ()) -> Item | None:
        """The item to read now, the same until it is complete; ``None`` if finished, or during the washout.

        The second part begins when the first is complete. An image is offered only after the washout, counted from
        when the reader last saw or answered its case in the other modality.

        Args:
            reader: a reader of the study.
            now: with a time zone; default: the current time.
            without: tokens to skip, whose images cannot be shown; they stay incomplete.

        Raises:
            RestainError: if the study has no such reader.
        """
        now = utc(now)
        with self._database.write() as connection:
            items = self._items(connection, reader)
            now = _monotonic(now, items)
            left = [one for one in self._current(items) if one.token not in without]
            found = next((one for one in left if self._due(one, items) <= now), None)
            if found is not None:
                _mark_seen(connection, found, now)
        return None if found is None else Item(found.token, found.answers, found.position + 1, len(items))

    def item(self, reader: str, token: str, now: datetime | None = None) -> Item:
        """An item that was offered before, to see again or to change.

        Raises:
            RestainError: :class:`UnknownItem` or :class:`ItemClosed`.
        """
        with self._database.write() as connection:
            items = self._items(connection, reader)
            found = _find(items, token)
            _mark_seen(connection, found, _monotonic(utc(now), items))
        return Item(found.token, found.answers, found.position + 1, len(items))

    def offered(self, reader: str) -> tuple[str, ...]:
        """Tokens of the current part (the last one if all is read) that were offered and can be changed, in order.

        Raises:
            RestainError: if the study has no such reader.
        """
        with self._database.read() as connection:
            items = self._items(connection, reader)
        left = self._current(items)
        part = left[0].part if left else max(one.part for one in items)
        own = (one for one in items if one.part == part and one.offered is not None)
        return tuple(one.token for one in own if not _is_closed(one, items))

    def record(
        self,
        reader: str,
        token: str,
        question: str,
        value: str,
        now: datetime | None = None,
        seconds: float | None = None,
        *,
        replaces: Collection[str | None] | None = None,
    ) -> dict[str, str]:
        """Store an answer durably. A further answer to a question is stored beside the first and becomes the current one.

        Repeating the current answer stores nothing, so a request may be sent again.

        Args:
            reader: a reader of the study.
            token: an item that was offered to this reader.
            question: name of the question.
            value: one of its choices, or text.
            now: with a time zone; default: the current time.
            seconds: time that the reader looked; default: the time since the item was shown.
            replaces: answers known to the caller, ``None`` for no answer. If another one is current, given on another
                machine, this one is refused. Default: replace any.

        Returns:
            The current answers to the item.

        Raises:
            RestainError: :class:`UnknownItem`, :class:`ItemClosed`, :class:`InvalidAnswer` or :class:`AnswerConflict`.
        """
        now, value = utc(now), self.definition.question(question).check(value)
        with self._database.write() as connection:
            items = self._items(connection, reader)
            found, now = _find(items, token), _monotonic(now, items)
            current = found.answers.get(question)
            if current == value:
                # The reader saw the image again, which restarts the washout.
                _mark_seen(connection, found, now)
                return found.answers
            if replaces is not None and current not in replaces:
                raise AnswerConflict(f"'{question}' was answered elsewhere in the meantime; that answer is kept.")
            if seconds is None and found.seen is not None:
                seconds = max(0.0, (now - found.seen).total_seconds())
            values = {"item_id": found.id, "question": question, "value": value, "at": now, "seconds": seconds}
            connection.execute(db.ANSWERS.insert().values(**values))
        return found.answers | {question: value}

    def progress(self, reader: str, now: datetime | None = None) -> Progress:
        """Raises RestainError if the study has no such reader."""
        now = utc(now)
        with self._database.read() as connection:
            items = self._items(connection, reader)
        due = min((self._due(one, items) for one in self._current(items)), default=now)
        return Progress(sum(map(self._is_complete, items)), len(items), due if due > now else None)

    def view(self, reader: str, token: str) -> tuple[Path, Region]:
        """The file behind a token and its shown region in level-0 px, for the server only.

        Raises:
            RestainError: as :meth:`item`.
        """
        # Called for every tile, hence a query of its own.
        images = db.ITEMS.join(db.IMAGES)
        own = (db.ITEMS.c.reader_id == self._reader(reader)) & db.ITEMS.c.offered.is_not(None)
        query = sql.select(db.ITEMS.c.position, db.IMAGES).select_from(images).where(own, db.ITEMS.c.token == token)
        with self._database.read() as connection:
            # A database may refuse to compare characters that no token has.
            found = connection.execute(query).first() if token.isascii() and token.isprintable() else None
            if found is None:
                raise UnknownItem(_UNKNOWN)
            other = (db.IMAGES.c.case_id == found.case_id) & (db.IMAGES.c.modality != found.modality)
            later = own & other & (db.ITEMS.c.position > found.position)
            if connection.execute(sql.select(db.ITEMS.c.id).select_from(images).where(later).limit(1)).first():
                raise ItemClosed(_CLOSED)
        left, top = (found.width - self.size.width) // 2, (found.height - self.size.height) // 2
        return Path(found.path), Region(Point(left, top), self.size)

    def readings(self) -> list[Reading]:
        """Every item that was offered, by reader, in reading order."""
        with self._database.read() as connection:
            return [
                Reading(
                    reader, one.case, one.modality, one.part, one.repeat, one.answers, one.offered, self._is_complete(one)
                )
                for reader in self.readers
                for one in self._items(connection, reader)
                if one.offered is not None
            ]  # fmt: skip

    def answers(self) -> list[Answer]:
        """Every answer that was given, in order of time."""
        query = (
            sql.select(
                db.READERS.c.name, db.IMAGES.c.case_id, db.IMAGES.c.modality, db.ITEMS.c.part, db.ITEMS.c.repeat,
                db.ANSWERS.c.question, db.ANSWERS.c.value, db.ANSWERS.c.at, db.ANSWERS.c.seconds,
            )
            .select_from(db.ANSWERS.join(db.ITEMS).join(db.READERS).join(db.IMAGES))
            .order_by(db.ANSWERS.c.id)
        )  # fmt: skip
        with self._database.read() as connection:
            return [Answer(*row) for row in connection.execute(query)]

    def _reader(self, name: str) -> int:
        if name not in self._readers:
            raise RestainError(f"The study has no reader '{name[:80]}'.")
        return self._readers[name]

    def _items(self, connection: sql.Connection, reader: str) -> list[_State]:
        own = db.ITEMS.c.reader_id == self._reader(reader)
        query = sql.select(
            *db.ITEMS.c["id", "token", "part", "position", "repeat", "offered", "seen"],
            db.IMAGES.c.case_id.label("case"),
            db.IMAGES.c.modality,
        )
        rows = connection.execute(query.join(db.IMAGES).where(own).order_by(db.ITEMS.c.position))
        found = {row.id: _State(*row) for row in rows}
        for row in connection.execute(sql.select(db.ANSWERS).join(db.ITEMS).where(own).order_by(db.ANSWERS.c.id)):
            one = found[row.item_id]
            one.answers[row.question] = row.value
            one.last_used = max(one.last_used or row.at, row.at)
        return list(found.values())

    def _current(self, items: list[_State]) -> list[_State]:
        """Incomplete items of the current part."""
        left = [one for one in items if not self._is_complete(one)]
        return [one for one in left if one.part == left[0].part]

    def _is_complete(self, item: _State) -> bool:
        return self._needed <= item.answers.keys()

    def _due(self, item: _State, items: list[_State]) -> datetime:
        used = [one.last_used for one in _other_modality(item, items) if one.last_used is not None]
        return max(used) + self._washout if used else datetime.min.replace(tzinfo=UTC)


def _find(items: list[_State], token: str) -> _State:
    found = next((one for one in items if secrets.compare_digest(one.token.encode(), token.encode())), None)
    if found is None or found.offered is None:
        raise UnknownItem(_UNKNOWN)
    if _is_closed(found, items):
        raise ItemClosed(_CLOSED)
    return found


def _mark_seen(connection: sql.Connection, item: _State, now: datetime) -> None:
    times = {"seen": now, "offered": item.offered or now}
    connection.execute(db.ITEMS.update().where(db.ITEMS.c.id == item.id).values(**times))


def _monotonic(now: datetime, items: list[_State]) -> datetime:
    """The time, never before the reader's last action, should the clock have been set back."""
    return max([now, *(one.last_used for one in items if one.last_used is not None)])


def _other_modality(item: _State, items: list[_State]) -> list[_State]:
    return [one for one in items if one.case == item.case and one.modality is not item.modality]


def _is_closed(item: _State, items: list[_State]) -> bool:
    return any(one.offered is not None and one.position > item.position for one in _other_modality(item, items))


def utc(time: datetime | None) -> datetime:
    """A time in UTC; default: the current time. Raises ValueError if it has no time zone."""
    if time is None:
        return datetime.now(UTC)
    if time.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return time.astimezone(UTC)
