from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from restain.geometry import Size
from restain.images import write_png
from restain.review import create_study, read_definition
from restain.review.blinding import LEAST_IMAGES, Appearance, differences, measure_appearance
from restain.review.definition import StudyDefinition

from .conftest import START, write_study

SIDE = 192
SHOWN = Size(SIDE, SIDE)
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def picture(seed: int, change: Change | None = None) -> np.ndarray:
    """``(192, 192, 3)``: brown cells on the lower half of noisy glass; ``change`` gets it, and where there is glass."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 0.8)
    rgb = np.array([238, 236, 234]) + rng.normal(0, 2) + (noise * rng.uniform(1.6, 2.4) / noise.std())[..., None]
    glass = np.zeros((SIDE, SIDE), bool)
    glass[: SIDE // 2] = True
    cells = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), rng.uniform(1.1, 1.3))
    rgb[~glass] -= (np.clip(cells / cells.std(), 0, 2)[..., None] * (30, 50, 70))[~glass]
    rgb = rgb if change is None else change(rgb, glass)
    return np.rint(rgb.clip(0, 255)).astype(np.uint8)


def looks(folder: Path, seeds: range, change: Change | None = None, *, jpeg: bool = False) -> list[Appearance]:
    found = []
    for seed in seeds:
        rgb = picture(seed, change)
        if jpeg:
            Image.fromarray(rgb).save(file := io.BytesIO(), "JPEG", quality=30)
            rgb = np.asarray(Image.open(file))
        write_png(folder / f"{seed}.png", rgb, {})
        found.append(measure_appearance(folder / f"{seed}.png", SHOWN))
    return found


@pytest.fixture(scope="module")
def chemical(tmp_path_factory) -> list[Appearance]:
    return looks(tmp_path_factory.mktemp("chemical"), range(LEAST_IMAGES))


def constant(rgb: np.ndarray, glass: np.ndarray) -> np.ndarray:
    return np.where(glass[..., None], (238, 236, 234), rgb)


def test_equal_modalities_are_not_told_apart(chemical, tmp_path) -> None:
    assert differences(chemical, looks(tmp_path, range(100, 100 + LEAST_IMAGES))) == []
    assert differences(chemical, []) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (constant, {"Noise of glass", "Share of exactly flat blocks of glass"}),
        (lambda rgb, glass: ndimage.gaussian_filter(rgb, (1.2, 1.2, 0)), {"Fine detail (sharpness)"}),
        (lambda rgb, glass: rgb * (1, 0.99, 0.95), {"Tint of glass"}),
        (lambda rgb, glass: rgb * 0.9, {"Brightness of glass"}),
    ],
    ids=["constant", "blurred", "tinted", "dark"],
)
def test_a_property_that_differs_is_told_with_both_figures(chemical, tmp_path, change, told) -> None:
    said = differences(chemical, looks(tmp_path, range(100, 100 + LEAST_IMAGES), change))
    assert told <= {sentence.split(":")[0] for sentence in said}
    assert all("can tell the modalities apart" in sentence for sentence in said)


def test_traces_of_jpeg_are_told(chemical, tmp_path) -> None:
    said = differences(chemical, looks(tmp_path, range(100, 100 + LEAST_IMAGES), jpeg=True))
    assert any(sentence.startswith("Step across borders of JPEG blocks: chemical 1.0") for sentence in said)


def test_of_few_images_only_glass_without_noise_is_told(chemical, tmp_path) -> None:
    dark = looks(tmp_path, range(100, 103), lambda rgb, glass: rgb * 0.9)
    assert differences(chemical[:3], dark) == []
    (flat,) = differences(chemical[:1], looks(tmp_path, range(100, 101), constant))
    assert flat.startswith("Share of exactly flat blocks of glass: chemical 0%, virtual 100%")


def test_images_without_glass_or_of_one_colour_say_nothing(tmp_path) -> None:
    tissue = np.random.default_rng(0).integers(60, 200, (100, 300, 3), dtype=np.uint8)
    write_png(tmp_path / "tissue.png", tissue, {})
    found = measure_appearance(tmp_path / "tissue.png", Size(300, 100))
    assert np.isnan([*found.glass, found.noise, found.flat]).all()
    assert np.isfinite(found.sharpness)
    write_png(tmp_path / "dot.png", np.full((5, 3, 3), 9, np.uint8), {})
    assert np.isnan(measure_appearance(tmp_path / "dot.png", Size(3, 5)).sharpness)


def test_what_lies_outside_of_what_readers_see_does_not_count(tmp_path) -> None:
    wide = np.full((SIDE, 3 * SIDE, 3), 255, np.uint8)
    wide[:, SIDE : 2 * SIDE] = picture(0)
    write_png(tmp_path / "wide.png", wide, {})
    write_png(tmp_path / "middle.png", picture(0), {})
    assert measure_appearance(tmp_path / "wide.png", SHOWN) == measure_appearance(tmp_path / "middle.png", SHOWN)


def study_of(folder: Path, change: Change | None) -> StudyDefinition:
    definition = read_definition(write_study(folder, cases=2))
    for number, image in enumerate(definition.images):
        write_png(image.path, picture(number, change if image.modality == "virtual" else None), {})
    return definition


@pytest.mark.parametrize(("change", "count"), [(constant, 1), (None, 0)])
def test_a_study_is_warned_of_and_made_all_the_same(tmp_path, change, count) -> None:
    told: list[str] = []
    create_study(study_of(tmp_path / "m", change), tmp_path / "s", now=START, warn=told.append).close()
    assert len(told) == count
    assert all("flat blocks" in sentence for sentence in told)
