"""Tiles show the slide's own pixels, where they belong."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain import NOTICE
from restain.geometry import Point, Region, Size
from restain.her2 import FAINT_OD, INTENSE_OD
from restain.slides import open_slide
from restain.web.errors import RequestError
from restain.web.grid import TILE
from restain.web.library import Library
from restain.web.links import Image as Listed
from restain.web.tiles import Tiles, dab_colours

HE, VIRTUAL, IHC = "block_1.ome.tiff", "virtual/block_1.ome.tiff", "ihc/her2 §1.ome.tiff"


@pytest.fixture(scope="module")
def tiles(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiles:
    return Tiles(Library(folder), tmp_path_factory.mktemp("tiles"))


def named(tiles: Tiles, name: str) -> Listed:
    return next(image for image in tiles.library.images() if image.name == name)


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_a_tile_is_the_slides_region(tiles: Tiles, folder: Path):
    image = named(tiles, HE)
    grid = tiles.facts(image).grid
    with open_slide(folder / HE) as slide:
        for level, column, row in ((grid.top, 1, 1), (grid.top, 2, 2), (0, 0, 0)):
            region = grid.region(level, column, row)
            shown = decoded(tiles.tile(image, level, column, row))
            assert shown.shape[:2] == (region.size.height, region.size.width)
            expected = slide.read(region, grid.mpp * grid.reduction(level)).astype(int)
            assert np.abs(shown - expected).mean() < 6


def test_the_last_row_of_a_rounded_level_is_no_white_line(tmp_path: Path):
    Image.fromarray(np.full((1025, 1025, 3), 60, np.uint8)).save(tmp_path / "dark.png")
    tiles = Tiles(Library(tmp_path), tmp_path / "state")
    shown = decoded(tiles.tile(named(tiles, "dark.png"), 0, 0, 0))
    assert max(shown.shape) <= TILE
    assert shown.max() < 80


def test_a_registered_slide_lies_on_the_other(tiles: Tiles):
    he, ihc = named(tiles, HE), named(tiles, IHC)
    top = tiles.facts(he).grid.top
    # The IHC slide holds the H&E's pixels, moved; on the H&E's grid they are at their place again.
    assert np.abs(decoded(tiles.tile(ihc, top, 1, 1, he)) - decoded(tiles.tile(he, top, 1, 1))).mean() < 4
    assert np.abs(decoded(tiles.tile(ihc, top, 1, 1)) - decoded(tiles.tile(he, top, 1, 1))).mean() > 8


def test_a_pair_without_mpp_is_shown_pixel_on_pixel(tiles: Tiles):
    he, ihc = (named(tiles, f"BCI/{stain}/train/00001_train_2+.png") for stain in ("HE", "IHC"))
    assert tiles.facts(he).mpp is None
    assert np.array_equal(decoded(tiles.tile(ihc, 0, 0, 0, he)), decoded(tiles.tile(ihc, 0, 0, 0)))


def test_what_is_not_registered_is_not_laid_over(tiles: Tiles):
    with pytest.raises(RequestError, match="not_registered"):
        tiles.tile(named(tiles, VIRTUAL), 0, 0, 0, named(tiles, HE))


def test_a_virtual_tile_carries_the_notice(tiles: Tiles):
    assert NOTICE.encode() in tiles.tile(named(tiles, VIRTUAL), 0, 0, 0)
    assert NOTICE.encode() not in tiles.tile(named(tiles, HE), 0, 0, 0)


def test_colours_of_dab_are_fixed_steps():
    od = np.array([[0, FAINT_OD - 0.001, FAINT_OD, INTENSE_OD, 3.0]], np.float32)
    colours = dab_colours(od)
    assert colours[0, :2, 3].tolist() == [0, 0]
    assert colours[0, 2, 3] > 0
    assert np.array_equal(colours[0, 3], colours[0, 4])


def test_a_density_tile_shows_dab_where_it_is(tiles: Tiles, folder: Path):
    density = tiles.library.related(named(tiles, HE)).overlays[named(tiles, VIRTUAL).id].density
    grid = tiles.density_grid(density)
    alpha = np.asarray(Image.open(io.BytesIO(tiles.density(density, grid.top, 0, 0))))[..., 3]
    with open_slide(folder / VIRTUAL) as slide:
        brown = slide.read(Region(Point(0, 0), Size(TILE, TILE)), slide.mpp)[..., 2] < 140
    assert (alpha[brown] > 0).mean() > 0.9
    assert alpha[:50, :50].max() == 0


def test_a_thumbnail_is_made_once_and_outside_the_folder(tiles: Tiles, folder: Path, tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    mine = Tiles(tiles.library, tmp_path)
    image = named(tiles, HE)
    data = mine.thumbnail(image)
    (kept,) = (tmp_path / "thumbnails").iterdir()
    assert kept.read_bytes() == data == mine.thumbnail(image)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_picture_too_large_to_decode_is_refused_by_its_header(tmp_path: Path):
    Image.new("RGB", (9000, 8000)).save(tmp_path / "bomb.png", compress_level=1)
    tiles = Tiles(Library(tmp_path), tmp_path / "state")
    with pytest.raises(RequestError, match="too_large"):
        tiles.facts(named(tiles, "bomb.png"))


def test_what_is_wrong_with_a_file_is_told_without_its_folders(tiles: Tiles, folder: Path):
    with pytest.raises(RequestError, match="unreadable") as caught:
        tiles.facts(named(tiles, "odd/broken.png"))
    assert "broken.png" in str(caught.value.values)
    assert str(folder) not in str(caught.value.values)
