"""A study that is being read: what a reader sees next, and what they answered. All its state is in the store.

A reader's page gets an :class:`Item`: a random token, the study's questions and the reader's own answers, and, through the token,
pixels. Tokens are drawn by :mod:`secrets`, one for every showing, so neither order nor repeats nor another reader's
items can be told from them; all images are shown at one size, the smallest width and height in the study, so size says
nothing either.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from PIL import Image

from restain.database import Database
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.review import store as db
from restain.review.definition import Modality, Question, StudyDefinition, parse_definition
from restain.review.faults import AnsweredSince, ItemClosed, NoSuchItem
from restain.slides import open_slide

MOST_PIXELS = 100_000_000
"""Pixels of an image that :meth:`Study.picture` decodes whole; larger ones are slides, read region by region."""

NOT_THERE = "There is no such item for this reader."
CLOSED = "This item is closed; its answers can no longer be changed."


@dataclass(frozen=True)
class Item:
    """What a page needs to ask: nothing in it tells where the image comes from.

    ``answers`` are the reader's own so far, by the question's name; ``number`` counts showings from 1.
    """

    token: str
    questions: tuple[Question, ...]
    answers: dict[str, str]
    number: int
    total: int
    size: Size


@dataclass(frozen=True)
class Progress:
    """Where a reader stands. ``next_at`` is when the washout ends, where nothing can be read before; else ``None``."""

    done: int
    total: int
    next_at: datetime | None

    @property
    def finished(self) -> bool:
        return self.done == self.total


@dataclass(frozen=True)
class Reading:
    """One showing, for the analysis: the last answer to each question of those that were answered."""

    reader: str
    case: str
    modality: Modality
    session: int
    repeat: bool
    answers: dict[str, str]
    offered: datetime | None
    complete: bool


@dataclass(frozen=True)
class Answer:
    """One answer as it was given, the changed ones too; ``seconds`` since the image was shown."""

    reader: str
    case: str
    modality: Modality
    session: int
    repeat: bool
    question: str
    value: str
    at: datetime
    seconds: float | None


@dataclass
class _Showing:
    """A row of ``items`` with what belongs to it."""

    id: int
    token: str
    case: str
    modality: Modality
    session: int
    position: int
    repeat: bool
    offered: datetime | None
    touched: datetime | None
    """When the reader last saw or answered it."""
    seen: datetime | None
    path: Path
    size: Size
    answers: dict[str, str] = field(default_factory=dict)


class Study:
    """An open study; a context manager. Several processes and machines may hold it open at once."""

    def __init__(self, store: Database) -> None:
        self._store = store
        with store.read() as connection:
            row = connection.execute(sql.select(db.STUDY)).first()
            readers = connection.execute(sql.select(db.READERS.c.name, db.READERS.c.id)).all()
        if row is None:
            raise RestainError(f"{store.where} holds no study; 'restain review create' makes one.")
        self.definition: StudyDefinition = parse_definition(_loaded(row.definition), store.where)
        self.size = Size(row.width, row.height)
        """At which every image is shown, in px of level 0."""
        self._readers: dict[str, int] = {name: number for name, number in readers}
        self._needed = {question.name for question in self.definition.questions if question.needed}
        self._washout = timedelta(days=self.definition.washout_days)

    @classmethod
    def open(cls, folder: Path, url: str | None = None) -> Study:
        """The study of a folder, or of a database that has one.

        Raises:
            RestainError: if there is none, or it cannot be read.
        """
        store = db.open_store(folder, url)
        try:
            return cls(store)
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._store.close()

    @property
    def readers(self) -> tuple[str, ...]:
        return self.definition.readers

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of all images, in no order that a reader sees."""
        with self._store.read() as connection:
            return tuple(Path(path) for path in connection.execute(sql.select(db.IMAGES.c.path)).scalars())

    @property
    def id(self) -> str:
        """A name for addresses. It follows from the tokens, so it is the same wherever the folder lies and tells nothing."""
        with self._store.read() as connection:
            tokens = connection.execute(sql.select(db.ITEMS.c.token).order_by(db.ITEMS.c.id)).scalars()
            return hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:20]

    def next_item(self, reader: str, now: datetime | None = None, without: Collection[str] = ()) -> Item | None:
        """What the reader is to see now; the same again until it is complete. ``None``: finished, or waiting for the washout.

        The first session is read to its end before the second begins. An image whose case the reader saw in the other
        modality is not offered before the washout has passed since they last saw or answered that one.

        Args:
            reader: a name of the study.
            now: with a time zone; the clock's time where it is not given. It is what the washout is held against.
            without: tokens to pass over for now, since their images cannot be shown; they stay open.

        Raises:
            RestainError: if the study has no such reader.
        """
        now = moment(now)
        with self._store.write() as connection:
            showings = self._showings(connection, reader)
            now = _onward(now, showings)
            left = [one for one in self._open(showings) if one.token not in without]
            found = next((one for one in left if self._due(one, showings) <= now), None)
            if found is None:
                return None
            self._look(connection, found, now)
        return self._item(found, len(showings))

    def item(self, reader: str, token: str, now: datetime | None = None) -> Item:
        """An item that the reader was offered before, to look at again or to change.

        Raises:
            RestainError: if it is none of the reader's, or closed since they saw the case in the other modality.
        """
        with self._store.write() as connection:
            showings = self._showings(connection, reader)
            found = self._find(showings, token)
            self._look(connection, found, _onward(moment(now), showings))
        return self._item(found, len(showings))

    def offered(self, reader: str) -> tuple[str, ...]:
        """Tokens of the session at hand (the last, where all is read) that the reader was offered and can change, in order.

        Raises:
            RestainError: if the study has no such reader.
        """
        with self._store.read() as connection:
            showings = self._showings(connection, reader)
        left = self._open(showings)
        session = left[0].session if left else max(one.session for one in showings)
        return tuple(
            one.token
            for one in showings
            if one.session == session and one.offered is not None and not _closed(one, showings)
        )

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
        """Keep an answer; when this returns it is on the disk. A further answer to the same question is kept beside the first and counts.

        The answer that counts already is not kept again, so whoever heard nothing may send it once more.

        Args:
            reader: a name of the study.
            token: of an item that was offered to this reader.
            question: its name.
            value: one of its choices, or text.
            now: with a time zone; the clock's time where it is not given.
            seconds: how long the reader looked, where the page measured; else the time since the item was shown.
            replaces: answers that the caller knows of, ``None`` for no answer: where another one counts, given on another
                machine, this one is late and refused. Not given: it replaces any.

        Returns:
            All answers to the item that count now.

        Raises:
            RestainError: :class:`NoSuchItem` if the token is none of the reader's, :class:`ItemClosed` if they saw the case
                in the other modality since, :class:`NoAnswer` if the value is no answer to the question,
                :class:`AnsweredSince`. Nothing is kept then.
        """
        now, value = moment(now), self.definition.question(question).check(value)
        with self._store.write() as connection:
            showings = self._showings(connection, reader)
            found, now = self._find(showings, token), _onward(now, showings)
            counts = found.answers.get(question)
            if counts == value:
                # They saw the image all the same, which the washout counts from.
                self._look(connection, found, now)
                return dict(found.answers)
            if replaces is not None and counts not in replaces:
                raise AnsweredSince(f"'{question}' was answered elsewhere since; the later answer counts.")
            if seconds is None and found.seen is not None:
                seconds = max(0.0, (now - found.seen).total_seconds())
            values = {"item_id": found.id, "question": question, "value": value, "at": written(now), "seconds": seconds}
            connection.execute(db.ANSWERS.insert().values(**values))
        return found.answers | {question: value}

    def progress(self, reader: str, now: datetime | None = None) -> Progress:
        """Raises RestainError if the study has no such reader."""
        now = moment(now)
        with self._store.read() as connection:
            showings = self._showings(connection, reader)
        due = [self._due(one, showings) for one in self._open(showings)]
        done = sum(self._complete(one) for one in showings)
        return Progress(done, len(showings), min(due) if due and min(due) > now else None)

    def view(self, reader: str, token: str) -> tuple[Path, Region]:
        """For the server, never for a page: the file behind a token and its middle, of the study's size, in px of level 0.

        Raises:
            RestainError: as :meth:`item` does.
        """
        if reader not in self._readers:
            raise RestainError(f"The study has no reader '{reader[:80]}'.")
        # Asked for with every tile, so not by way of all showings.
        images = db.ITEMS.join(db.IMAGES)
        own = (db.ITEMS.c.reader_id == self._readers[reader]) & db.ITEMS.c.offered.is_not(None)
        sought = sql.select(db.ITEMS.c.position, db.IMAGES).select_from(images).where(own, db.ITEMS.c.token == token)
        with self._store.read() as connection:
            # A database may refuse to compare what no token can hold.
            found = connection.execute(sought).first() if token.isascii() and token.isprintable() else None
            if found is None:
                raise NoSuchItem(NOT_THERE)
            other = (db.IMAGES.c.case_id == found.case_id) & (db.IMAGES.c.modality != found.modality)
            since = own & other & (db.ITEMS.c.position > found.position)
            if connection.execute(sql.select(db.ITEMS.c.id).select_from(images).where(since).limit(1)).first():
                raise ItemClosed(CLOSED)
        left, top = (found.width - self.size.width) // 2, (found.height - self.size.height) // 2
        return Path(found.path), Region(Point(left, top), self.size)

    def picture(self, reader: str, token: str) -> bytes:
        """The image behind a token as PNG of the study's size, without any metadata.

        Raises:
            RestainError: as :meth:`item` does; if the image cannot be read, was exchanged for one of another size, or is a slide of more than
                100 megapixels.
        """
        path, region = self.view(reader, token)
        try:
            with open_slide(path, header_only=True) as slide:
                if slide.size.width * slide.size.height > MOST_PIXELS:
                    raise RestainError("it is a slide, which is read region by region")
                pixels = slide.whole()[region.slices]
        except RestainError as fault:
            # The sentence may name the file, and a page may show the sentence.
            raise RestainError(
                "This image cannot be shown as one picture; whoever made the study must look."
            ) from fault
        if pixels.shape[:2] != (self.size.height, self.size.width):
            raise RestainError("This image has changed since the study began; whoever made the study must look.")
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def readings(self) -> list[Reading]:
        """Every showing that was begun, by reader, in the reader's order."""
        found = []
        with self._store.read() as connection:
            for reader in self.readers:
                for one in self._showings(connection, reader):
                    if one.offered is not None:
                        facts = (reader, one.case, one.modality, one.session, one.repeat, one.answers, one.offered)
                        found.append(Reading(*facts, complete=self._complete(one)))
        return found

    def answers(self) -> list[Answer]:
        """Every answer that was ever given, in the order in which they were."""
        query = (
            sql.select(
                db.READERS.c.name, db.IMAGES.c.case_id, db.IMAGES.c.modality, db.ITEMS.c.session, db.ITEMS.c.repeat,
                db.ANSWERS.c.question, db.ANSWERS.c.value, db.ANSWERS.c.at, db.ANSWERS.c.seconds,
            )
            .select_from(db.ANSWERS.join(db.ITEMS).join(db.READERS).join(db.IMAGES))
            .order_by(db.ANSWERS.c.id)
        )  # fmt: skip
        with self._store.read() as connection:
            rows = connection.execute(query).all()
        return [
            Answer(
                name, case, Modality(modality), session, repeat, question, value, datetime.fromisoformat(at), seconds
            )
            for name, case, modality, session, repeat, question, value, at, seconds in rows
        ]

    def _showings(self, connection: sql.Connection, reader: str) -> list[_Showing]:
        if reader not in self._readers:
            raise RestainError(f"The study has no reader '{reader[:80]}'.")
        own = db.ITEMS.c.reader_id == self._readers[reader]
        images = (db.IMAGES.c.path, db.IMAGES.c.case_id, db.IMAGES.c.modality, db.IMAGES.c.width, db.IMAGES.c.height)
        query = sql.select(db.ITEMS, *images).join(db.IMAGES).where(own).order_by(db.ITEMS.c.position)
        found = {row.id: _showing(row) for row in connection.execute(query)}
        given = sql.select(db.ANSWERS).join(db.ITEMS).where(own).order_by(db.ANSWERS.c.id)
        for row in connection.execute(given):
            one, at = found[row.item_id], datetime.fromisoformat(row.at)
            one.answers[row.question] = row.value
            one.touched = at if one.touched is None else max(one.touched, at)
        return list(found.values())

    def _open(self, showings: list[_Showing]) -> list[_Showing]:
        """Those of the session at hand that are not complete."""
        left = [one for one in showings if not self._complete(one)]
        return [one for one in left if one.session == left[0].session]

    def _complete(self, showing: _Showing) -> bool:
        return self._needed <= showing.answers.keys()

    def _due(self, showing: _Showing, showings: list[_Showing]) -> datetime:
        others = [one.touched for one in _opposites(showing, showings) if one.touched is not None]
        return max(others) + self._washout if others else datetime.min.replace(tzinfo=UTC)

    def _find(self, showings: list[_Showing], token: str) -> _Showing:
        found = next((one for one in showings if secrets.compare_digest(one.token.encode(), token.encode())), None)
        if found is None or found.offered is None:
            raise NoSuchItem(NOT_THERE)
        if _closed(found, showings):
            raise ItemClosed(CLOSED)
        return found

    def _item(self, showing: _Showing, total: int) -> Item:
        questions = self.definition.questions
        return Item(showing.token, questions, dict(showing.answers), showing.position + 1, total, self.size)

    def _look(self, connection: sql.Connection, showing: _Showing, now: datetime) -> None:
        times = {"seen": written(now), "offered": written(showing.offered or now)}
        connection.execute(db.ITEMS.update().where(db.ITEMS.c.id == showing.id).values(**times))


