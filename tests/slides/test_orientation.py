"""Orientation is applied in reading, to every format that states one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from typer.testing import CliRunner

from restain.cli import app
from restain.geometry import Point, Region, Size
from restain.slides import open_slide, read_image

TAG = 0x0112


def stored_picture() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (90, 140, 3), np.uint8)


def write(path: Path, orientation: int, mpp: tuple[float, float] = (0.5, 0.5)) -> None:
    """The picture with an orientation, as the suffix says; TIFF as a pyramid in tiles."""
    exif = Image.Exif()
    exif[TAG] = orientation
    rgb = stored_picture()
    if path.suffix == ".tif":
        tifffile.imwrite(
            path, rgb, photometric="rgb", metadata=None, tile=(32, 32), resolution=(1e4 / mpp[0], 1e4 / mpp[1]),
            resolutionunit="CENTIMETER", extratags=[(274, "H", 1, orientation, True)],
        )  # fmt: skip
    elif path.suffix == ".webp":
        Image.fromarray(rgb).save(path, lossless=True, exif=exif)
    elif path.suffix == ".jpg":
        Image.fromarray(rgb).save(path, quality=95, subsampling=0, exif=exif)
    else:
        Image.fromarray(rgb).save(path, exif=exif, dpi=(25400 / mpp[0], 25400 / mpp[1]))


def turned(orientation: int) -> np.ndarray:
    exif = Image.Exif()
    exif[TAG] = orientation
    picture = Image.fromarray(stored_picture())
    picture.getexif()[TAG] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_applied_as_pillow_applies_them(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, orientation)
    want = turned(orientation)
    got = read_image(path)
    if suffix == ".jpg":
        with Image.open(path) as picture:
            want = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(got, want)
    with open_slide(path, header_only=True) as slide:
        assert slide.size == Size(want.shape[1], want.shape[0])
        assert slide.orientation == orientation


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.integers(1, 8),
    suffix=st.sampled_from([".png", ".tif"]),
    x=st.integers(-5, 100),
    y=st.integers(-5, 100),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
)
def test_a_region_of_a_turned_image_is_that_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, orientation: int, suffix: str, x: int, y: int, width: int, height: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"turned-{orientation}{suffix}"
    if not path.exists():
        write(path, orientation)
    whole = turned(orientation)
    padded = np.full((whole.shape[0] + 200, whole.shape[1] + 200, 3), 255, np.uint8)
    padded[5 : 5 + whole.shape[0], 5 : 5 + whole.shape[1]] = whole
    with open_slide(path) as slide:
        got = slide.read(Region(Point(x, y), Size(width, height)), slide.mpp)
    assert np.array_equal(got, padded[5 + y : 5 + y + height, 5 + x : 5 + x + width])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_sides_of_pixels_turn_with_them(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", 6, mpp=(0.46, 0.92))
    with open_slide(tmp_path / f"a{suffix}", inspect=True) as slide:
        assert "0.92 by 0.46 µm" in slide.describe()


def test_levels_of_a_pyramid_turn_too(tmp_path: Path) -> None:
    rgb = np.kron(np.random.default_rng(2).integers(0, 256, (12, 20, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        form = {"photometric": "rgb", "tile": (64, 64), "metadata": None, "extratags": [(274, "H", 1, 8, True)]}
        tiff.write(rgb, **form)
        tiff.write(np.ascontiguousarray(rgb[::2, ::2]), subfiletype=1, **form)
    with open_slide(tmp_path / "a.tif", mpp=0.25) as slide:
        assert [level.size for level in slide.levels] == [Size(192, 320), Size(96, 160)]
        assert np.array_equal(slide.read(Region(Point(0, 0), Size(96, 160)), 0.5), np.rot90(rgb[::2, ::2], 1))


def test_commands_see_a_photo_upright(tmp_path: Path) -> None:
    write(tmp_path / "photo.jpg", 6)
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "photo.jpg")])
    assert shown.exit_code == 0
    assert "90 x 140 px" in shown.stdout
    made = CliRunner().invoke(app, ["tissue", str(tmp_path / "photo.jpg"), "--mpp", "4", "-o", str(tmp_path / "out")])
    assert made.exit_code == 0
    with Image.open(tmp_path / "out" / "photo.tissue.png") as drawing:
        assert drawing.height > drawing.width
