"""Annotations carried between slides: what moves, what stays, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from restain.errors import RestainError
from restain.registration import Transform
from restain.registration.annotations import map_file

SHIFTED = Transform(np.array([[2.0, 0.0, 10.0], [0.0, 2.0, -5.0]]))


def feature(geometry: dict[str, object]) -> dict[str, object]:
    return {"type": "Feature", "id": "a", "geometry": geometry, "properties": {"name": "gland", "n": 3}}


def test_geojson_moves_positions_and_keeps_the_rest(tmp_path: Path) -> None:
    ring = [[0, 0], [4, 0], [4, 4], [0, 0]]
    content = {
        "type": "FeatureCollection",
        "features": [
            feature({"type": "Polygon", "coordinates": [ring]}),
            feature({"type": "MultiPolygon", "coordinates": [[ring], [ring]]}),
            feature({"type": "Point", "coordinates": [1, 2, 9]}),
            feature(
                {"type": "GeometryCollection", "geometries": [{"type": "LineString", "coordinates": [[0, 0], [1, 1]]}]}
            ),
            feature({"type": "Polygon", "coordinates": [ring]})
            | {"nucleusGeometry": {"type": "Point", "coordinates": [3, 3]}},
        ],
    }
    (source := tmp_path / "a.geojson").write_text(json.dumps(content))
    count = map_file(source, SHIFTED, tmp_path / "b.geojson")
    features = json.loads((tmp_path / "b.geojson").read_text())["features"]
    assert count == 4 + 8 + 1 + 2 + 4 + 1
    assert features[0]["geometry"]["coordinates"] == [[[10, -5], [18, -5], [18, 3], [10, -5]]]
    assert features[2]["geometry"]["coordinates"] == [12, -1, 9]
    assert features[4]["nucleusGeometry"]["coordinates"] == [16, 1]
    assert [one["properties"] for one in features] == [{"name": "gland", "n": 3}] * 5
    map_file(tmp_path / "b.geojson", SHIFTED, tmp_path / "c.geojson", inverse=True)
    assert json.loads((tmp_path / "c.geojson").read_text()) == content


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_keeps_columns_and_order(tmp_path: Path, delimiter: str) -> None:
    rows = [["", "name", "Y", "x"], ["1", "a, b", "1", "2"], ["2", "", "0.5", "-3"]]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert map_file(tmp_path / "a.csv", SHIFTED, tmp_path / "b.csv") == 2
    with open(tmp_path / "b.csv", newline="") as file:
        got = list(csv.reader(file, delimiter=delimiter))
    assert got[0] == rows[0]
    assert [row[:2] for row in got[1:]] == [["1", "a, b"], ["2", ""]]
    np.testing.assert_allclose(np.array([row[2:] for row in got[1:]], float), [[-3, 14], [-4, 4]])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"A,B\n1,2\n", "columns X and Y"),
        ("a.csv", b"", "columns X and Y"),
        ("a.csv", b"X,Y\n1,two\n", "point 1 has no numbers"),
        ("a.csv", b"X,Y\n1\n", "point 1 has no numbers"),
        ("a.csv", b"X,Y\n1,inf\n", "not a finite number"),
        ("a.geojson", b'{"type": "Polygon"', "not valid JSON"),
        ("a.geojson", b'{"a": 1}', "neither a feature nor a geometry"),
        ("a.geojson", b'[{"type": "Point", "coordinates": ["a", "b"]}]', "not lists of numbers"),
        ("a.csv", b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_what_holds_no_points_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (source := tmp_path / name).write_bytes(content)
    with pytest.raises(RestainError, match=words) as fault:
        map_file(source, SHIFTED, tmp_path / "out")
    assert str(source) in str(fault.value)
    assert not (tmp_path / "out").exists()
