"""Outlines of regions as GeoJSON in QuPath's convention: px of level 0, the corner of the first pixel at (0, 0).

Format: RFC 7946 with the properties of QuPath 0.5 (``objectType``, ``classification``). Outlines are shapely polygons
and run midway between the centres of pixels inside and outside, so that :func:`rasterize` gives back the same pixels.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon as Polygon
from shapely.geometry.polygon import orient
from skimage.measure import find_contours

from restain.errors import RestainError
from restain.files import read_bytes, write_json
from restain.geometry import Size

Ring = NDArray[np.float64]
Mask = NDArray[np.bool_]


def to_polygons(mask: Mask, mpp: float, slide_mpp: float) -> list[Polygon]:
    """Outlines of a mask's pieces (4-connected) with their holes, in px of level 0, by rows; ``rasterize`` gives it back.

    ``mask`` is ``(H, W)`` bool at ``mpp``, its first pixel at the corner of a slide of ``slide_mpp``.
    """
    padded = np.pad(np.asarray(mask, dtype=np.float32), 1)
    # Padding moves the centre of the first pixel from 0.5 to 1.5 pixel sides.
    rings = [shapely.LinearRing(c[:, ::-1] - 0.5) for c in find_contours(padded, 0.5, fully_connected="low")]
    pieces = shapely.get_parts(shapely.simplify(shapely.build_area(shapely.GeometryCollection(rings)), 0))
    scale = mpp / slide_mpp
    found = [shapely.transform(piece, lambda points: points * scale) for piece in pieces]
    return sorted(found, key=lambda polygon: min((y, x) for x, y in polygon.exterior.coords))


def rasterize(polygons: Sequence[Polygon], size: Size, scale: float) -> Mask:
    """Pixels whose centre lies in any polygon (even-odd rule within one), ``(size.height, size.width)`` bool.

    The polygons, in px of level 0, may overlap and reach beyond the border. ``scale`` is px of level 0 per px of the
    mask. Raises ValueError if it is not a positive number.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"the scale must be a positive number, not {scale}")
    mask = np.zeros((size.height, size.width), dtype=bool)
    for polygon in polygons:
        # Pixel centres become whole numbers.
        rings = [np.asarray(ring.coords)[:-1, :2] / scale - 0.5 for ring in (polygon.exterior, *polygon.interiors)]
        points = np.concatenate(rings)
        left, top = (int(max(0, math.floor(v))) for v in points.min(axis=0))
        right, bottom = (math.ceil(v) + 1 for v in points.max(axis=0))
        right, bottom = min(right, size.width), min(bottom, size.height)
        if left < right and top < bottom:
            mask[top:bottom, left:right] |= _inside(rings, left, top, right, bottom)
    return mask


def write_geojson(
    path: Path, polygons: Sequence[Polygon], name: str = "Tissue", colour: tuple[int, int, int] = (0, 160, 80)
) -> None:
    """Write polygons as a FeatureCollection of annotations of QuPath's class ``name``.

    Coordinates are rounded to 0.01 px. The same polygons give the same file. Raises RestainError if the file cannot be
    written.
    """
    features = []
    for polygon in map(orient, polygons):
        coordinates = [np.round(ring.coords, 2).tolist() for ring in (polygon.exterior, *polygon.interiors)]
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([name, coordinates]))),
                "geometry": {"type": "Polygon", "coordinates": coordinates},
                "properties": {"objectType": "annotation", "classification": {"name": name, "color": list(colour)}},
            }
        )
    write_json(path, {"type": "FeatureCollection", "features": features}, indent=None)


def read_geojson(path: Path) -> list[Polygon]:
    """Read the polygons of a GeoJSON file, in px of level 0; outlines that cross themselves are split into valid ones.

    Takes a FeatureCollection, a Feature, a Polygon or MultiPolygon, and a list of features (QuPath's older form).
    Raises RestainError if the file cannot be read, is not GeoJSON, or holds anything but polygons.
    """
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        raise RestainError(f"{path} is not GeoJSON (its text is not valid JSON).") from None
    found = [polygon for geometry in _geometries(path, content) for polygon in _polygons(path, geometry)]
    valid = [part for polygon in found for part in shapely.get_parts(shapely.make_valid(polygon))]
    return [part for part in shapely.get_parts(valid) if isinstance(part, Polygon)]


def _geometries(path: Path, content: Any) -> Iterator[Any]:
    if isinstance(content, list):
        features: Any = content
    elif isinstance(content, dict) and content.get("type") == "FeatureCollection":
        features = content.get("features")
        if not isinstance(features, list):
            raise RestainError(f"{path} is a FeatureCollection without a list of features.")
    else:
        features = [content]
    for feature in features:
        yield feature.get("geometry") if isinstance(feature, dict) and feature.get("type") == "Feature" else feature


def _polygons(path: Path, geometry: Any) -> Iterator[Polygon]:
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        found = f"a {kind}" if isinstance(kind, str) else "something without a geometry"
        raise RestainError(f"{path} holds {found}; only Polygon and MultiPolygon can be regions of a slide.")
    coordinates = geometry.get("coordinates")
    parts: Any = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(parts, list):
        raise RestainError(f"{path} holds a {kind} without coordinates.")
    for rings in parts:
        if not isinstance(rings, list) or not rings:
            raise RestainError(f"{path} holds a {kind} without coordinates.")
        first, *holes = (_ring(path, kind, ring) for ring in rings)
        yield Polygon(first, holes)


def _ring(path: Path, kind: str, positions: Any) -> Ring:
    try:
        ring = np.array([(position[0], position[1]) for position in positions], dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise RestainError(f"{path} holds a {kind} whose coordinates are not pairs of numbers.") from None
    if not np.isfinite(ring).all():
        raise RestainError(f"{path} holds a {kind} with a coordinate that is not a finite number.")
    if len(ring) > 1 and np.array_equal(ring[0], ring[-1]):
        ring = ring[:-1]
    if len(ring) < 3:
        raise RestainError(f"{path} holds a {kind} with an outline of fewer than three points.")
    return ring


def _inside(rings: Sequence[Ring], left: int, top: int, right: int, bottom: int) -> Mask:
    """Even-odd rule at whole numbers (x in [left, right), y in [top, bottom)), all edges at once.

    Every row that an edge crosses is toggled from the crossing rightwards; half-open rows count a shared vertex once.
    """
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    upper, lower = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(upper), top, bottom).astype(np.int64)
    count = np.clip(np.ceil(lower), top, bottom).astype(np.int64) - first
    edge = np.repeat(np.arange(len(start)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = (row - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    crossing = start[edge, 0] + share * (end[edge, 0] - start[edge, 0])
    column = np.clip(np.ceil(crossing), left, right).astype(np.int64)
    width = right - left + 1
    flat = np.bincount((row - top) * width + column - left, minlength=(bottom - top) * width)
    toggles = (flat % 2).astype(np.uint8).reshape(bottom - top, width)
    inside: Mask = np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1].astype(bool)
    return inside
