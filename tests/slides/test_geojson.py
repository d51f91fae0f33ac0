"""Outlines: drawing them again gives the mask, files go round, and every fault is a sentence."""

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label

from restain.errors import RestainError
from restain.geometry import Size
from restain.slides.geojson import Polygon, rasterize, read_geojson, to_polygons, write_geojson

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))
SCALES = st.tuples(st.floats(2, 20), st.floats(0.1, 1.0))
SQUARE = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0], [0.0, 0.0]]
HOLE = [[2.0, 2.0], [2.0, 5.0], [5.0, 5.0], [5.0, 2.0], [2.0, 2.0]]


def _size(mask: Any) -> Size:
    return Size(mask.shape[1], mask.shape[0])


@given(MASKS, SCALES)
@settings(max_examples=150, deadline=None)
def test_drawing_outlines_gives_the_mask_back(mask: Any, scales: tuple[float, float]) -> None:
    mpp, slide_mpp = scales
    polygons = to_polygons(mask, mpp, slide_mpp)
    assert len(polygons) == label(mask, connectivity=1).max()
    assert np.array_equal(rasterize(polygons, _size(mask), mpp / slide_mpp), mask)


@given(MASKS, SCALES)
@settings(max_examples=60, deadline=None)
def test_a_file_keeps_the_mask(mask: Any, scales: tuple[float, float]) -> None:
    mpp, slide_mpp = scales
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.geojson"
        write_geojson(path, to_polygons(mask, mpp, slide_mpp))
        assert np.array_equal(rasterize(read_geojson(path), _size(mask), mpp / slide_mpp), mask)


def test_an_outline_lies_where_the_pixels_are() -> None:
    mask = np.zeros((30, 40), bool)
    mask[10:20, 5:35] = True
    mask[12:15, 10:20] = False
    (polygon,) = to_polygons(mask, 8.0, 0.5)
    assert polygon.bounds == (5 * 16, 10 * 16, 35 * 16, 20 * 16)
    assert len(polygon.interiors) == 1
    # Of every corner a triangle with sides of half a pixel is cut off; the hole's cuts give back what the outline's take.
    assert polygon.area == pytest.approx(mask.sum() * 16**2)


def test_an_island_in_a_hole_is_a_polygon_of_its_own() -> None:
    mask = np.ones((9, 9), bool)
    mask[2:7, 2:7] = False
    mask[4, 4] = True
    assert [len(polygon.interiors) for polygon in to_polygons(mask, 1.0, 1.0)] == [1, 0]


def test_polygons_may_overlap_and_leave_the_picture() -> None:
    square = np.array([(-5.0, -5.0), (3.0, -5.0), (3.0, 3.0), (-5.0, 3.0)])
    drawn = rasterize([Polygon(square), Polygon(square + 1), Polygon(square + 100)], Size(6, 5), 1.0)
    truth = np.zeros((5, 6), bool)
    truth[:3, :3] = truth[:4, :4] = True
    assert np.array_equal(drawn, truth)


def test_file_is_what_qupath_reads(tmp_path: Path) -> None:
    mask = np.ones((9, 9), bool)
    mask[3:5, 3:5] = False
    path = tmp_path / "a.geojson"
    write_geojson(path, to_polygons(mask, 8.0, 0.25))
    written = json.loads(path.read_text())
    assert written["type"] == "FeatureCollection"
    (feature,) = written["features"]
    assert feature["type"] == "Feature"
    assert feature["geometry"]["type"] == "Polygon"
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "Tissue"
    for ring in feature["geometry"]["coordinates"]:
        assert ring[0] == ring[-1]
    turns = [
        np.sign(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(r))) for r in feature["geometry"]["coordinates"]
    ]
    assert turns == [1, -1]
    first = path.read_bytes()
    write_geojson(path, to_polygons(mask, 8.0, 0.25))
    assert path.read_bytes() == first


def _feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": geometry}


POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
MULTI = {"type": "MultiPolygon", "coordinates": [[SQUARE], [HOLE]]}


@pytest.mark.parametrize(
    ("content", "holes"),
    [
        ({"type": "FeatureCollection", "features": [_feature(POLYGON), _feature(MULTI)]}, [1, 0, 0]),
        (_feature(POLYGON), [1]),
        (POLYGON, [1]),
        (MULTI, [0, 0]),
        ([_feature(POLYGON), _feature(POLYGON)], [1, 1]),
        ({"type": "FeatureCollection", "features": []}, []),
        ({"type": "Polygon", "coordinates": [[[*point, 0.0] for point in SQUARE]]}, [0]),
    ],
)
def test_reads_every_form(tmp_path: Path, content: Any, holes: list[int]) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(content))
    polygons = read_geojson(path)
    assert [len(polygon.interiors) for polygon in polygons] == holes
    assert all(len(ring.coords) == 5 for one in polygons for ring in (one.exterior, *one.interiors))


def test_an_outline_that_crosses_itself_is_split(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    bow = [[0.0, 0.0], [8.0, 8.0], [8.0, 0.0], [0.0, 8.0], [0.0, 0.0]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [bow]}))
    found = read_geojson(path)
    assert [polygon.area for polygon in found] == [16.0, 16.0]
    assert all(polygon.is_valid for polygon in found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("3", "something without a geometry"),
        ('"a"', "something without a geometry"),
        ("null", "something without a geometry"),
        ("[" * 100_000, "not valid JSON"),
        ('{"type": "FeatureCollection"}', "without a list of features"),
        ('{"type": "Topology"}', "a Topology"),
        ('{"type": ["Polygon"]}', "something without a geometry"),
        ('{"type": "Feature", "geometry": null}', "something without a geometry"),
        ('{"type": "Point", "coordinates": [1, 2]}', "a Point"),
        ('{"type": "GeometryCollection", "geometries": []}', "a GeometryCollection"),
        ('{"type": "Polygon"}', "without coordinates"),
        ('{"type": "Polygon", "coordinates": []}', "without coordinates"),
        ('{"type": "MultiPolygon", "coordinates": [[]]}', "without coordinates"),
        ('{"type": "MultiPolygon", "coordinates": {"a": 1}}', "without coordinates"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', "not pairs of numbers"),
        ('{"type": "Polygon", "coordinates": [[["a", "b"]]]}', "not pairs of numbers"),
        ('{"type": "Polygon", "coordinates": [null]}', "not pairs of numbers"),
        ('{"type": "Polygon", "coordinates": [[[[1], 2], [1, 2], [3, 4]]]}', "not pairs of numbers"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [1, 1]]]}', "not a finite number"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 0]]]}', "fewer than three"),
        ('{"type": "Polygon", "coordinates": [[]]}', "fewer than three"),
    ],
)
def test_every_fault_is_one_sentence_that_names_the_file(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "region.geojson"
    path.write_text(text)
    with pytest.raises(RestainError, match=says) as caught:
        read_geojson(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="does not exist"):
        read_geojson(tmp_path / "none.geojson")
    with pytest.raises(RestainError, match="cannot be read"):
        read_geojson(tmp_path)
    (tmp_path / "b.geojson").write_bytes(b"\xff\xfe\xfa\x00")
    with pytest.raises(RestainError, match="not GeoJSON"):
        read_geojson(tmp_path / "b.geojson")
    with pytest.raises(RestainError, match="cannot be written"):
        write_geojson(tmp_path / "no" / "a.geojson", [])
