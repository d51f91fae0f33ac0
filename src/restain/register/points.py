"""Annotations carried from one slide to the other: GeoJSON as QuPath writes it, and CSV with columns X and Y."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError
from restain.files import write_text
from restain.register.files import text_of
from restain.register.transform import Points, Transform

GEOMETRIES = ("geometry", "nucleusGeometry")
"""Members of a feature that hold coordinates; the second is QuPath's, of cells."""

Move = Callable[[Points], Points]


def map_file(source: Path, transform: Transform, out: Path, *, inverse: bool = False) -> int:
    """Carry the points of a GeoJSON or CSV file to the other slide; all else in it stays.

    Args:
        source: GeoJSON of any geometries, or CSV with a header that names columns X and Y (in any case); px of level 0.
        transform: from the fixed to the moving slide; points of the fixed slide are expected.
        out: the file to write, in the same format.
        inverse: the points are of the moving slide and go to the fixed one.

    Returns:
        How many points were carried.

    Raises:
        RestainError: if the file cannot be read or is neither, a coordinate is not a finite number, a point has no
            counterpart because the transform folds there, or the result cannot be written.
    """
    text = text_of(source, "is neither GeoJSON nor CSV (it is not UTF-8 text)")
    count = 0

    def move(points: Points) -> Points:
        nonlocal count
        if not np.isfinite(points).all():
            raise RestainError(f"{source} holds a coordinate that is not a finite number.")
        moved = transform.inverse(points) if inverse else transform.forward(points)
        if not np.isfinite(moved).all():
            lost = int((~np.isfinite(moved).all(axis=1)).sum())
            raise RestainError(f"{source}: {lost} points have no counterpart, because the transform is folded there.")
        count += len(points)
        return moved

    mapped = _geojson(source, text, move) if text.lstrip()[:1] in ("{", "[") else _csv(source, text, move)
    write_text(out, mapped)
    return count


def _csv(source: Path, text: str, move: Move) -> str:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    names = [name.strip().upper() for name in rows[0]] if rows else []
    if "X" not in names or "Y" not in names:
        raise RestainError(f"{source} is neither GeoJSON nor CSV with columns X and Y.")
    at = names.index("X"), names.index("Y")
    lines = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    points = np.empty((len(lines), 2))
    for number, row in enumerate(lines):
        try:
            points[number] = [float(row[column]) for column in at]
        except (ValueError, IndexError):
            raise RestainError(f"{source}: point {number + 1} has no numbers under X and Y.") from None
    for row, moved in zip(lines, move(points), strict=True):
        for column, value in zip(at, moved, strict=True):
            row[column] = f"{value:.4f}"
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([*rows[:1], *lines])
    return out.getvalue()


def _geojson(source: Path, text: str, move: Move) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise RestainError(f"{source} is not GeoJSON (its text is not valid JSON).") from None
    places: list[tuple[list[Any], Any]] = []
    _collect(source, content, places)
    if places:
        for (position, _), moved in zip(places, move(np.array([xy for _, xy in places])), strict=True):
            position[:2] = [round(float(value), 4) for value in moved]
    return json.dumps(content)


def _collect(source: Path, item: Any, places: list[tuple[list[Any], Any]]) -> None:
    """Find every position of every geometry, as the list that holds it and its (x, y)."""
    if isinstance(item, list):
        for one in item:
            _collect(source, one, places)
        return
    if not isinstance(item, dict):
        raise RestainError(f"{source} is not GeoJSON (something in it is neither a feature nor a geometry).")
    if "features" in item:
        _collect(source, item["features"], places)
    elif item.get("type") == "Feature":
        for key in GEOMETRIES:
            if item.get(key) is not None:
                _collect(source, item[key], places)
    elif "geometries" in item:
        _collect(source, item["geometries"], places)
    elif "coordinates" in item:
        _positions(source, item["coordinates"], places)
    else:
        raise RestainError(f"{source} is not GeoJSON (something in it is neither a feature nor a geometry).")


def _positions(source: Path, item: Any, places: list[tuple[list[Any], Any]]) -> None:
    if not isinstance(item, list):
        raise RestainError(f"{source} holds coordinates that are not lists of numbers.")
    if len(item) >= 2 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in item):
        places.append((item, (float(item[0]), float(item[1]))))
        return
    for one in item:
        _positions(source, one, places)
