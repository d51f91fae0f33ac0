"""What was asked for and how far it is: the jobs in the server's database."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sql

from restain.database import Database
from restain.web.faults import Fault
from restain.web.tables import JOBS, UPLOADS

MOST_WAITING = 32


class State(StrEnum):
    """Of a job. ``RUNNING`` outlives a server that was killed: the next one goes on with it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Job:
    """``source`` and ``name`` are the image's id and its place in the library; ``region`` is x, y, width, height in px of
    level 0; ``options`` are ``model`` (the bundle's hash), ``mpp``, ``dab`` and ``everywhere``; ``message`` says why it failed,
    as a sentence or a key of the catalogue. ``changed`` is when the state last changed; times are UTC, ISO 8601.
    """

    id: str
    created: str
    changed: str
    state: State
    owner: str
    source: str
    name: str
    region: list[int] | None
    options: dict[str, Any]
    message: str
    done: int
    total: int


class Jobs:
    """The table of jobs, and whose uploads are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, owner: str, source: str, name: str, region: list[int] | None, options: dict[str, Any]) -> str:
        """Put a job at the end of the queue; its id.

        Raises:
            Fault: 503, if the queue is full.
        """
        identity, now = secrets.token_hex(8), _now()
        with self._database.write() as connection:
            self._room(connection)
            connection.execute(
                JOBS.insert().values(
                    id=identity,
                    created=now,
                    changed=now,
                    state=State.WAITING.value,
                    owner=owner,
                    source=source,
                    name=name,
                    region=region,
                    options=options,
                )
            )
        return identity

    def get(self, identity: str) -> Job:
        """A job.

        Raises:
            Fault: 404, if there is none.
        """
        with self._database.read() as connection:
            row = connection.execute(sql.select(JOBS).where(JOBS.c.id == identity)).first()
        if row is None:
            raise Fault(404, "fault.no_job")
        return _job(row)

    def all(self) -> list[Job]:
        """What runs, then what waits in its order, then the rest, the newest first."""
        rank = sql.case({State.RUNNING.value: 0, State.WAITING.value: 1}, value=JOBS.c.state, else_=2)
        queued = sql.case((rank < 2, JOBS.c.changed))
        with self._database.read() as connection:
            rows = connection.execute(sql.select(JOBS).order_by(rank, queued, JOBS.c.changed.desc(), JOBS.c.id))
            return [_job(row) for row in rows]

    def before(self, job: Job) -> int:
        """How many come before a job that waits."""
        with self._database.read() as connection:
            ahead = (JOBS.c.state == State.RUNNING.value) | (
                (JOBS.c.state == State.WAITING.value)
                & ((JOBS.c.changed < job.changed) | ((JOBS.c.changed == job.changed) & (JOBS.c.id < job.id)))
            )
            return int(connection.execute(sql.select(sql.func.count()).where(ahead)).scalar_one())

    def take(self) -> Job | None:
        """The next job, which runs from now on; one that ran when a server was killed comes first."""
        with self._database.write() as connection:
            for state in (State.RUNNING, State.WAITING):
                chosen = sql.select(JOBS).where(JOBS.c.state == state.value).order_by(JOBS.c.changed, JOBS.c.id)
                if (row := connection.execute(chosen.limit(1)).first()) is not None:
                    begun = {} if state is State.RUNNING else {"changed": _now()}
                    here = JOBS.c.id == row.id
                    connection.execute(JOBS.update().where(here).values(state=State.RUNNING.value, **begun))
                    return _job(row)
        return None

    def progress(self, identity: str, done: int, total: int) -> bool:
        """Keep how far a running job is; False where it shall not run any more."""
        with self._database.write() as connection:
            here = (JOBS.c.id == identity) & (JOBS.c.state == State.RUNNING.value)
            return connection.execute(JOBS.update().where(here).values(done=done, total=total)).rowcount == 1

    def end(self, identity: str, state: State, message: str = "") -> None:
        """Say how a running job ended; one that was cancelled meanwhile stays so."""
        with self._database.write() as connection:
            here = (JOBS.c.id == identity) & (JOBS.c.state == State.RUNNING.value)
            connection.execute(JOBS.update().where(here).values(state=state.value, message=message, changed=_now()))

    def cancel(self, identity: str) -> None:
        """Let a job not go on; what it made stays.

        Raises:
            Fault: 404 or, if it is over, 409.
        """
        self._change(identity, (State.WAITING, State.RUNNING), State.CANCELLED, "fault.job_over")

    def resume(self, identity: str) -> None:
        """Put a job that was cancelled or failed at the end of the queue.

        Raises:
            Fault: 404; 409, if it is neither; 503, if the queue is full.
        """
        self._change(identity, (State.CANCELLED, State.FAILED), State.WAITING, "fault.job_active")

    def remove(self, identity: str) -> None:
        """Forget a job that is over.

        Raises:
            Fault: 404; 409, if it waits or runs.
        """
        job = self.get(identity)
        over = JOBS.c.state.not_in([State.WAITING.value, State.RUNNING.value])
        with self._database.write() as connection:
            if connection.execute(JOBS.delete().where((JOBS.c.id == job.id) & over)).rowcount != 1:
                raise Fault(409, "fault.job_active")

    def uses(self, source: str) -> bool:
        """Whether a job that waits or runs stains this image."""
        with self._database.read() as connection:
            active = JOBS.c.state.in_([State.WAITING.value, State.RUNNING.value]) & (JOBS.c.source == source)
            return connection.execute(sql.select(JOBS.c.id).where(active)).first() is not None

    def uploaded(self, identity: str, owner: str, name: str) -> None:
        """Keep whose an upload is."""
        with self._database.write() as connection:
            connection.execute(UPLOADS.insert().values(id=identity, created=_now(), owner=owner, name=name))

    def uploads_of(self, owner: str) -> dict[str, str]:
        """Names of an owner's uploads by their id."""
        with self._database.read() as connection:
            rows = connection.execute(sql.select(UPLOADS).where(UPLOADS.c.owner == owner))
            return {row.id: row.name for row in rows}

    def forget_upload(self, identity: str) -> None:
        with self._database.write() as connection:
            connection.execute(UPLOADS.delete().where(UPLOADS.c.id == identity))

    def _change(self, identity: str, states: tuple[State, ...], to: State, refusal: str) -> None:
        self.get(identity)
        with self._database.write() as connection:
            if to is State.WAITING:
                self._room(connection)
            here = (JOBS.c.id == identity) & JOBS.c.state.in_([one.value for one in states])
            changed = connection.execute(
                JOBS.update().where(here).values(state=to.value, message="", changed=_now())
            ).rowcount
            if changed != 1:
                raise Fault(409, refusal)

    def _room(self, connection: sql.Connection) -> None:
        waiting = sql.select(sql.func.count()).where(JOBS.c.state == State.WAITING.value)
        if connection.execute(waiting).scalar_one() >= MOST_WAITING:
            raise Fault(503, "fault.queue_full", most=MOST_WAITING)


def _job(row: Any) -> Job:
    values = dict(row._mapping)
    return Job(**values | {"state": State(values["state"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
