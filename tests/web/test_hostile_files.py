"""A folder may hold files of every kind of damage and every kind of name: the pages go on, and say what is wrong with which."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from restain.web.annotations import parse_features
from restain.web.staining.uploads import safe_name


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    rgb = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    tifffile.imwrite(root / "whole.tif", rgb, tile=(32, 32), photometric="rgb", compression="deflate")
    tifffile.imwrite(root / "strips.tif", rgb, rowsperstrip=16, photometric="rgb")
    rng = np.random.default_rng(1)
    for name in ("whole", "strips"):
        data = (root / f"{name}.tif").read_bytes()
        tags = int.from_bytes(data[4:8], "little")
        for number in range(30):
            broken = bytearray(data)
            # Where the directory says what the file is: kinds, counts, values and offsets of its tags.
            for place in rng.integers(tags, min(tags + 200, len(data)), int(rng.integers(1, 4))):
                broken[place] = rng.integers(0, 256)
            (root / f"{name}-{number}.tif").write_bytes(broken)
    Path(os.fsdecode(os.fsencode(root) + b"/not text \xff.png")).write_bytes(b"\x89PNG")
    tifffile.imwrite(root / ("很" * 81 + "长.tif"), rgb, photometric="rgb")
    return root


@pytest.fixture(scope="module")
def server(start: Callable, hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    running = start(tmp_path_factory.mktemp("state"), of=hostile)
    yield running
    running.stop()


def test_damaged_files_and_odd_names_close_no_page(server):
    for page in range(1, 4):
        answer = server.get(f"/?page={page}")
        assert answer.status_code == 200
    assert "很很很" in server.get("/?q=很").text
    assert "not text" not in server.get("/?q=not").text


@pytest.mark.slow
def test_what_cannot_be_read_is_told_and_never_a_fault_of_the_server(server, hostile: Path):
    told = 0
    for path in hostile.glob("*-*.tif"):
        for what in ("thumbnail.jpg", "tiles/0/0/0.jpg", "tiles/1/0/0.jpg"):
            answer = server.image(path.name, what)
            assert answer.status_code in (200, 404, 422), (path.name, what)
            if answer.status_code == 422:
                told += 1
                assert str(hostile) not in answer.json()["error"]
    assert told > 10
    for name in ("whole.tif", "strips.tif"):
        assert server.image(name, "tiles/0/0/0.jpg").status_code == 200


@pytest.mark.slow
def test_a_giant_strip_in_a_coarser_level_is_not_decoded(tmp_path: Path, start: Callable):
    (tmp_path / "slides").mkdir()
    with tifffile.TiffWriter(tmp_path / "slides" / "bomb.tif") as tiff:
        shape = (16384, 16384, 3)
        zeros = np.zeros((1024, 1024, 3), np.uint8)
        tiff.write(
            (zeros for _ in range(256)), shape=shape, dtype=np.uint8, tile=(1024, 1024), subifds=1,
            photometric="rgb", compression="deflate",
        )  # fmt: skip
        half = np.zeros((8192, 8192, 3), np.uint8)
        tiff.write(half, subfiletype=1, photometric="rgb", compression="deflate", rowsperstrip=8192)
    running = start(tmp_path / "state", of=tmp_path / "slides")
    try:
        answer = running.image("bomb.tif", "thumbnail.jpg")
        assert answer.status_code == 422
        assert "64" in answer.json()["error"]
    finally:
        running.stop()


def test_half_characters_in_annotations_are_replaced():
    feature = {
        "type": "Feature",
        "id": "\ud800x",
        "geometry": {"type": "Point", "coordinates": [1, 2]},
        "properties": {"name": "a\udfff", "classification": {"name": "\ud83d"}},
    }
    (kept,) = parse_features(json.loads(json.dumps([feature])))
    json.dumps(kept, ensure_ascii=False).encode()
    assert (kept["id"], kept["properties"]["name"], kept["properties"]["classification"]["name"]) == ("?x", "a?", "?")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("dab.ome.tiff", "_dab.ome.tiff"), ("x.dab.tif", "x_dab.tif"), ("Tissue.png", "_Tissue.png"), ("a.png", "a.png")],
)
def test_no_upload_is_named_as_something_made_of_another(given: str, kept: str):
    assert safe_name(given) == kept


def test_a_link_to_the_other_language_stays_on_this_server(server):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "//evil.example/x", headers={"Host": f"127.0.0.1:{server.port}"})
    page = connection.getresponse().read().decode()
    assert 'href="/evil.example/x?lang=' in page
    assert 'href="//' not in page