def _onward(now: datetime, showings: list[_Showing]) -> datetime:
    """A clock that went back is not believed: no reader does a thing before what they did last."""
    return max([now, *(one.touched for one in showings if one.touched is not None)])


def _opposites(showing: _Showing, showings: list[_Showing]) -> list[_Showing]:
    return [one for one in showings if one.case == showing.case and one.modality is not showing.modality]


def _closed(showing: _Showing, showings: list[_Showing]) -> bool:
    opposites = _opposites(showing, showings)
    return any(one.offered is not None and one.position > showing.position for one in opposites)


def _showing(row: Any) -> _Showing:
    offered, seen = (None if time is None else datetime.fromisoformat(time) for time in (row.offered, row.seen))
    return _Showing(
        row.id, row.token, row.case_id, Modality(row.modality), row.session, row.position, row.repeat, offered, seen, seen,
        Path(row.path), Size(row.width, row.height),
    )  # fmt: skip


def _loaded(text: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text)
    return values


def moment(now: datetime | None) -> datetime:
    """A time in UTC, the clock's where none is given; ValueError if it has no zone."""
    if now is None:
        return datetime.now(UTC)
    if now.tzinfo is None:
        raise ValueError("a time needs its zone")
    return now.astimezone(UTC)


def written(time: datetime) -> str:
    """A time as the store keeps it, which sorts as text."""
    return time.isoformat(timespec="microseconds")
