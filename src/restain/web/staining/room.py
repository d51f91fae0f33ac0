"""The pages of staining and what their scripts ask for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response

from restain.bundle import read_card
from restain.database import Database
from restain.errors import RestainError
from restain.files import make_folder
from restain.stain.figures import SlideFigures
from restain.stain.sources import slide_name
from restain.stain.steps import PREPARED, STAINED
from restain.web.asked import number, whole
from restain.web.faults import Fault
from restain.web.identity import account_of
from restain.web.library import Library
from restain.web.links import Image
from restain.web.origin import Kind
from restain.web.pages import layer, page
from restain.web.security import read_body
from restain.web.settings import Settings
from restain.web.staining.jobs import Job, Jobs, State
from restain.web.staining.live import MEDIA
from restain.web.staining.queue import Queue
from restain.web.staining.uploads import SUFFIXES, Uploads
from restain.web.texts import all_texts, catalogue, language_of, text
from restain.web.tiles import Tiles, View

PER_PAGE = 12
STAINABLE = (Kind.HE, Kind.PICTURE)
COARSEST_MPP = 100.0
"""µm per px; an image that is said to be coarser is none of a microscope."""
LONGEST_STEM = 200
"""Bytes of a name to which the endings of results can be put; file systems take 255."""
_MOST_BYTES = 1 << 16
_FILES = {"slide": "image/tiff", "dab": "image/tiff", "report": "application/json"}


class Staining:
    """The room: the queue, the uploads, and their addresses.

    Raises:
        RestainError: if a model is no bundle, or the state folder cannot be written.
    """

    def __init__(self, settings: Settings, library: Library, tiles: Tiles, database: Database) -> None:
        self.library, self.tiles = library, tiles
        self.models = {(card := read_card(path)).hash[:12]: (path.resolve(), card) for path in settings.models}
        self.jobs = Jobs(database)
        self.uploads = Uploads(settings.state / "uploads", settings.upload_bytes)
        self.uploads.prepare()
        self.queue = Queue(self.jobs, make_folder(settings.state / "stained"), library, self.models)

    def routes(self) -> APIRouter:
        """The pages under ``/stain`` and what their scripts ask for under ``/api/stain``."""
        router = APIRouter()

        @router.get("/stain")
        def rooms_page(request: Request) -> Response:
            asked = request.query_params.get("image")
            return self._choose(request) if asked is None else self._new(request, self.library.get(asked))

        @router.get("/stain/{identity}")
        def job_page(request: Request, identity: str) -> Response:
            return self._job(request, self.jobs.get(identity))

        @router.post("/api/stain/uploads")
        async def upload(request: Request, name: str = "") -> Response:
            length = request.headers.get("content-length", "")
            try:
                path = await self.uploads.take(name, request.stream(), int(length) if length.isdecimal() else None)
            except ClientDisconnect:
                # Nobody hears it.
                raise Fault(400, "fault.upload_cut") from None
            owner = account_of(request).name

            def keep() -> str:
                self.jobs.uploaded(path.parent.name, owner, path.name)
                self.library.refresh()
                place = f"uploads/{path.parent.name}/{path.name}"
                found = next((image.id for image in self.library.images() if image.name == place), None)
                if found is None:
                    self.uploads.remove(path.parent.name)
                    self.jobs.forget_upload(path.parent.name)
                    raise Fault(422, "fault.upload_content", name=path.name, kinds=" ".join(SUFFIXES))
                return found

            return JSONResponse({"image": await run_in_threadpool(keep)}, 201)

        @router.delete("/api/stain/uploads/{identity}")
        def remove_upload(request: Request, identity: str) -> Response:
            self._remove_upload(account_of(request).name, identity)
            return JSONResponse({})

        @router.get("/api/stain/jobs")
        def every(request: Request) -> Response:
            jobs = [self._row(job, language_of(request)) for job in self.jobs.all()]
            return JSONResponse({"jobs": jobs}, headers={"Cache-Control": "no-store"})

        @router.post("/api/stain/jobs")
        async def add(request: Request) -> Response:
            body = await read_body(request, _MOST_BYTES)
            owner = account_of(request).name
            return JSONResponse({"id": await run_in_threadpool(self._add, owner, body)}, 201)

        @router.get("/api/stain/jobs/{identity}")
        def status(request: Request, identity: str) -> Response:
            content = self._status(self.jobs.get(identity), language_of(request))
            return JSONResponse(content, headers={"Cache-Control": "no-store"})

        @router.post("/api/stain/jobs/{identity}/{what}")
        def change(identity: str, what: str) -> Response:
            if what not in ("cancel", "resume"):
                raise Fault(404, "fault.no_page")
            (self.jobs.cancel if what == "cancel" else self.jobs.resume)(identity)
            self.queue.wake()
            return JSONResponse({})

        @router.delete("/api/stain/jobs/{identity}")
        def remove(identity: str) -> Response:
            self.queue.remove(self.jobs.get(identity))
            return JSONResponse({})

        @router.get("/api/stain/jobs/{identity}/tiles/{level}/{column}/{row}.webp")
        def tile(identity: str, level: str, column: str, row: str) -> Response:
            live = self.queue.live(self.jobs.get(identity))
            data = live.tile(whole(level), whole(column), whole(row))
            return Response(data, media_type=MEDIA, headers={"Cache-Control": "no-store"})

        @router.get("/api/stain/jobs/{identity}/files/{what}")
        def file(identity: str, what: str) -> Response:
            job = self.jobs.get(identity)
            path = self.queue.result(job).get(what)
            if what not in _FILES or path is None or job.state is not State.DONE or not self.library.holds(path):
                raise Fault(404, "fault.no_file")
            return FileResponse(path, media_type=_FILES[what], filename=path.name)

        return router

    def _choose(self, request: Request) -> Response:
        query = request.query_params.get("q", "")[:200].strip()
        images = [image for image in self.library.images() if image.kind in STAINABLE]
        found = [image for image in images if query.lower() in image.name.lower()]
        pages = max(1, -(-len(found) // PER_PAGE))
        asked = request.query_params.get("page", "1")
        number = min(max(1, int(asked) if asked.isdecimal() and len(asked) < 8 else 1), pages)
        cards: list[tuple[Image, View | None]] = []
        for image in found[(number - 1) * PER_PAGE : number * PER_PAGE]:
            try:
                cards.append((image, self.tiles.view(image)))
            except Fault:
                cards.append((image, None))
        own = self.jobs.uploads_of(account_of(request).name)
        language = language_of(request)
        rows = [self._row(job, language) for job in self.jobs.all()]
        return page(
            request,
            "stain.html.j2",
            cards=cards,
            own={image.id: part for image in found if (part := _upload_of(image)) in own},
            query=query,
            number=number,
            pages=pages,
            link=lambda n: "/stain?" + urlencode({"q": query, "page": n} if query else {"page": n}),
            jobs=rows,
            content={
                "texts": all_texts(language),
                "suffixes": SUFFIXES,
                "mostBytes": self.uploads.most_bytes,
                "mostText": _gib(self.uploads.most_bytes),
            },
        )

    def _new(self, request: Request, image: Image) -> Response:
        if image.kind not in STAINABLE:
            raise Fault(422, "fault.not_stainable", name=image.name)
        view = self.tiles.view(image)
        return page(
            request,
            "stain_new.html.j2",
            image=image,
            view=view,
            models=[(key, card) for key, (_, card) in self.models.items()],
            content=self._scene(request, image),
        )

    def _job(self, request: Request, job: Job) -> Response:
        status = self._status(job, language_of(request))
        try:
            scene = self._scene(request, self.library.get(job.source), job.options["mpp"])
        except Fault:
            scene = None
        _, card = self.models.get(job.options["model"], (None, None))
        content = (scene or {"texts": all_texts(language_of(request))}) | {"job": status}
        return page(request, "stain_job.html.j2", job=job, card=card, scene=scene, content=content)

    def _scene(self, request: Request, image: Image, mpp: float | None = None) -> dict[str, Any]:
        view = self.tiles.view(image)
        return {
            "image": layer(image, view),
            "mpp": view.mpp or mpp,
            "others": [],
            "density": [],
            "texts": all_texts(language_of(request)),
        }

    def _add(self, owner: str, body: bytes) -> str:
        try:
            asked = json.loads(body)
            image = self.library.get(str(asked["image"]))
            model = str(asked["model"])
            region, mpp = asked["region"], asked["mpp"]
            flags = {key: bool(asked[key]) for key in ("dab", "everywhere")}
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Fault(400, "fault.job_form") from None
        if image.kind not in STAINABLE:
            raise Fault(422, "fault.not_stainable", name=image.name)
        if len(slide_name(Path(image.name)).encode()) > LONGEST_STEM:
            raise Fault(422, "fault.job_name", most=LONGEST_STEM)
        if model not in self.models:
            raise Fault(422, "fault.job_model")
        view = self.tiles.view(image)
        # What the file says holds; only where it says nothing is the user asked.
        mpp = None if view.mpp is not None else number(str(mpp))
        if mpp is not None and not 0.01 <= mpp <= COARSEST_MPP:
            raise Fault(400, "fault.job_mpp", most=f"{COARSEST_MPP:g}")
        if region is not None:
            region = _region(region, view.size.width, view.size.height)
        job = self.jobs.add(owner, image.id, image.name, region, {"model": model, "mpp": mpp, **flags})
        self.queue.wake()
        return job

    def _remove_upload(self, owner: str, identity: str) -> None:
        image = next((one for one in self.library.images() if one.id == identity), None)
        part = None if image is None else _upload_of(image)
        if image is None or part is None or part not in self.jobs.uploads_of(owner):
            raise Fault(404, "fault.no_upload")
        if self.jobs.uses(identity):
            raise Fault(409, "fault.upload_used")
        self.uploads.remove(part)
        self.jobs.forget_upload(part)
        self.library.refresh()

    def _row(self, job: Job, language: str) -> dict[str, Any]:
        running = self.queue.running
        mine = running if running is not None and running.job == job.id else None
        done = mine.done if mine is not None else job.done
        row: dict[str, Any] = {
            "id": job.id,
            "name": job.name,
            "owner": job.owner,
            "created": job.created,
            "state": job.state.value,
            "stateText": text(language, f"stain.state.{job.state.value}"),
            "done": done,
            "total": job.total or 1000,
            "message": "",
        }
        if job.state is State.WAITING:
            before = self.jobs.before(job)
            row["message"] = text(language, "stain.before" if before else "stain.next", count=before)
        elif job.message:
            row["message"] = text(language, job.message) if job.message in catalogue() else job.message
        return row

    def _status(self, job: Job, language: str) -> dict[str, Any]:
        status = self._row(job, language)
        running = self.queue.running
        mine = running if running is not None and running.job == job.id else None
        status["warnings"] = [] if mine is None else list(mine.warnings)
        status["left"] = None if mine is None else mine.seconds_left
        done = status["done"]
        phase = "look" if done < PREPARED else "stain" if done < STAINED else "write"
        status["phase"] = text(language, f"stain.phase.{phase}") if job.state is State.RUNNING else ""
        status["live"], status["result"], status["files"], status["figures"] = None, None, [], []
        if job.state is not State.DONE:
            status["live"] = self.queue.live(job).look()
            return status
        files = self.queue.result(job)
        place = f"stained/{job.id}/{files['slide'].name}" if "slide" in files else None
        result = next((image for image in self.library.images() if image.name == place), None)
        if result is None:
            status["message"] = text(language, "stain.gone")
            return status
        status["result"] = layer(result, self.tiles.view(result))
        status["files"] = [what for what in _FILES if what in files]
        status["view"] = f"/view/{job.source}?beside={result.id}"
        status["figures"], status["warnings"] = _report(files.get("report"), language)
        return status


def _report(path: Path | None, language: str) -> tuple[list[list[str]], list[str]]:
    """What ``restain stain`` wrote of a result: figures with their headings, and warnings."""
    if path is None:
        return [], []
    try:
        report = SlideFigures.read(path)
    except RestainError:
        return [], []
    rows = [["tissue", f"{report.tissue_mm2:.3g} mm²"], ["computed", f"{report.megapixels:.3g} Mpx"]]
    if report.seams is not None:
        rows.append(["seams", f"{report.seams.ratio:.3f}"])
    if (tiles := report.ood_tiles) is not None and tiles.judged:
        rows.append(["ood", f"{tiles.above} / {tiles.judged}"])
    rows.append(["holes", str(len(report.holes))])
    rows.append(["seconds", f"{report.seconds.all:.0f} s"])
    ood = report.provenance.ood
    warnings = [ood.reason] if ood is not None and ood.is_ood else []
    warnings += [Path(fault.split(": ", 1)[0]).name + ": " + fault.split(": ", 1)[-1] for fault in report.slide_faults]
    if ood is None:
        warnings.append(text(language, "stain.unknown"))
    return [[text(language, f"stain.figure.{key}"), value] for key, value in rows], warnings


def _region(values: Any, width: int, height: int) -> list[int]:
    """A rectangle of level-0 px, cut to the image.

    Raises:
        Fault: 400, if it is none, or holds nothing of the image.
    """
    numbers: list[Any] = [
        values.get(key) if isinstance(values, dict) else None for key in ("x", "y", "width", "height")
    ]
    if not all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 and math.isfinite(v) for v in numbers
    ):
        raise Fault(400, "fault.job_form")
    x, y, wide, high = (round(v) for v in numbers)
    left, top = min(max(x, 0), width), min(max(y, 0), height)
    right, bottom = min(max(x + wide, 0), width), min(max(y + high, 0), height)
    if right - left < 16 or bottom - top < 16:
        raise Fault(400, "fault.job_region")
    return [left, top, right - left, bottom - top]


def _upload_of(image: Image) -> str | None:
    parts = image.name.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "uploads" else None


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MiB"
