"""Annotations mapped from one slide to the other: GeoJSON as QuPath writes it, and CSV with columns X and Y."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import mapping, shape

from restain.errors import RestainError
from restain.files import read_utf8, write_text
from restain.registration.transform import Points, Transform

GEOMETRIES = ("geometry", "nucleusGeometry")
"""Members of a feature that hold coordinates; the second is QuPath's, for cells."""
DECIMALS = 4


def map_file(source: Path, transform: Transform, out: Path, *, inverse: bool = False) -> int:
    """Map the points of a GeoJSON or CSV file to the other slide; everything else in it stays.

    Args:
        source: GeoJSON of any geometries, or CSV with a header that names columns X and Y (in any case); px of level 0.
        transform: from the fixed to the moving slide; points of the fixed slide are expected.
        out: the file to write, in the same format.
        inverse: map points of the moving slide to the fixed one.

    Returns:
        The number of points.

    Raises:
        RestainError: if the file cannot be read or is neither, a coordinate is not a finite number, a point has no
            counterpart because the transform folds there, or the result cannot be written.
    """
    text = read_utf8(source, "is neither GeoJSON nor CSV (it is not UTF-8 text)")
    count = 0

    def move(points: Points) -> Points:
        nonlocal count
        if not np.isfinite(points).all():
            raise RestainError(f"{source} holds a coordinate that is not a finite number.")
        moved = transform.inverse(points) if inverse else transform.forward(points)
        if lost := np.count_nonzero(~np.isfinite(moved).all(axis=1)):
            raise RestainError(f"{source}: {lost} points have no counterpart, because the transform is folded there.")
        count += len(points)
        return moved.round(DECIMALS)

    mapped = _geojson(source, text, move) if text.lstrip()[:1] in ("{", "[") else _csv(source, text, move)
    write_text(out, mapped)
    return count


def _csv(source: Path, text: str, move: Callable[[Points], Points]) -> str:
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    names = [name.strip().upper() for name in rows[0]] if rows else []
    if "X" not in names or "Y" not in names:
        raise RestainError(f"{source} is neither GeoJSON nor CSV with columns X and Y.")
    x, y = names.index("X"), names.index("Y")
    lines = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    points = np.empty((len(lines), 2))
    for number, row in enumerate(lines):
        try:
            points[number] = float(row[x]), float(row[y])
        except (ValueError, IndexError):
            raise RestainError(f"{source}: point {number + 1} has no numbers under X and Y.") from None
    for row, moved in zip(lines, move(points), strict=True):
        row[x], row[y] = (f"{value:.{DECIMALS}f}" for value in moved)
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([*rows[:1], *lines])
    return out.getvalue()


def _geojson(source: Path, text: str, move: Callable[[Points], Points]) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise RestainError(f"{source} is not GeoJSON (its text is not valid JSON).") from None
    members = list(_geometries(source, content))
    try:
        shapes = np.array([shape(one) for one in members], dtype=object)
    except (ValueError, TypeError, AttributeError, LookupError, ShapelyError):
        raise RestainError(f"{source} holds coordinates that are not lists of numbers of a valid geometry.") from None
    moved = shapely.transform(shapes, lambda xyz: np.hstack([move(xyz[:, :2]), xyz[:, 2:]]), include_z=True)
    for member, geometry in zip(members, moved, strict=True):
        member |= mapping(geometry)
    return json.dumps(content)


def _geometries(source: Path, item: Any) -> Iterator[dict[str, Any]]:
    """Every geometry of a document, as the object that holds it."""
    if isinstance(item, list):
        for one in item:
            yield from _geometries(source, one)
    elif isinstance(item, dict) and "features" in item:
        yield from _geometries(source, item["features"])
    elif isinstance(item, dict) and item.get("type") == "Feature":
        yield from _geometries(source, [item[key] for key in GEOMETRIES if item.get(key) is not None])
    elif isinstance(item, dict) and ("coordinates" in item or "geometries" in item):
        yield item
    else:
        raise RestainError(f"{source} is not GeoJSON (something in it is neither a feature nor a geometry).")
