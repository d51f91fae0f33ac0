"""The application: pages, API and static files, behind one guard."""

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
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from restain.web import api, pages, reading
from restain.web.accounts import routes as accounts
from restain.web.accounts.gate import Gate
from restain.web.faults import Fault
from restain.web.library import Library
from restain.web.reading import Pictures, Studies
from restain.web.security import guard
from restain.web.settings import Settings
from restain.web.store import Store
from restain.web.texts import language_of, text
from restain.web.tiles import Tiles


def create_app(settings: Settings) -> FastAPI:
    """The application for one folder; each room adds its routes, and its page to ``state.rooms``.

    Raises:
        RestainError: if the store cannot be opened; if others reach the server, and there is no account.
    """
    library = Library(settings.folder, {name: settings.state / name for name in ("uploads", "stained")})
    tiles = Tiles(library, settings.state)
    studies, pictures = Studies(settings.studies), Pictures()
    store = Store(settings.state, settings.database)
    gate = Gate(store.database, needed=settings.accounts)

    staining = None
    if settings.models:
        # Not without a model: what reads bundles takes seconds to load.
        from restain.web.staining.room import Staining

        staining = Staining(settings, library, tiles, store.database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if staining is not None:
            staining.queue.start()
        yield
        if staining is not None:
            await run_in_threadpool(staining.queue.stop)
        tiles.close()
        pictures.close()
        studies.close()
        store.close()

    app = FastAPI(title="restain", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.rooms = [("nav.library", "/")]
    app.add_middleware(BaseHTTPMiddleware, dispatch=guard(settings.hosts, gate, answer))
    app.include_router(accounts.routes(gate))
    app.include_router(api.routes(library, tiles, store, show_labels=settings.show_labels))

    if staining is not None:
        app.state.rooms.append(("nav.staining", "/stain"))
        app.include_router(staining.routes())
    app.include_router(reading.routes(studies, pictures, settings.folder))
    if settings.studies:
        app.state.rooms.append(("nav.review", "/review"))

    @app.get("/")
    def library_page(request: Request) -> Response:
        return pages.library_page(request, library, tiles)

    @app.get("/view/{identity}")
    def viewer(request: Request, identity: str) -> Response:
        image = library.get(identity)
        return pages.viewer_page(request, image, tiles.view(image), library.related(image), tiles, settings.show_labels)

    static = Path(str(resources.files("restain.web").joinpath("static")))
    app.mount("/static", StaticFiles(directory=static), name="static")

    @app.exception_handler(Fault)
    async def fault(request: Request, fault: Fault) -> Response:
        return answer(request, fault)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, _: RequestValidationError) -> Response:
        return answer(request, Fault(400, "fault.number"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, fault: HTTPException) -> Response:
        key = "fault.method" if fault.status_code == 405 else "fault.no_page"
        return answer(request, Fault(fault.status_code, key))

    return app


def answer(request: Request, fault: Fault) -> Response:
    """A fault as a page where a browser asks for one, else as JSON with one sentence."""
    if not request.url.path.startswith(("/api/", "/static/")) and request.method == "GET":
        return pages.fault_page(request, fault)
    sentence = text(language_of(request), fault.key, **fault.values)
    return JSONResponse({"error": sentence}, fault.status, headers={"Cache-Control": "no-store"})
