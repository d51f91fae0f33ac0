"""The tissue mask on phantom tissue laid on glass, where the truth is known, and on a real slide where present."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from restain.evaluation.corruptions import PENS
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.optics import EOSIN, optical_density, transmit
from restain.phantom import make_pair
from restain.slides.geojson import rasterize, read_geojson
from restain.slides.mask import TissueMask, ink_marks, measure_glass, tissue_mask, tissue_of, write_tissue

CMU = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
MPP = 8.0
SIDE = 384
GLASSES = {"white": (245, 245, 245), "saturated": (255, 255, 255), "grey": (205, 206, 208), "yellow": (243, 232, 200)}
Bools = NDArray[np.bool_]


def _texture(which: str) -> NDArray[np.float64]:
    """Phantom tissue at 8 µm per px as optical density over its own glass, ``(SIDE, SIDE, 3)``."""
    pair = make_pair(5, 1, Her2Level.TWO, size=512, mpp=2.0)
    picture = pair.he if which == "he" else pair.ihc
    light = picture.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    od = optical_density(light, pair.record[which]["white"]).astype(np.float64)
    return np.pad(od, ((0, SIDE - 128), (0, SIDE - 128), (0, 0)), mode="symmetric")


@pytest.fixture(scope="module")
def he() -> NDArray[np.float64]:
    return _texture("he")


def _ellipse(y: float, x: float, height: float, width: float) -> Bools:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 <= 1


ISLANDS = _ellipse(110, 120, 70, 90) | _ellipse(280, 260, 60, 85) | _ellipse(320, 60, 22, 30)


def _photo(od: NDArray[np.floating], glass: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    light = transmit(od, glass) + np.random.default_rng([seed, 8]).normal(0, 1.0, od.shape)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def _on_glass(texture: NDArray[np.float64], where: Bools = ISLANDS) -> NDArray[np.float64]:
    """Tissue with a border one pixel soft, as the optics leave it."""
    return texture * ndimage.gaussian_filter(where.astype(np.float64), 0.7)[..., None]


def _iou(found: Bools, truth: Bools) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("name", GLASSES)
def test_finds_islands_on_glass_of_any_colour(he: NDArray[np.float64], name: str) -> None:
    found = tissue_of(_photo(_on_glass(he), GLASSES[name]), MPP)
    assert _iou(found.mask, ISLANDS) > 0.95
    assert np.abs(found.glass - GLASSES[name]).max() <= 2
    assert ndimage.label(found.mask)[1] == 3


def test_finds_ihc_too() -> None:
    found = tissue_of(_photo(_on_glass(_texture("ihc")), GLASSES["white"]), MPP)
    assert _iou(found.mask, ISLANDS) > 0.93


@pytest.mark.parametrize("mpp", [4.0, 16.0])
def test_sizes_are_physical(he: NDArray[np.float64], mpp: float) -> None:
    picture = _photo(_on_glass(he), GLASSES["white"])
    if mpp < MPP:
        picture, truth = np.kron(picture, np.ones((2, 2, 1), np.uint8)), np.kron(ISLANDS, np.ones((2, 2), bool))
    else:
        picture = picture.reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
        truth = ISLANDS[::2, ::2]
    assert _iou(tissue_of(picture, mpp).mask, truth) > 0.93


def test_glass_alone_holds_no_tissue() -> None:
    slope = np.linspace(0, 0.02, SIDE)[None, :, None] * np.ones((SIDE, SIDE, 3))
    for name, glass in GLASSES.items():
        assert not tissue_of(_photo(slope, glass), MPP).mask.any(), name


def test_tissue_alone_is_all_tissue(he: NDArray[np.float64]) -> None:
    assert tissue_of(_photo(he + 0.02, GLASSES["white"]), MPP).mask.mean() > 0.95


@pytest.mark.parametrize("fill", [255, 0])
def test_what_was_not_scanned_is_no_tissue(he: NDArray[np.float64], fill: int) -> None:
    picture = _photo(_on_glass(he), (236, 234, 235))
    picture[:, 350:] = fill
    found = tissue_of(picture, MPP)
    assert np.abs(found.glass - (236, 234, 235)).max() <= 2
    assert not found.mask[:, 352:].any()
    assert _iou(found.mask[:, :350], ISLANDS[:, :350]) > 0.95


@pytest.mark.parametrize("ink", PENS)
def test_skips_pen_on_glass_and_on_tissue(he: NDArray[np.float64], ink: str) -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    on_glass = (np.abs(rows - columns * 0.3 - 195) < 10) & (columns < 230) & ~ISLANDS
    on_tissue = (np.abs(columns - 250 - 0.1 * rows) < 12) & (rows > 200) & (rows < 350)
    cover = ndimage.gaussian_filter((on_glass | on_tissue).astype(float), 1.0)
    streaks = 1 + 0.15 * np.sin(rows * 0.9)
    od = _on_glass(he) + (cover * streaks)[..., None] * np.asarray(PENS[ink])
    found = tissue_of(_photo(od, GLASSES["white"]), MPP).mask
    assert (found & on_glass).sum() / on_glass.sum() < 0.01
    assert (found & on_tissue).sum() / on_tissue.sum() < 0.03
    assert _iou(found, ISLANDS & ~on_tissue) > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_takes_no_stain_for_ink(seed: int) -> None:
    pair = make_pair(seed, 0, Her2Level.THREE, size=256, mpp=2.0)
    for name, picture in (("he", pair.he), ("ihc", pair.ihc)):
        light = picture.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert not ink_marks(optical_density(light, pair.record[name]["white"]), MPP).any(), name


def test_a_field_of_tissue_whose_brightest_flat_pixels_are_eosin_is_all_tissue(he: NDArray[np.float64]) -> None:
    # Even eosin is flat as glass is, and brighter than the tissue round it.
    od = he + 0.1
    od[100:160, 100:160] = 0.08 * np.array(EOSIN)
    assert tissue_of(_photo(od, (245, 245, 245)), MPP).mask.all()


def test_skips_dust(he: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(3)
    dust = np.zeros((SIDE, SIDE))
    for y, x in rng.integers(10, SIDE - 10, (120, 2)):
        dust[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = rng.uniform(0.2, 1.0)
    dust[ISLANDS] = 0
    picture = _photo(_on_glass(he) + dust[..., None], GLASSES["white"])
    assert _iou(tissue_of(picture, MPP).mask, ISLANDS) > 0.93


def test_keeps_fat_and_lumina_but_not_large_gaps(he: NDArray[np.float64]) -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    # Fat cells of 80 µm: thin membranes of eosin, a few percent of a pixel's light.
    membranes = ((rows % 10 == 0) | ((columns + 5 * (rows // 10 % 2)) % 10 == 0)).astype(float)
    fat = _ellipse(110, 120, 45, 60)
    lumen = _ellipse(280, 220, 22, 22)
    gap = _ellipse(280, 290, 40, 40)
    od = he.copy()
    od[fat] = 0.15 * membranes[fat][:, None] * np.asarray(EOSIN)
    od[lumen | gap] = 0
    found = tissue_of(_photo(_on_glass(od), GLASSES["white"]), MPP).mask
    assert found[fat].mean() > 0.97
    assert found[lumen].all()
    assert found[gap].mean() < 0.15


def test_fat_at_the_border_of_a_section_is_tissue() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    membranes = ((rows % 10 == 0) | ((columns + 5 * (rows // 10 % 2)) % 10 == 0)).astype(float)
    od = 0.15 * (membranes * ISLANDS)[..., None] * np.asarray(EOSIN)
    found = tissue_of(_photo(od, GLASSES["white"]), MPP).mask
    assert _iou(found, ISLANDS) > 0.85


@given(st.integers(-40, 300), st.integers(-40, 300), st.integers(1, 200), st.integers(1, 200), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_covers_is_the_share_of_pixels(x: int, y: int, width: int, height: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((21, 17)) < 0.5
    found = TissueMask(mask, 10.0, np.full(3, 240, np.float32))
    fine = np.zeros((600, 600), bool)
    fine[50 : 50 + 21 * 10, 50 : 50 + 17 * 10] = np.kron(mask, np.ones((10, 10), bool))
    truth = fine[y + 50 : y + 50 + height, x + 50 : x + 50 + width].mean()
    assert found.covers(Region(Point(x, y), Size(width, height)), 1.0) == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan")])
def test_refuses_an_impossible_mpp(mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp"):
        tissue_of(np.full((8, 8, 3), 240, np.uint8), mpp)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (3, 2, 3)])
def test_a_picture_of_a_few_pixels_works(shape: tuple[int, int, int]) -> None:
    assert tissue_of(np.full(shape, 240, np.uint8), MPP).mask.shape == shape[:2]


def test_glass_spread_follows_the_noise() -> None:
    rng = np.random.default_rng(0)
    spreads = [measure_glass((230 + rng.normal(0, s, (128, 128, 3))).astype(np.uint8))[1] for s in (0.5, 1.5)]
    assert spreads[0] < spreads[1] < 0.01


@pytest.mark.skipif(not CMU.is_file(), reason="the shared sample slide is not beside the checkout")
def test_real_slide() -> None:
    from restain.slides.slide import open_slide

    with open_slide(CMU) as slide:
        found = tissue_mask(slide)
    height, width = found.mask.shape
    assert (width, height) == (139, 185) or (width, height) == (138, 185)
    # Read off the picture: the section, its split lumen, the glass left and right of it, the dust at the right.
    at = {"section": (150, 75), "lumen": (25, 79), "left": (120, 15), "right": (100, 125), "dust": (37, 130)}
    values = {name: bool(found.mask[place]) for name, place in at.items()}
    assert values == {"section": True, "lumen": True, "left": False, "right": False, "dust": False}
    assert 0.38 < found.mask.mean() < 0.47
    assert found.glass.min() > 238


def test_writes_outline_and_picture(he: NDArray[np.float64], tmp_path: Path) -> None:
    slide = tmp_path / "a.png"
    Image.fromarray(_photo(_on_glass(he), GLASSES["white"])).save(slide)
    said = write_tissue(slide, tmp_path / "new" / "out", mpp=MPP)
    assert "3 pieces" in said
    polygons = read_geojson(tmp_path / "new" / "out" / "a.tissue.geojson")
    assert _iou(rasterize(polygons, Size(SIDE, SIDE), 1.0), ISLANDS) > 0.95
    drawn = np.array(Image.open(tmp_path / "new" / "out" / "a.tissue.png"))
    assert drawn.shape == (SIDE, SIDE, 3)
    edge = (drawn == (0, 160, 80)).all(axis=-1)
    assert 0.005 < edge.mean() < 0.03


def test_a_slide_without_tissue_gives_an_empty_outline(tmp_path: Path) -> None:
    slide = tmp_path / "glass.png"
    Image.fromarray(_photo(np.zeros((64, 64, 3)), GLASSES["white"])).save(slide)
    assert "no tissue found" in write_tissue(slide, tmp_path, mpp=MPP)
    assert read_geojson(tmp_path / "glass.tissue.geojson") == []
