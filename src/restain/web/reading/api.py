"""What the reading page asks for: the next item, an earlier one, tiles; and answers that it brings."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from restain.review import Item, Study
from restain.web.asked import whole
from restain.web.faults import Fault
from restain.web.identity import account_of
from restain.web.reading.pictures import Pictures
from restain.web.reading.studies import Studies, told_to_readers
from restain.web.security import read_body

MOST_BYTES = 1 << 20
MOST_PASSED_OVER = 1000
LONGEST_LOOK = 86_400.0
"""Seconds; a page that claims more is not believed."""
_HEADERS = {"Cache-Control": "no-store"}


def api_routes(studies: Studies, pictures: Pictures) -> APIRouter:
    """The routes under ``/api/review``. All that an address names is a study's id and a token of the reader's own."""
    router = APIRouter(prefix="/api/review/{identity}")

    def mine(request: Request, identity: str) -> tuple[Study, str]:
        one, reader = studies.get(identity, account_of(request))
        return one.study, reader

    # A POST, since what is shown counts as seen.
    @router.post("/next")
    async def next_item(request: Request, identity: str) -> Response:
        content = await _content(request)
        without = content.get("without", [])
        if not _texts(without) or len(without) > MOST_PASSED_OVER:
            raise Fault(400, "review.fault_answer")

        def look() -> Response:
            study, reader = mine(request, identity)
            with told_to_readers():
                item = study.next_item(reader, without=without)
                return _json(_shown(study, reader, item, bool(without)))

        return await run_in_threadpool(look)

    @router.post("/{token}/open")
    def open_item(request: Request, identity: str, token: str) -> Response:
        study, reader = mine(request, identity)
        with told_to_readers():
            return _json(_shown(study, reader, study.item(reader, token), False))

    @router.put("/{token}/answers/{question}")
    async def answer(request: Request, identity: str, token: str, question: str) -> Response:
        content = await _content(request)
        value, replaces, seconds = (content.get(key) for key in ("value", "replaces", "seconds"))
        right = isinstance(value, str) and _texts(replaces, or_none=True) and _seconds(seconds)
        if not right or not isinstance(value, str) or not isinstance(replaces, list):
            raise Fault(400, "review.fault_answer")

        def keep() -> Response:
            study, reader = mine(request, identity)
            with told_to_readers():
                answers = study.record(reader, token, question, value, seconds=seconds, replaces=replaces)
            return _json({"answers": answers})

        return await run_in_threadpool(keep)

    @router.get("/{token}/tiles/{level}/{column}/{row}.jpg")
    def tile(request: Request, identity: str, token: str, level: str, column: str, row: str) -> Response:
        study, reader = mine(request, identity)
        data = pictures.tile(study, reader, token, whole(level), whole(column), whole(row))
        return Response(data, media_type="image/jpeg", headers=_HEADERS)

    return router


def _shown(study: Study, reader: str, item: Item | None, passed_over: bool) -> dict[str, Any]:
    """What a page gets: the item, or why there is none."""
    progress = study.progress(reader)
    about: dict[str, Any] = {"done": progress.done, "total": progress.total, "trail": study.offered(reader)}
    if item is not None:
        about |= {"state": "item", "token": item.token, "number": item.number, "answers": item.answers}
    elif progress.finished:
        about |= {"state": "finished"}
    elif progress.next_at is not None:
        about |= {"state": "waiting", "opens": progress.next_at.isoformat(timespec="seconds")}
    elif passed_over:
        about |= {"state": "blocked"}
    else:
        # The washout ended between the two looks.
        about |= {"state": "waiting", "opens": datetime.now(UTC).isoformat(timespec="seconds")}
    return about


def _json(content: dict[str, Any]) -> Response:
    return JSONResponse(content, headers=_HEADERS)


async def _content(request: Request) -> dict[str, Any]:
    try:
        content = json.loads(await read_body(request, MOST_BYTES))
    except (ValueError, RecursionError):
        raise Fault(400, "review.fault_answer") from None
    if not isinstance(content, dict):
        raise Fault(400, "review.fault_answer")
    return content


def _texts(value: object, *, or_none: bool = False) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) or (or_none and one is None) for one in value)


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_LOOK
