"""The API of the review page: the next item, an earlier one, answers, tiles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from restain.review import Item, Study
from restain.web.accounts.account import account_of
from restain.web.errors import RequestError
from restain.web.grid import TileNumber
from restain.web.review.studies import Studies, reader_errors
from restain.web.review.tiles import StudyTiles
from restain.web.security import read_body

MAX_BODY = 1 << 20
MAX_SKIPPED = 1000
MAX_VIEW_S = 86_400.0
_HEADERS = {"Cache-Control": "no-store"}


class _NextBody(BaseModel):
    model_config = ConfigDict(strict=True)
    without: Annotated[list[str], Field(max_length=MAX_SKIPPED)] = []


class _AnswerBody(BaseModel):
    model_config = ConfigDict(strict=True)
    value: str
    replaces: list[str | None]
    seconds: Annotated[float, Field(ge=0, le=MAX_VIEW_S, allow_inf_nan=False)]


Body = TypeVar("Body", bound=BaseModel)


def api_routes(studies: Studies, tiles: StudyTiles) -> APIRouter:
    """The routes under ``/api/review``. Addresses hold only a study's id and a reader's own tokens."""
    router = APIRouter(prefix="/api/review/{identity}")

    def study_of(request: Request, identity: str) -> tuple[Study, str]:
        served, reader = studies.get(identity, account_of(request))
        return served.study, reader

    # A POST, since an item that is shown counts as seen.
    @router.post("/next")
    async def next_item(request: Request, identity: str) -> Response:
        body = await _parse(request, _NextBody)

        def find() -> Response:
            study, reader = study_of(request, identity)
            with reader_errors():
                item = study.next_item(reader, without=body.without)
                return _item_response(study, reader, item, bool(body.without))

        return await run_in_threadpool(find)

    @router.post("/{token}/open")
    def open_item(request: Request, identity: str, token: str) -> Response:
        study, reader = study_of(request, identity)
        with reader_errors():
            return _item_response(study, reader, study.item(reader, token), False)

    @router.put("/{token}/answers/{question}")
    async def answer(request: Request, identity: str, token: str, question: str) -> Response:
        body = await _parse(request, _AnswerBody)

        def save() -> Response:
            study, reader = study_of(request, identity)
            with reader_errors():
                answers = study.record(
                    reader, token, question, body.value, seconds=body.seconds, replaces=body.replaces
                )
            return JSONResponse({"answers": answers}, headers=_HEADERS)

        return await run_in_threadpool(save)

    @router.get("/{token}/tiles/{level}/{column}/{row}.jpg")
    def tile(
        request: Request, identity: str, token: str, level: TileNumber, column: TileNumber, row: TileNumber
    ) -> Response:
        study, reader = study_of(request, identity)
        data = tiles.tile(study, reader, token, level, column, row)
        return Response(data, media_type="image/jpeg", headers=_HEADERS)

    return router


async def _parse(request: Request, model: type[Body]) -> Body:
    try:
        return model.model_validate_json(await read_body(request, MAX_BODY))
    except ValidationError:
        raise RequestError(400, "review.error_answer") from None


def _item_response(study: Study, reader: str, item: Item | None, skipped: bool) -> Response:
    """The item, or why there is none."""
    progress = study.progress(reader)
    content: dict[str, Any] = {"done": progress.done, "total": progress.total, "trail": study.offered(reader)}
    if item is not None:
        content |= {"state": "item", "token": item.token, "number": item.number, "answers": item.answers}
    elif progress.finished:
        content["state"] = "finished"
    elif progress.next_at is None and skipped:
        content["state"] = "blocked"
    else:
        # Without a time, the washout ended between the two queries.
        opens = progress.next_at or datetime.now(UTC)
        content |= {"state": "waiting", "opens": opens.isoformat(timespec="seconds")}
    return JSONResponse(content, headers=_HEADERS)
