"""The addresses of the room."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from restain.web.reading import pages
from restain.web.reading.api import api_routes
from restain.web.reading.pictures import Pictures
from restain.web.reading.studies import Studies


def routes(studies: Studies, pictures: Pictures, folder: Path) -> APIRouter:
    """Pages under ``/review``, and what their scripts ask for under ``/api/review``; ``folder`` is the one that is served."""
    router = APIRouter()

    @router.get("/review")
    def review(request: Request) -> Response:
        return pages.review_page(request, studies, folder)

    @router.get("/review/{identity}")
    def reading(request: Request, identity: str) -> Response:
        return pages.reading_page(request, studies, identity)

    router.include_router(api_routes(studies, pictures))
    return router
