"""Measurements of annotations: lengths, areas, and DAB density of a stain, in the names and units of QuPath."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import Geometry, affinity
from shapely.geometry import shape

from restain.files import csv_text
from restain.geometry import Point, Region, Size
from restain.her2 import INTENSE_OD, MODERATE_OD, WEAK_OD
from restain.optics import dab_density, glass_white
from restain.slides.geojson import rasterize
from restain.web.errors import RequestError
from restain.web.links import Chemical, Image, Related
from restain.web.provenance import ImageKind
from restain.web.tiles import Tiles, read_density

BINS = (WEAK_OD, MODERATE_OD, INTENSE_OD)
"""Least DAB density in OD of the intensities 1+, 2+ and 3+ of a pixel; from the first on, a pixel is DAB-positive."""
MOST_PX = 4_000_000
"""Pixels of an annotation that are read at most; a larger one is measured at a coarser resolution."""


def geometry_measurements(geometry: Mapping[str, Any], mpp: float | None) -> dict[str, float]:
    """Length of a line, or area and perimeter, in µm, or px without a known mpp; empty for points."""
    found, scale, unit = _shape(geometry), mpp or 1.0, "px" if mpp is None else "µm"
    if geometry["type"].endswith("Point"):
        return {}
    if geometry["type"].endswith("LineString"):
        return {f"Length {unit}": float(found.length) * scale}
    return {f"Area {unit}^2": float(found.area) * scale**2, f"Perimeter {unit}": float(found.length) * scale}


def density_measurements(od: NDArray[np.float32]) -> dict[str, float]:
    """DAB figures of pixels ``(n,)`` in OD: shares of area in %, mean OD, and an H-score-like sum of 0 to 300.

    The sum is 1 × % 1+ plus 2 × % 2+ plus 3 × % 3+ of the area; the H-score proper counts cells.
    """
    if not len(od):
        return {}
    shares = 100 * np.bincount(np.digitize(od, BINS), minlength=4) / len(od)
    names = ("0", "1+", "2+", "3+")
    return {
        "DAB: Positive area %": float(shares[1:].sum()),
        **{f"DAB: {name} area %": float(share) for name, share in zip(names, shares, strict=True)},
        "DAB: Mean OD": float(od.mean()),
        "DAB: H-score (area)": float(shares @ np.arange(4)),
    }


def measure(
    tiles: Tiles, image: Image, stain: Image | None, related: Related, features: Sequence[Mapping[str, Any]]
) -> list[dict[str, float]]:
    """Measurements of each feature, in px of level 0 of ``image``; of ``stain``, if it is given, its DAB density.

    The density is that which ``restain stain`` wrote, else colour deconvolution of a chemical stain.

    Raises:
        RequestError: 404 if the stain is not one of the image, 422 if it cannot be read.
    """
    facts = tiles.facts(image)
    found = [geometry_measurements(one["geometry"], facts.mpp) for one in features]
    if stain is not None:
        for one, values in zip(features, found, strict=True):
            if one["geometry"]["type"].endswith("Polygon"):
                values |= density_measurements(_density(tiles, image, stain, related, _shape(one["geometry"])))
    return found


def measurements_csv(
    features: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, float]], names: Mapping[str, str]
) -> str:
    """One line for each feature; ``names`` are further columns, equal in all lines."""
    columns = list(dict.fromkeys(key for one in values for key in one))
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow([*names, "Name", "Class", "Geometry", *columns])
    for feature, own in zip(features, values, strict=True):
        properties = feature["properties"]
        about = (*names.values(), properties.get("name", ""), properties.get("classification", {}).get("name", ""))
        numbers = [f"{own[key]:.6g}" if key in own else "" for key in columns]
        table.writerow([*map(csv_text, about), feature["geometry"]["type"], *numbers])
    return out.getvalue()


def _shape(geometry: Mapping[str, Any]) -> Geometry:
    try:
        found: Geometry = shape(geometry)
    except (ValueError, TypeError, AttributeError):
        raise RequestError(400, "error.no_geojson") from None
    return found if found.is_valid else found.buffer(0)


def _density(tiles: Tiles, image: Image, stain: Image, related: Related, area: Geometry) -> NDArray[np.float32]:
    """OD of the stain's pixels in an area in px of level 0 of the image."""
    grid, overlays = tiles.facts(image).grid, related.overlays.get(stain.id)
    left, top, right, bottom = area.bounds
    if overlays is not None and overlays.density is not None:
        with tiles.open_density(overlays.density) as slide:
            # The density covers the same area at its own resolution.
            scale = grid.size.width / slide.size.width
            region = _region((left, top, right, bottom), scale, slide.size)
            step = 2 ** max(0, math.ceil(math.log2(max(1, region.size.width * region.size.height / MOST_PX)) / 2))
            scale *= step
            region = _region((left, top, right, bottom), scale, _divided(slide.size, step))
            od = read_density(slide, region, step)
    else:
        chemical = next((one for one in related.chemical if one.image.id == stain.id), None)
        own = stain.id == image.id and stain.kind is ImageKind.IHC
        if chemical is None and not own:
            raise RequestError(404, "error.no_density")
        # Membranes are about 1 µm wide: finer pixels say no more.
        scale = max(1.0, 0.5 / grid.mpp, math.sqrt((right - left) * (bottom - top) / MOST_PX))
        whole = Size(math.ceil(grid.size.width / scale), math.ceil(grid.size.height / scale))
        region = _region((left, top, right, bottom), scale, whole)
        fixed = None if own else image
        od = dab_density(tiles.region(stain, region, grid.mpp * scale, fixed), _white(tiles, stain, chemical, image))
    if not region.size.width * region.size.height:
        return np.zeros(0, np.float32)
    moved = affinity.translate(area, -region.origin.x * scale, -region.origin.y * scale)
    polygons = [one for one in getattr(moved, "geoms", [moved]) if one.geom_type == "Polygon"]
    return np.asarray(od, np.float32)[rasterize(polygons, region.size, scale)]


def _white(tiles: Tiles, stain: Image, chemical: Chemical | None, image: Image) -> NDArray[np.float64]:
    """RGB of glass, from a coarse view of the whole stain."""
    grid = tiles.facts(image).grid
    fixed = None if chemical is None else image
    view = tiles.region(stain, Region(Point(0, 0), grid.size_of(0)), grid.mpp * grid.reduction(0), fixed)
    return np.asarray(glass_white(view), np.float64)


def _divided(size: Size, step: int) -> Size:
    return Size(-(-size.width // step), -(-size.height // step))


def _region(bounds: tuple[float, float, float, float], scale: float, size: Size) -> Region:
    """The pixels, ``scale`` px of level 0 each, that cover ``bounds`` and lie inside ``size``."""
    left, top = (max(0, int(value / scale)) for value in bounds[:2])
    right = min(size.width, math.ceil(bounds[2] / scale))
    bottom = min(size.height, math.ceil(bounds[3] / scale))
    return Region(Point(left, top), Size(max(0, right - left), max(0, bottom - top)))
