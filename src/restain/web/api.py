"""What the scripts ask for: tiles, thumbnails, outlines, annotations, snapshots."""

from __future__ import annotations

import json
import re

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from restain.geometry import Point, Region, Size
from restain.web.annotations import MOST_BYTES, checked
from restain.web.asked import number, whole
from restain.web.faults import Fault
from restain.web.labels import label_image
from restain.web.library import Library
from restain.web.links import Image
from restain.web.origin import Kind, bare_name
from restain.web.security import read_body
from restain.web.snapshot import MOST_SIDE, Pane, draw
from restain.web.store import Store
from restain.web.texts import language_of, text
from restain.web.tiles import Tiles

LARGEST_OUTLINE = 32 << 20
_KEEP = "private, max-age=31536000, immutable"


def routes(library: Library, tiles: Tiles, store: Store, *, show_labels: bool) -> APIRouter:
    """The routes under ``/api``. Images are named by their ``id`` alone: no address holds a path."""
    router = APIRouter(prefix="/api/images/{identity}")

    @router.get("/thumbnail.jpg")
    def thumbnail(identity: str) -> Response:
        return _picture(tiles.thumbnail(library.get(identity)), "image/jpeg")

    @router.get("/tiles/{level}/{column}/{row}.jpg")
    def tile(identity: str, level: str, column: str, row: str, on: str | None = None) -> Response:
        base = None if on is None else library.get(on)
        data = tiles.tile(library.get(identity), whole(level), whole(column), whole(row), base)
        return _picture(data, "image/jpeg")

    @router.get("/density/{level}/{column}/{row}.png")
    def density(identity: str, level: str, column: str, row: str) -> Response:
        data = tiles.density(library.get(identity), whole(level), whole(column), whole(row))
        return _picture(data, "image/png")

    @router.get("/outlines/{which}")
    def outline(identity: str, which: str) -> Response:
        path = library.related(library.get(identity)).outlines.get(which)
        if path is None:
            raise Fault(404, "fault.no_outline")
        try:
            if path.stat().st_size > LARGEST_OUTLINE:
                raise Fault(422, "fault.too_large", name=path.name, most=LARGEST_OUTLINE >> 20)
            return JSONResponse({"type": "FeatureCollection", "features": checked(json.loads(path.read_bytes()))})
        except (OSError, ValueError, RecursionError):
            raise Fault(422, "fault.no_geojson") from None

    @router.get("/label/{which}.jpg")
    def label(identity: str, which: str) -> Response:
        if not show_labels:
            raise Fault(403, "fault.labels")
        return Response(label_image(library.get(identity), which), media_type="image/jpeg")

    @router.get("/annotations")
    def annotations(identity: str) -> Response:
        kept = store.annotations(library.get(identity).id)
        return JSONResponse({"version": kept.version, **kept.geojson()})

    @router.get("/annotations.geojson")
    def export(identity: str) -> Response:
        image = library.get(identity)
        name = _plain(f"{bare_name(image.path)}.annotations.geojson")
        return JSONResponse(
            store.annotations(image.id).geojson(),
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
            media_type="application/geo+json",
        )

    @router.put("/annotations")
    async def save(identity: str, request: Request) -> Response:
        body = await read_body(request, MOST_BYTES)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise Fault(400, "fault.no_geojson") from None
        version = content.get("version") if isinstance(content, dict) else None
        if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version < 1 << 31:
            raise Fault(400, "fault.no_geojson")

        def keep() -> Response:
            image = library.get(identity)
            kept = store.save(image.id, image.name, checked(content), version)
            return JSONResponse({"version": kept.version, **kept.geojson()})

        return await run_in_threadpool(keep)

    @router.get("/snapshot.png")
    def snapshot(
        request: Request,
        identity: str,
        x: str,
        y: str,
        width: str,
        height: str,
        mpp: str,
        beside: str | None = None,
    ) -> Response:
        image = library.get(identity)
        middle_x, middle_y, fine = (number(one) for one in (x, y, mpp))
        size = Size(_side(width), _side(height))
        data = _snapshot(image, beside, (middle_x, middle_y), size, fine, language_of(request))
        name = _plain(f"{bare_name(image.path)}.view.png")
        return Response(data, media_type="image/png", headers={"Content-Disposition": f'attachment; filename="{name}"'})

    def _snapshot(
        image: Image, beside: str | None, at: tuple[float, float], size: Size, mpp: float, language: str
    ) -> bytes:
        view = tiles.view(image)
        if not view.grid.mpp / 64 <= mpp <= view.grid.mpp * 2 ** (view.grid.top + 4):
            raise Fault(400, "fault.number")
        panes = []
        for one in [image, *([] if beside is None else [library.get(beside)])]:
            on = None
            stretch = 1.0
            if one.id != image.id:
                related = library.related(image)
                if all(one.id != other.id for other in related.others):
                    raise Fault(404, "fault.not_registered")
                if any(one.id == real.id for real, _ in related.real):
                    on = image
                else:
                    other = tiles.view(one).grid
                    stretch = other.size.width * other.mpp / (view.size.width * view.grid.mpp)
            corner = Point(round(at[0] / mpp - size.width / 2), round(at[1] / mpp - size.height / 2))
            rgb = tiles.region(one, Region(corner, size), mpp * stretch, on)
            virtual = one.kind is Kind.VIRTUAL
            title = _printable(f"{text('en', f'kind.{one.kind.value}')}: {one.path.name}")
            panes.append(Pane(rgb, title, virtual))
        return draw(panes, None if view.mpp is None else mpp)

    return router


def _picture(data: bytes, media: str) -> Response:
    # The address holds the file's stamp, so that a changed file has another one.
    return Response(data, media_type=media, headers={"Cache-Control": _KEEP})


def _side(value: str) -> int:
    length = number(value)
    if not 16 <= length <= MOST_SIDE:
        raise Fault(400, "fault.snapshot_size", most=MOST_SIDE)
    return int(length)


def _plain(name: str) -> str:
    """A file name that a header can hold."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name)[-120:]


def _printable(name: str) -> str:
    """What the built-in font can draw."""
    return "".join(c if 32 <= ord(c) < 0x250 else "?" for c in name)
