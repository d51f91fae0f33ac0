"""The application: pages, API and static files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from restain.web import api, pages, review
from restain.web.accounts import routes as accounts
from restain.web.accounts.authentication import Authentication
from restain.web.annotations import AnnotationStore
from restain.web.cases import Cases
from restain.web.database import open_database
from restain.web.errors import RequestError
from restain.web.library import Library
from restain.web.security import path_of, security_middleware
from restain.web.settings import Settings
from restain.web.texts import language_of, text
from restain.web.tiles import Tiles


def create_app(settings: Settings) -> FastAPI:
    """The application for one folder. ``state.sections`` holds the title and address of each section of pages.

    Raises:
        RestainError: if the database cannot be opened, or accounts are required and there is none.
    """
    state = settings.state_folder
    library = Library(settings.folder, state, ("uploads", "stained"))
    tiles, cases = Tiles(library, state), Cases(library.root)
    made_here = sorted(path.parent for path in (state / "studies").glob("*/study.sqlite"))
    studies, study_tiles = review.Studies([*settings.studies, *made_here]), review.StudyTiles()
    database = open_database(state, settings.database)
    authentication = Authentication(database, required=settings.public)

    staining = None
    if settings.models:
        # Reading bundles takes seconds to import.
        from restain.web.staining.routes import Staining

        staining = Staining(settings, library, tiles, database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if staining is not None:
            staining.queue.start()
        yield
        if staining is not None:
            await run_in_threadpool(staining.queue.stop)
        for one in (tiles, study_tiles, studies, database):
            one.close()

    app = FastAPI(title="restain", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.sections = [("nav.library", "/")]
    middleware = security_middleware(settings.hosts, authentication, error_response)
    app.add_middleware(BaseHTTPMiddleware, dispatch=middleware)
    app.include_router(accounts.routes(authentication))
    app.include_router(api.routes(library, tiles, AnnotationStore(database), show_labels=settings.show_labels))
    if staining is not None:
        app.state.sections.append(("nav.staining", "/stain"))
        app.include_router(staining.routes())
    app.include_router(review.page_routes(studies, settings))
    app.include_router(review.api_routes(studies, study_tiles))
    app.include_router(review.manage_routes(studies, settings, library, authentication.accounts))
    app.state.sections.append(("nav.review", "/review"))

    @app.get("/")
    def library_page(request: Request) -> Response:
        return pages.library_page(request, library, tiles, cases)

    @app.get("/cohort/{name:path}")
    def cohort(name: str) -> Response:
        path = cases.report_file(name)
        if path is None or not library.contains(path):
            raise RequestError(404, "error.no_page")
        # A report of restain cohort has its own styles, and no script.
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
        return FileResponse(path, headers={"Content-Security-Policy": policy})

    @app.get("/view/{identity}")
    def viewer(request: Request, identity: str) -> Response:
        return pages.viewer_page(request, library.get(identity), library, tiles, settings.show_labels)

    static = Path(str(resources.files("restain.web").joinpath("static")))
    app.mount("/static", StaticFiles(directory=static), name="static")

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return error_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        in_path = any(one["loc"][0] == "path" for one in error.errors())
        return error_response(
            request, RequestError(404, "error.no_tile") if in_path else RequestError(400, "error.number")
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        key = "error.method" if error.status_code == 405 else "error.no_page"
        return error_response(request, RequestError(error.status_code, key))

    return app


def error_response(request: Request, error: RequestError) -> Response:
    """The error as a page where a browser requested a page, else as JSON with one sentence."""
    if not path_of(request).startswith(("/api/", "/static/")) and request.method == "GET":
        return pages.error_page(request, error)
    sentence = text(language_of(request), error.key, **error.values)
    return JSONResponse({"error": sentence}, error.status, headers={"Cache-Control": "no-store"})
