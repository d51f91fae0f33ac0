"""Jobs and uploads in the server's database."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sql

from restain.database import Database
from restain.web.database import JOBS, UPLOADS, utc_now
from restain.web.errors import RequestError

MAX_WAITING = 32


class State(StrEnum):
    """State of a job. A ``RUNNING`` job survives a killed server; the next server resumes it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (State.WAITING, State.RUNNING)


@dataclass(frozen=True)
class Job:
    """A job.

    ``source`` and ``name`` are the image's id and name in the library; ``region`` is x, y, width, height in px of level 0;
    ``options`` are ``model`` (hash of the bundle), ``mpp``, ``dab`` and ``everywhere``; ``message`` says why the job failed,
    as a sentence or a key of the catalogue; ``changed`` is the time of the last change of state.
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

    @property
    def over(self) -> bool:
        return self.state not in ACTIVE


class Jobs:
    """The jobs, and the owners of uploads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, owner: str, source: str, name: str, region: list[int] | None, options: dict[str, Any]) -> str:
        """Add a job at the end of the queue and give its id. Raises RequestError 503 if the queue is full."""
        identity, now = secrets.token_hex(8), _now()
        values = {"owner": owner, "source": source, "name": name, "region": region, "options": options}
        insert = JOBS.insert().values(id=identity, created=now, changed=now, state=State.WAITING.value, **values)
        with self._database.write() as connection:
            _check_queue(connection)
            connection.execute(insert)
        return identity

    def get(self, identity: str) -> Job:
        """A job. Raises RequestError 404 if there is none."""
        with self._database.read() as connection:
            row = connection.execute(sql.select(JOBS).where(JOBS.c.id == identity)).first()
        if row is None:
            raise RequestError(404, "error.no_job")
        return _job(row)

    def all(self) -> list[Job]:
        """The running job, the waiting ones in order, then the others, newest first."""
        rank = sql.case({State.RUNNING.value: 0, State.WAITING.value: 1}, value=JOBS.c.state, else_=2)
        queued = sql.case((rank < 2, JOBS.c.changed))
        with self._database.read() as connection:
            rows = connection.execute(sql.select(JOBS).order_by(rank, queued, JOBS.c.changed.desc(), JOBS.c.id))
            return [_job(row) for row in rows]

    def before(self, job: Job) -> int:
        """The number of jobs before a waiting job."""
        earlier = (JOBS.c.changed < job.changed) | ((JOBS.c.changed == job.changed) & (JOBS.c.id < job.id))
        ahead = _in_state(State.RUNNING) | (_in_state(State.WAITING) & earlier)
        with self._database.read() as connection:
            return int(connection.execute(sql.select(sql.func.count()).where(ahead)).scalar_one())

    def take(self) -> Job | None:
        """The next job, now running; first one that ran when a server was killed."""
        with self._database.write() as connection:
            for state in (State.RUNNING, State.WAITING):
                chosen = sql.select(JOBS).where(_in_state(state)).order_by(JOBS.c.changed, JOBS.c.id)
                if (row := connection.execute(chosen.limit(1)).first()) is not None:
                    started = {} if state is State.RUNNING else {"changed": _now()}
                    update = JOBS.update().where(JOBS.c.id == row.id).values(state=State.RUNNING.value, **started)
                    connection.execute(update)
                    return _job(row)
        return None

    def progress(self, identity: str, done: int, total: int) -> bool:
        """Save the progress of a job; False if it shall not run any more."""
        return self._update(identity, (State.RUNNING,), done=done, total=total)

    def end(self, identity: str, state: State, message: str = "") -> None:
        """Save how a running job ended; one that was cancelled meanwhile stays cancelled."""
        self._update(identity, (State.RUNNING,), state=state.value, message=message, changed=_now())

    def cancel(self, identity: str) -> None:
        """Cancel a job; its finished tiles stay. Raises RequestError 404, or 409 if it is over."""
        self._change(identity, ACTIVE, State.CANCELLED, "error.job_over")

    def resume(self, identity: str) -> None:
        """Queue a cancelled or failed job again. Raises RequestError 404, 409, or 503 if the queue is full."""
        self._change(identity, (State.CANCELLED, State.FAILED), State.WAITING, "error.job_active")

    def remove(self, identity: str) -> None:
        """Delete a job that is over. Raises RequestError 404, or 409 if it is active."""
        job = self.get(identity)
        with self._database.write() as connection:
            if connection.execute(JOBS.delete().where((JOBS.c.id == job.id) & ~_in_state(*ACTIVE))).rowcount != 1:
                raise RequestError(409, "error.job_active")

    def entered_mpp(self, source: str) -> tuple[float, str, str] | None:
        """The mpp that was last entered for an image, by whom and when; None if none was."""
        query = sql.select(JOBS.c.options, JOBS.c.owner, JOBS.c.created).where(JOBS.c.source == source)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(JOBS.c.created.desc())).all()
        return next(((row.options["mpp"], row.owner, row.created) for row in rows if row.options["mpp"]), None)

    def uses(self, source: str) -> bool:
        """Whether an active job stains this image."""
        with self._database.read() as connection:
            active = sql.select(JOBS.c.id).where(_in_state(*ACTIVE) & (JOBS.c.source == source))
            return connection.execute(active).first() is not None

    def add_upload(self, identity: str, owner: str, name: str) -> None:
        with self._database.write() as connection:
            connection.execute(UPLOADS.insert().values(id=identity, created=_now(), owner=owner, name=name))

    def uploads_of(self, owner: str) -> set[str]:
        """The ids of an owner's uploads."""
        with self._database.read() as connection:
            return set(connection.execute(sql.select(UPLOADS.c.id).where(UPLOADS.c.owner == owner)).scalars())

    def remove_upload(self, identity: str) -> None:
        with self._database.write() as connection:
            connection.execute(UPLOADS.delete().where(UPLOADS.c.id == identity))

    def _update(self, identity: str, states: tuple[State, ...], **values: Any) -> bool:
        with self._database.write() as connection:
            if values.get("state") == State.WAITING.value:
                _check_queue(connection)
            here = (JOBS.c.id == identity) & _in_state(*states)
            return connection.execute(JOBS.update().where(here).values(**values)).rowcount == 1

    def _change(self, identity: str, states: tuple[State, ...], to: State, refusal: str) -> None:
        self.get(identity)
        if not self._update(identity, states, state=to.value, message="", changed=_now()):
            raise RequestError(409, refusal)


def _in_state(*states: State) -> sql.ColumnElement[bool]:
    return JOBS.c.state.in_([state.value for state in states])


def _check_queue(connection: sql.Connection) -> None:
    waiting = sql.select(sql.func.count()).where(_in_state(State.WAITING))
    if connection.execute(waiting).scalar_one() >= MAX_WAITING:
        raise RequestError(503, "error.queue_full", most=MAX_WAITING)


def _job(row: Any) -> Job:
    values = dict(row._mapping)
    return Job(**values | {"state": State(values["state"])})


def _now() -> str:
    return utc_now("milliseconds")
