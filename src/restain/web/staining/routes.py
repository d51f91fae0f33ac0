"""The pages of staining and their API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response

from restain.bundle import read_card
from restain.database import Database
from restain.files import make_folder
from restain.geometry import Size
from restain.stain.sources import slide_name
from restain.web.accounts.account import account_of
from restain.web.errors import RequestError
from restain.web.grid import TileNumber
from restain.web.library import Library
from restain.web.links import Image, title_of
from restain.web.pages import image_layer, list_images, page
from restain.web.provenance import ImageKind
from restain.web.security import read_body
from restain.web.settings import Settings
from restain.web.staining.jobs import MAX_WAITING, Job, Jobs, State
from restain.web.staining.partial_result import MEDIA_TYPE
from restain.web.staining.queue import Queue
from restain.web.staining.status import FILES, JobStatus
from restain.web.staining.uploads import SUFFIXES, Uploads, format_bytes
from restain.web.texts import all_texts, language_of
from restain.web.tiles import ImageFacts, Tiles

PER_PAGE = 12
STAINABLE = (ImageKind.HE, ImageKind.PICTURE)
MIN_MPP, MAX_MPP = 0.01, 100.0
MIN_SIDE = 16
"""Least side of a region in px."""
MAX_STEM = 200
"""Bytes of a name without its suffix; file systems allow 255 bytes with the suffixes of results."""
_MAX_BODY = 1 << 16
_NO_STORE = {"Cache-Control": "no-store"}
_Px = Annotated[float, Field(gt=-1e9, lt=1e9, allow_inf_nan=False)]


class _Region(BaseModel):
    model_config = ConfigDict(strict=True)
    x: _Px
    y: _Px
    width: _Px
    height: _Px

    def clipped(self, size: Size) -> list[int]:
        """x, y, width, height in whole px inside an image. Raises RequestError 400 if hardly anything is inside."""
        x, y = round(self.x), round(self.y)
        left, right = (min(max(at, 0), size.width) for at in (x, x + round(self.width)))
        top, bottom = (min(max(at, 0), size.height) for at in (y, y + round(self.height)))
        if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
            raise RequestError(400, "error.job_region")
        return [left, top, right - left, bottom - top]


class _JobForm(BaseModel):
    model_config = ConfigDict(strict=True)
    image: str
    model: str
    region: _Region | None
    mpp: float | None
    dab: bool
    everywhere: bool


class Staining:
    """The queue, the uploads, and their routes.

    Raises:
        RestainError: if a model is not a bundle, or the state folder cannot be written.
    """

    def __init__(self, settings: Settings, library: Library, tiles: Tiles, database: Database) -> None:
        self.library, self.tiles = library, tiles
        self.models = {(card := read_card(path)).hash[:12]: (path.resolve(), card) for path in settings.models}
        self.jobs = Jobs(database)
        self.uploads = Uploads(settings.state_folder / "uploads", settings.upload_bytes)
        self.uploads.prepare()
        results = make_folder(settings.state_folder / "stained")
        self.queue = Queue(self.jobs, results, library, self.models)

    def routes(self) -> APIRouter:
        """The pages under ``/stain`` and the API under ``/api/stain``."""
        router = APIRouter()

        @router.get("/stain")
        def start_page(request: Request) -> Response:
            chosen = list(dict.fromkeys(request.query_params.getlist("image")))[:MAX_WAITING]
            return (
                self._new_page(request, [self.library.get(one) for one in chosen])
                if chosen
                else self._list_page(request)
            )

        @router.get("/stain/{identity}")
        def job_page(request: Request, identity: str) -> Response:
            return self._job_page(request, self.jobs.get(identity))

        @router.post("/api/stain/uploads")
        async def upload(request: Request, name: str = "") -> Response:
            length = request.headers.get("content-length", "")
            owner = account_of(request).name
            try:
                path = await self.uploads.receive(
                    owner, name, request.stream(), int(length) if length.isdecimal() else None
                )
            except ClientDisconnect:
                # Nobody receives it.
                raise RequestError(400, "error.upload_cut") from None
            image = await run_in_threadpool(self._add_upload, owner, path)
            return JSONResponse({"image": image}, 201)

        @router.delete("/api/stain/uploads/{identity}")
        def remove_upload(request: Request, identity: str) -> Response:
            self._remove_upload(account_of(request).name, identity)
            return JSONResponse({})

        @router.get("/api/stain/jobs")
        def job_list(request: Request) -> Response:
            return JSONResponse({"jobs": self._rows(request)}, headers=_NO_STORE)

        @router.post("/api/stain/jobs")
        async def add_job(request: Request) -> Response:
            body = await read_body(request, _MAX_BODY)
            return JSONResponse({"id": await run_in_threadpool(self._add_job, account_of(request).name, body)}, 201)

        @router.get("/api/stain/jobs/{identity}")
        def job_status(request: Request, identity: str) -> Response:
            return JSONResponse(self._status(request).full(self.jobs.get(identity)), headers=_NO_STORE)

        @router.post("/api/stain/jobs/{identity}/{action}")
        def change_job(identity: str, action: Literal["cancel", "resume"]) -> Response:
            (self.jobs.cancel if action == "cancel" else self.jobs.resume)(identity)
            self.queue.wake()
            return JSONResponse({})

        @router.delete("/api/stain/jobs/{identity}")
        def remove_job(identity: str) -> Response:
            self.queue.remove(self.jobs.get(identity))
            return JSONResponse({})

        @router.get("/api/stain/jobs/{identity}/tiles/{level}/{column}/{row}.webp")
        def tile(identity: str, level: TileNumber, column: TileNumber, row: TileNumber) -> Response:
            data = self.queue.partial_result(self.jobs.get(identity)).tile(level, column, row)
            return Response(data, media_type=MEDIA_TYPE, headers=_NO_STORE)

        @router.get("/api/stain/jobs/{identity}/files/{what}")
        def download(identity: str, what: str) -> Response:
            job = self.jobs.get(identity)
            path = self.queue.results(job).get(what)
            if what not in FILES or path is None or job.state is not State.DONE or not self.library.contains(path):
                raise RequestError(404, "error.no_file")
            return FileResponse(path, media_type=FILES[what], filename=path.name)

        return router

    def _status(self, request: Request) -> JobStatus:
        return JobStatus(self.queue, self.library, self.tiles, language_of(request))

    def _rows(self, request: Request) -> list[dict[str, Any]]:
        status = self._status(request)
        return [status.row(job) for job in self.jobs.all()]

    def _list_page(self, request: Request) -> Response:
        images = [image for image in self.library.images() if image.kind in STAINABLE]
        listed = list_images(request, images, PER_PAGE)
        cards: list[tuple[Image, ImageFacts | None]] = []
        for image in listed.images:
            try:
                cards.append((image, self.tiles.facts(image)))
            except RequestError:
                cards.append((image, None))
        own = self.jobs.uploads_of(account_of(request).name)
        return page(
            request,
            "stain.html.j2",
            cards=cards,
            own={image.id for image in listed.images if _upload_of(image) in own},
            listed=listed,
            content={
                "jobs": self._rows(request),
                "texts": all_texts(language_of(request)),
                "suffixes": SUFFIXES,
                "maxBytes": self.uploads.max_bytes,
                "maxText": format_bytes(self.uploads.max_bytes),
            },
        )

    def _new_page(self, request: Request, images: list[Image]) -> Response:
        """One form for all ``images``, of which the first is shown."""
        if other := next((one for one in images if one.kind not in STAINABLE), None):
            raise RequestError(422, "error.not_stainable", name=other.title)
        facts = [self.tiles.facts(one) for one in images]
        mpp_of = {
            one.id: known.mpp or (entered[0] if (entered := self.jobs.entered_mpp(one.id)) else None)
            for one, known in zip(images, facts, strict=True)
        }
        without = next((one for one, known in zip(images, facts, strict=True) if known.mpp is None), None)
        areas = [known.size.width * known.size.height for known in facts]
        batch = [{"id": one.id, "px": px, "mpp": mpp_of[one.id]} for one, px in zip(images, areas, strict=True)]
        rates = {key: {"rate": self.queue.rate(key), "mpp": card.mpp} for key, (_, card) in self.models.items()}
        return page(
            request,
            "stain_new.html.j2",
            images=images,
            facts=facts[0],
            asks_mpp=without is not None,
            entered=None if without is None else self.jobs.entered_mpp(without.id),
            models=[(key, card) for key, (_, card) in self.models.items()],
            content=self._scene(request, images[0]) | {"batch": batch, "models": rates},
        )

    def _job_page(self, request: Request, job: Job) -> Response:
        try:
            scene = self._scene(request, self.library.get(job.source), job.options["mpp"])
        except RequestError:
            scene = None
        _, card = self.models.get(job.options["model"], (None, None))
        content = (scene or {"texts": all_texts(language_of(request))}) | {"job": self._status(request).full(job)}
        return page(
            request, "stain_job.html.j2", job=job, title=title_of(job.name), card=card, scene=scene, content=content
        )

    def _scene(self, request: Request, image: Image, mpp: float | None = None) -> dict[str, Any]:
        facts = self.tiles.facts(image)
        return {
            "image": image_layer(image, facts),
            "mpp": facts.mpp or mpp,
            "others": [],
            "overlays": {},
            "texts": all_texts(language_of(request)),
        }

    def _add_job(self, owner: str, body: bytes) -> str:
        try:
            form = _JobForm.model_validate_json(body)
        except ValidationError:
            raise RequestError(400, "error.job_form") from None
        image = self.library.get(form.image)
        if image.kind not in STAINABLE:
            raise RequestError(422, "error.not_stainable", name=image.name)
        if len(slide_name(Path(image.name)).encode()) > MAX_STEM:
            raise RequestError(422, "error.job_name", most=MAX_STEM)
        if form.model not in self.models:
            raise RequestError(422, "error.job_model")
        facts = self.tiles.facts(image)
        # A stated mpp counts; without one, the user gives it.
        mpp = None if facts.mpp is not None else form.mpp or 0.0
        if mpp is not None and not MIN_MPP <= mpp <= MAX_MPP:
            raise RequestError(400, "error.job_mpp", most=f"{MAX_MPP:g}")
        region = None if form.region is None else form.region.clipped(facts.size)
        options = {"model": form.model, "mpp": mpp, "dab": form.dab, "everywhere": form.everywhere}
        job = self.jobs.add(owner, image.id, image.name, region, options)
        self.queue.wake()
        return job

    def _add_upload(self, owner: str, path: Path) -> str:
        """Add an upload to the library and give the id of its (first) image."""
        upload = path.parent.name
        self.jobs.add_upload(upload, owner, path.name)
        self.library.refresh()
        image = self.library.named(f"uploads/{upload}/{path.name}")
        if image is None:
            self.uploads.remove(upload)
            self.jobs.remove_upload(upload)
            raise RequestError(422, "error.upload_content", name=path.name, kinds=" ".join(SUFFIXES))
        return image.id

    def _remove_upload(self, owner: str, identity: str) -> None:
        images = self.library.images()
        upload = next((_upload_of(one) for one in images if one.id == identity), None)
        if upload is None or upload not in self.jobs.uploads_of(owner):
            raise RequestError(404, "error.no_upload")
        if any(self.jobs.uses(one.id) for one in images if _upload_of(one) == upload):
            raise RequestError(409, "error.upload_used")
        self.uploads.remove(upload)
        self.jobs.remove_upload(upload)
        self.library.refresh()


def _upload_of(image: Image) -> str | None:
    """The id of the upload that an image is from."""
    parts = image.name.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "uploads" else None
