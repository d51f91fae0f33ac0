"""The API of the viewer: tiles, thumbnails, outlines, annotations, snapshots."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from restain.geometry import Point, Region, Size
from restain.web.annotations import MAX_BODY, AnnotationStore, parse_features
from restain.web.errors import RequestError
from restain.web.grid import TileNumber
from restain.web.library import Library
from restain.web.links import Image
from restain.web.measure import BINS, measure, measurements_csv
from restain.web.provenance import ImageKind, bare_name
from restain.web.security import read_body
from restain.web.snapshot import MAX_SIDE, Pane, draw_snapshot, rotated
from restain.web.texts import text
from restain.web.tiles import Tiles

MAX_OUTLINE = 32 << 20
Number = Annotated[float, Query(gt=-1e9, lt=1e9, allow_inf_nan=False)]
# The address holds the file's stamp, so a changed file has another address.
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def routes(library: Library, tiles: Tiles, annotations: AnnotationStore, *, show_labels: bool) -> APIRouter:
    """The routes under ``/api/images``. No address holds a path: images are named by their ids."""
    router = APIRouter(prefix="/api/images/{identity}")

    @router.get("/thumbnail.jpg")
    def thumbnail(identity: str) -> Response:
        return Response(tiles.thumbnail(library.get(identity)), media_type="image/jpeg", headers=_FOREVER)

    @router.get("/tiles/{level}/{column}/{row}.jpg")
    def tile(
        identity: str, level: TileNumber, column: TileNumber, row: TileNumber, fixed: str | None = None
    ) -> Response:
        other = None if fixed is None else library.get(fixed)
        data = tiles.tile(library.get(identity), level, column, row, other)
        return Response(data, media_type="image/jpeg", headers=_FOREVER)

    @router.get("/density/{level}/{column}/{row}.png")
    def density(identity: str, level: TileNumber, column: TileNumber, row: TileNumber) -> Response:
        data = tiles.density(library.get(identity), level, column, row)
        return Response(data, media_type="image/png", headers=_FOREVER)

    @router.get("/outlines/{stain}/{which}")
    def outline(identity: str, stain: str, which: str) -> Response:
        overlays = library.related(library.get(identity)).overlays.get(stain)
        path = None if overlays is None else overlays.outlines.get(which)
        if path is None:
            raise RequestError(404, "error.no_outline")
        try:
            if path.stat().st_size > MAX_OUTLINE:
                raise RequestError(422, "error.large_outline", name=path.name, most=MAX_OUTLINE >> 20)
            return JSONResponse(
                {"type": "FeatureCollection", "features": parse_features(json.loads(path.read_bytes()))}
            )
        except (OSError, ValueError, RecursionError):
            raise RequestError(422, "error.no_geojson") from None

    @router.get("/label/{name}.jpg")
    def label(identity: str, name: str) -> Response:
        if not show_labels:
            raise RequestError(403, "error.labels")
        return Response(tiles.label(library.get(identity), name), media_type="image/jpeg")

    @router.get("/annotations")
    def read_annotations(identity: str) -> Response:
        saved = annotations.get(library.get(identity).id)
        return JSONResponse({"version": saved.version, **saved.geojson()})

    @router.get("/annotations.geojson")
    def export_annotations(identity: str) -> Response:
        image = library.get(identity)
        content = json.dumps(annotations.get(image.id).geojson(), ensure_ascii=False)
        return _download(content.encode(), "application/geo+json", image, "annotations.geojson")

    @router.get("/measurements")
    def measurements(identity: str, stain: str | None = None) -> Response:
        found, values = measured(library.get(identity), stain)
        rows = [{"id": one["id"], "values": own} for one, own in zip(found, values, strict=True)]
        return JSONResponse({"measurements": rows, "bins": BINS}, headers={"Cache-Control": "no-store"})

    @router.get("/measurements.csv")
    def measurements_table(identity: str, stain: str | None = None) -> Response:
        image = library.get(identity)
        names = {"Image": image.title, "Stain": "" if stain is None else library.get(stain).title}
        content = measurements_csv(*measured(image, stain), names)
        return _download(("\ufeff" + content).encode(), "text/csv", image, "measurements.csv")

    @router.get("/measurements.geojson")
    def measurements_geojson(identity: str, stain: str | None = None) -> Response:
        image = library.get(identity)
        for one, own in zip(*(pair := measured(image, stain)), strict=True):
            one["properties"]["measurements"] = own
        content = {"type": "FeatureCollection", "features": pair[0]}
        return _download(
            json.dumps(content, ensure_ascii=False).encode(), "application/geo+json", image, "measurements.geojson"
        )

    def measured(image: Image, stain: str | None) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
        features = annotations.get(image.id).features
        shown = None if stain is None else library.get(stain)
        return features, measure(tiles, image, shown, library.related(image), features)

    @router.put("/annotations")
    async def save_annotations(identity: str, request: Request) -> Response:
        body = await read_body(request, MAX_BODY)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise RequestError(400, "error.no_geojson") from None
        version = content.get("version") if isinstance(content, dict) else None
        if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version < 1 << 31:
            raise RequestError(400, "error.no_geojson")

        def save() -> Response:
            image = library.get(identity)
            saved = annotations.save(image.id, image.name, parse_features(content), version)
            return JSONResponse({"version": saved.version, **saved.geojson()})

        return await run_in_threadpool(save)

    @router.get("/snapshot.png")
    def snapshot(
        identity: str,
        x: Number,
        y: Number,
        width: Number,
        height: Number,
        mpp: Number,
        rotation: Annotated[float, Query(ge=0, lt=360)] = 0.0,
        beside: Annotated[list[str] | None, Query(max_length=2)] = None,
    ) -> Response:
        image = library.get(identity)
        facts = tiles.facts(image)
        if not facts.grid.mpp / 64 <= mpp <= facts.grid.mpp * 2 ** (facts.grid.top + 4):
            raise RequestError(400, "error.number")
        if not (16 <= width <= MAX_SIDE and 16 <= height <= MAX_SIDE):
            raise RequestError(400, "error.snapshot_size", most=MAX_SIDE)
        shown_size = Size(int(width), int(height))
        # A rotated view is cut from the square around it.
        size = Size(*[math.ceil(math.hypot(width, height))] * 2) if rotation else shown_size
        region = Region(Point(round(x / mpp - size.width / 2), round(y / mpp - size.height / 2)), size)
        shown = [image, *(library.get(one) for one in beside or () if one != image.id)]
        panes = [rotated(_pane(image, one, region, mpp), rotation, shown_size) for one in shown]
        data = draw_snapshot(panes, None if facts.mpp is None else mpp)
        return _download(data, "image/png", image, "view.png")

    def _pane(image: Image, shown: Image, region: Region, mpp: float) -> Pane:
        """``region`` of ``image``, at ``mpp``, in ``shown``, which is ``image`` or one of those compared with it."""
        fixed, title = None, f"{text('en', f'kind.{shown.kind.value}')}: {shown.path.name}"
        if shown.id != image.id:
            related = library.related(image)
            chemical = next((one for one in related.chemical if one.image.id == shown.id), None)
            if chemical is not None:
                fixed = image
                if not chemical.checked:
                    title += f" ({text('en', 'compare.by_name')})"
            elif all(shown.id != one.id for one in related.virtual):
                raise RequestError(404, "error.not_registered")
            else:
                # A virtual slide covers the same area at another mpp.
                own, grid = tiles.facts(shown).grid, tiles.facts(image).grid
                mpp *= own.size.width * own.mpp / (grid.size.width * grid.mpp)
        rgb = tiles.region(shown, region, mpp, fixed)
        return Pane(rgb, _drawable(title), shown.kind is ImageKind.VIRTUAL)

    return router


def _download(data: bytes, media_type: str, image: Image, suffix: str) -> Response:
    # A header holds ASCII only.
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", f"{bare_name(image.path)}.{suffix}")[-120:]
    return Response(data, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _drawable(name: str) -> str:
    """The text without characters that the built-in font lacks."""
    return "".join(c if 32 <= ord(c) < 0x250 else "?" for c in name)
