"""The queue of stainings, on SQLite and on Postgres."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")

from restain.web.database import open_database
from restain.web.errors import RequestError
from restain.web.staining.jobs import MAX_WAITING, Jobs, State


@pytest.fixture
def jobs(url: str, tmp_path: Path) -> Iterator[Jobs]:
    with closing(open_database(tmp_path, url)) as database:
        yield Jobs(database)


def test_a_full_queue_refuses(jobs: Jobs):
    for _ in range(MAX_WAITING):
        jobs.add("", "a", "a.png", None, {})
    with pytest.raises(RequestError) as full:
        jobs.add("", "a", "a.png", None, {})
    assert (full.value.status, full.value.key) == (503, "error.queue_full")
    taken = jobs.take()
    assert taken is not None
    jobs.end(taken.id, State.FAILED, "no")
    jobs.add("", "b", "b.png", None, {})
    with pytest.raises(RequestError):
        jobs.resume(taken.id)


def test_a_job_that_ran_comes_first_and_the_rest_in_order(jobs: Jobs):
    ids = [jobs.add("", "a", "a.png", None, {}) for _ in range(3)]
    order = [job.id for job in jobs.all()]
    assert sorted(order) == sorted(ids)
    first = jobs.take()
    again = jobs.take()
    assert first is not None
    assert again is not None
    assert first.id == again.id == order[0]
    jobs.end(first.id, State.DONE)
    second = jobs.take()
    assert second is not None
    assert second.id == order[1]
    jobs.cancel(second.id)
    assert not jobs.progress(second.id, 5, 10)
    jobs.end(second.id, State.DONE)
    assert jobs.get(second.id).state is State.CANCELLED
    third, *ended = jobs.all()
    assert (third.id, third.state) == (order[2], State.WAITING)
    assert {job.id for job in ended} == set(order[:2])
    assert ended[0].changed >= ended[1].changed
