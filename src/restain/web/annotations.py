"""GeoJSON that comes from a browser: what is taken, and what is left of it."""

from __future__ import annotations

import math
import uuid
from typing import Any

from restain.web.faults import Fault

MOST_FEATURES, MOST_POINTS, LONGEST_NAME = 5_000, 200_000, 200
MOST_BYTES = 8 << 20
"""Of a request's body."""

_DEPTH = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}


def checked(content: Any) -> list[dict[str, Any]]:
    """The features of a FeatureCollection, a list, or a single feature, as QuPath reads them; nothing else is kept of it.

    Kept are the geometry (coordinates to 0.01 px), the id, the name and the class. Coordinates are px of level 0.

    Raises:
        Fault: 400, if it is no such GeoJSON, or has more features or points than an image can have here.
    """
    if isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    features = content.get("features") if isinstance(content, dict) else content
    if not isinstance(features, list):
        raise Fault(400, "fault.no_geojson")
    if len(features) > MOST_FEATURES:
        raise Fault(413, "fault.too_many", most=MOST_FEATURES)
    left = [MOST_POINTS]
    return [_feature(feature, left) for feature in features]


def _feature(feature: Any, left: list[int]) -> dict[str, Any]:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    depth = _DEPTH.get(str(geometry.get("type"))) if isinstance(geometry, dict) else None
    if depth is None or geometry is None:
        raise Fault(400, "fault.no_geojson")
    given = feature.get("properties")
    given = given if isinstance(given, dict) else {}
    properties: dict[str, Any] = {"objectType": "annotation"}
    if isinstance(given.get("name"), str):
        properties["name"] = _text(given["name"], LONGEST_NAME)
    kind = given.get("classification")
    if isinstance(kind, dict) and isinstance(kind.get("name"), str):
        properties["classification"] = {"name": _text(kind["name"], LONGEST_NAME)}
        colour = kind.get("color", kind.get("colorRGB"))
        if isinstance(colour, list) and len(colour) == 3 and all(isinstance(v, int) and 0 <= v < 256 for v in colour):
            properties["classification"]["color"] = colour
    identity = feature.get("id")
    return {
        "type": "Feature",
        "id": _text(identity, 64) if isinstance(identity, str) and identity else str(uuid.uuid4()),
        "geometry": {"type": geometry["type"], "coordinates": _coordinates(geometry.get("coordinates"), depth, left)},
        "properties": properties,
    }


def _text(value: str, most: int) -> str:
    """The beginning of a text, without the half characters that JSON can spell and no file can hold."""
    return value[:most].encode("utf-8", "replace").decode()


def _coordinates(values: Any, depth: int, left: list[int]) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise Fault(400, "fault.no_geojson")
    if depth:
        return [_coordinates(value, depth - 1, left) for value in values]
    left[0] -= 1
    if left[0] < 0:
        raise Fault(413, "fault.too_many", most=MOST_POINTS)
    numbers = [v for v in values[:2] if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise Fault(400, "fault.no_geojson")
    return [round(float(v), 2) for v in numbers]
