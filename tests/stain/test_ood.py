from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from restain.bundle import Bundle
from restain.data import Pair
from restain.geometry import Point, Region, Size
from restain.ood.detector import OodDetector, fit_ood_detector
from restain.ood.tiles import LEAST_TISSUE, OodTiles, TileScores, fullest
from restain.recipe import AugmentRecipe
from restain.slides import open_slide, rasterize, read_geojson
from restain.stain import Model, StainOptions, stain_slide


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """``(1024, 1536, 3)``: texture without glass."""
    coarse = np.random.default_rng(5).integers((140, 60, 120), (235, 150, 200), (86, 129, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((1536, 1024), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def ood(write_slide, picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> OodDetector:
    """Of pieces of the picture as a slide file holds it."""
    folder = tmp_path_factory.mktemp("pieces")
    with open_slide(write_slide(folder / "clean.ome.tiff", picture)) as slide:
        clean = slide.read(Region(Point(0, 0), slide.size), slide.mpp)
    pairs = []
    for number, (top, left) in enumerate((top, left) for top in range(0, 800, 190) for left in range(0, 1200, 190)):
        path = folder / f"{number}.png"
        Image.fromarray(clean[top : top + 256, left : left + 256]).save(path)
        pairs.append(Pair(str(number), "train", None, path, path))
    return fit_ood_detector(pairs, AugmentRecipe())


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 9))
def test_the_fullest_piece_lies_inside_and_is_no_emptier_than_the_middle(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tissue = np.zeros((height, width), np.float32)
    tissue[: int(rng.integers(0, height + 1)), : int(rng.integers(0, width + 1))] = 1
    piece = fullest(tissue)
    top, left = max(0, height - 256) // 2, max(0, width - 256) // 2
    middle = float(tissue[top : top + 256, left : left + 256].mean())
    if piece is None:
        assert min(height, width) < 128 or middle < LEAST_TISSUE
    else:
        assert tissue[piece].shape == (min(height, 256), min(width, 256))
        assert tissue[piece].mean() >= max(middle, LEAST_TISSUE)


@pytest.mark.slow
def test_what_was_judged_before_a_kill_is_not_judged_again(
    ood: OodDetector, picture: np.ndarray, tmp_path: Path
) -> None:
    tissue = np.ones((512, 512), np.float32)
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3)).astype(np.uint8)
    first = TileScores(tmp_path / "ood.jsonl", (2, 3), ood)
    first.score(0, 1, noise, tissue)
    first.score(1, 2, picture[100:612, 100:612], tissue)
    with open(tmp_path / "ood.jsonl", "a") as file:
        file.write("[1, 0, 3.")
    second = TileScores(tmp_path / "ood.jsonl", (2, 3), ood)
    np.testing.assert_allclose(second.scores, first.scores, atol=1e-4)
    second.score(0, 1, picture[100:612, 100:612], tissue)
    second.score(1, 0, noise, tissue)
    third = TileScores(tmp_path / "ood.jsonl", (2, 3), ood)
    assert third.figures() == second.figures()
    assert third.figures().judged == 3
    assert third.scores[0, 1] == pytest.approx(first.scores[0, 1], abs=1e-4)


def test_glass_with_a_rim_of_tissue_is_not_judged(ood: OodDetector, picture: np.ndarray, tmp_path: Path) -> None:
    tiles = TileScores(tmp_path / "ood.jsonl", (1, 2), ood)
    rim = np.full((512, 512, 3), 238, np.uint8)
    rim[:, 200:240] = picture[:512, 200:240]
    half = rim.copy()
    half[:, :256] = picture[:512, :256]
    for column, he in enumerate((rim, half)):
        tiles.score(0, column, he, np.ones((512, 512), np.float32))
    assert np.isnan(tiles.scores).tolist() == [[True, False]]


def test_outlines_end_at_the_slides_border(ood: OodDetector, tmp_path: Path) -> None:
    tiles = TileScores(tmp_path / "ood.jsonl", (2, 3), ood)
    tiles.scores[:] = [[0.5, 2, np.nan], [0.5, 0.5, 2]]
    low, high = tiles.outlines(512, Size(1500, 1000), 0.5, 0.25)
    assert low.bounds == (1024, 0, 2048, 1024)
    assert high.bounds == (2048, 1024, 3000, 2000)
    assert tiles.figures() == OodTiles(judged=5, above=2, median=0.5)


@pytest.mark.slow
def test_a_corrupted_part_of_a_slide_is_outlined_and_the_rest_is_not(
    write_slide, ood: OodDetector, picture: np.ndarray, bundle: Bundle, tmp_path: Path
) -> None:
    corrupted = picture.copy()
    brown = np.random.default_rng(1).integers((90, 50, 20), (220, 190, 170), (500, 500, 3)).astype(np.uint8)
    corrupted[518:1018, 1030:1530] = brown
    knowing = replace(bundle, ood=ood)
    slide = write_slide(tmp_path / "slide.ome.tiff", corrupted)
    made = stain_slide(slide, tmp_path / "out", Model(knowing), StainOptions(everywhere=True))
    assert made.ood is not None
    inside = rasterize(read_geojson(made.ood), Size(1536, 1024), 1.0)
    assert inside[560:980, 1070:1490].all()
    assert not inside[:, :1024].any()
    assert not inside[:512].any()
    assert (made.figures.ood_tiles.above, made.figures.ood_tiles.judged) == (1, 6)


def test_a_model_that_does_not_know_its_images_says_nothing(small: Path, bundle: Bundle, tmp_path: Path) -> None:
    made = stain_slide(small, tmp_path, Model(bundle))
    assert made.ood is None
    assert made.figures.ood_tiles is None
    assert not list(tmp_path.glob("*.ood.geojson"))
