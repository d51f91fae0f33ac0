"""Annotations: GeoJSON from a browser, checked, and kept in the database."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from restain.database import Database
from restain.web.database import ANNOTATIONS, utc_now
from restain.web.errors import RequestError

MAX_FEATURES, MAX_POINTS, MAX_NAME = 5_000, 200_000, 200
MAX_BODY = 8 << 20
_DEPTH = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}


@dataclass(frozen=True)
class Annotations:
    """The annotations of an image: GeoJSON features in px of level 0, and the number of saves."""

    version: int
    features: list[dict[str, Any]]

    def geojson(self) -> dict[str, Any]:
        return {"type": "FeatureCollection", "features": self.features}


class AnnotationStore:
    """Annotations by image. A save is on disk when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, image: str) -> Annotations:
        with self._database.read() as connection:
            row = connection.execute(sql.select(ANNOTATIONS).where(ANNOTATIONS.c.image == image)).first()
        return Annotations(0, []) if row is None else Annotations(row.version, json.loads(row.features))

    def save(self, image: str, name: str, features: list[dict[str, Any]], version: int) -> Annotations:
        """Replace ``version`` of the annotations. Raises RequestError 409 if a later version exists."""
        values = {"name": name, "version": version + 1, "changed": utc_now(), "features": json.dumps(features)}
        seen = (ANNOTATIONS.c.image == image) & (ANNOTATIONS.c.version == version)
        try:
            with self._database.write() as connection:
                if version == 0:
                    connection.execute(ANNOTATIONS.insert().values(image=image, **values))
                elif connection.execute(ANNOTATIONS.update().where(seen).values(**values)).rowcount != 1:
                    raise RequestError(409, "error.changed")
        except sql.exc.IntegrityError:
            raise RequestError(409, "error.changed") from None
        return Annotations(version + 1, features)


def parse_features(content: Any) -> list[dict[str, Any]]:
    """Features of a FeatureCollection, a list or a single Feature, as QuPath reads them.

    Keeps the geometry (px of level 0, to 0.01 px), id, name and class, and drops everything else.

    Raises:
        RequestError: 400 if it is not such GeoJSON, 413 if it has too many features or points.
    """
    if isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    features = content.get("features") if isinstance(content, dict) else content
    if not isinstance(features, list):
        raise RequestError(400, "error.no_geojson")
    if len(features) > MAX_FEATURES:
        raise RequestError(413, "error.too_many", most=MAX_FEATURES)
    points_left = [MAX_POINTS]
    return [_feature(feature, points_left) for feature in features]


def _feature(feature: Any, points_left: list[int]) -> dict[str, Any]:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    depth = _DEPTH.get(str(geometry.get("type"))) if isinstance(geometry, dict) else None
    if depth is None or geometry is None:
        raise RequestError(400, "error.no_geojson")
    sent = feature.get("properties")
    sent = sent if isinstance(sent, dict) else {}
    properties: dict[str, Any] = {"objectType": "annotation"}
    if isinstance(sent.get("name"), str):
        properties["name"] = _text(sent["name"], MAX_NAME)
    kind = sent.get("classification")
    if isinstance(kind, dict) and isinstance(kind.get("name"), str):
        properties["classification"] = {"name": _text(kind["name"], MAX_NAME)}
        colour = kind.get("color", kind.get("colorRGB"))
        if isinstance(colour, list) and len(colour) == 3 and all(isinstance(v, int) and 0 <= v < 256 for v in colour):
            properties["classification"]["color"] = colour
    identity = feature.get("id")
    coordinates = _coordinates(geometry.get("coordinates"), depth, points_left)
    return {
        "type": "Feature",
        "id": _text(identity, 64) if isinstance(identity, str) and identity else str(uuid.uuid4()),
        "geometry": {"type": geometry["type"], "coordinates": coordinates},
        "properties": properties,
    }


def _text(value: str, limit: int) -> str:
    """The text cut to ``limit`` characters; lone surrogates, which JSON allows and UTF-8 does not, become ``?``."""
    return value[:limit].encode("utf-8", "replace").decode()


def _coordinates(values: Any, depth: int, points_left: list[int]) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise RequestError(400, "error.no_geojson")
    if depth:
        return [_coordinates(value, depth - 1, points_left) for value in values]
    points_left[0] -= 1
    if points_left[0] < 0:
        raise RequestError(413, "error.too_many", most=MAX_POINTS)
    numbers = [v for v in values[:2] if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise RequestError(400, "error.no_geojson")
    return [round(float(v), 2) for v in numbers]
