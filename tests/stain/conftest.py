"""A small model and a small slide: three islands of stained texture on grey glass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restain.bundle import Bundle, load_bundle, save_bundle
from restain.geometry import Size
from restain.models.generator import Generator
from restain.recipe import ExpressionRecipe, GeneratorRecipe, Recipe
from restain.slides import TileStore, write_ome_tiff

GLASS = (236, 234, 238)
MPP = 0.5


def _make_bundle(folder: Path, **generator: object) -> Bundle:
    torch.manual_seed(0)
    recipe = Recipe(
        name="tiny",
        mpp=MPP,
        generator=GeneratorRecipe(width=8, depth=2, **generator),
        expression=ExpressionRecipe(width=4),
    )
    save_bundle(folder, Generator(recipe.generator, recipe.expression), recipe, step=1, data="made up", figures={})
    return load_bundle(folder)


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    return _make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _make_bundle(tmp_path_factory.mktemp("model") / "bundle")


def tissue_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """``(height, width, 3)``: pink and violet texture in ellipses on glass."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers((140, 60, 120), (235, 150, 200), (height // 12 + 2, width // 12 + 2, 3)).astype(np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:height, :width]
    inside = np.zeros((height, width), bool)
    for cy, cx, ry, rx in ((0.35, 0.3, 0.28, 0.22), (0.6, 0.75, 0.3, 0.18)):
        inside |= ((y / height - cy) / ry) ** 2 + ((x / width - cx) / rx) ** 2 < 1
    return np.where(inside[..., None], texture, np.uint8(GLASS)).astype(np.uint8)


def _write_slide(path: Path, rgb: np.ndarray, mpp: float = MPP) -> Path:
    size = Size(rgb.shape[1], rgb.shape[0])
    with TileStore.open(path.with_suffix(".part"), {}, size, 256, "rgb", quality=95) as store:
        for row in range(store.grid[0]):
            for column in range(store.grid[1]):
                store.put(row, column, rgb[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256])
        write_ome_tiff(store, path, mpp=mpp, metadata={})
        store.discard()
    return path


@pytest.fixture(scope="session")
def write_slide() -> Callable[..., Path]:
    return _write_slide


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return tissue_picture(1100, 1500)


@pytest.fixture(scope="session")
def slide(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_slide(tmp_path_factory.mktemp("slides") / "block_1.ome.tiff", picture)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_slide(tmp_path_factory.mktemp("small") / "small.ome.tiff", tissue_picture(560, 780))
