"""Samples for the tests of several packages: a picture of tissue, a slide, phantom pairs, a small model and its training."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from restain.bundle import save_bundle
from restain.geometry import Size
from restain.images import write_rgb
from restain.models.generator import Generator
from restain.phantom import slide, write_phantom
from restain.recipe import ExpressionRecipe, GeneratorRecipe, Recipe, parse_recipe
from restain.slides import TileStore, write_ome_tiff

GLASS = (236, 234, 238)
TWO_ISLANDS = ((0.35, 0.3, 0.28, 0.22), (0.6, 0.75, 0.3, 0.18))
"""Ellipses: row and column of the centre, half axes along rows and columns, each as a share of the picture's side."""
ONE_ISLAND = ((0.5, 0.5, 0.46, 0.46),)


def tissue_picture(
    height: int,
    width: int,
    seed: int = 0,
    *,
    low: tuple[int, int, int] = (140, 60, 120),
    high: tuple[int, int, int] = (235, 150, 200),
    islands: Sequence[tuple[float, float, float, float]] = TWO_ISLANDS,
) -> np.ndarray:
    """``(height, width, 3)`` ``uint8``: ellipses of texture between two colours on glass; H&E if none are given."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, high, (height // 12 + 2, width // 12 + 2, 3)).astype(np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:height, :width]
    inside = np.zeros((height, width), bool)
    for cy, cx, ry, rx in islands:
        inside |= ((y / height - cy) / ry) ** 2 + ((x / width - cx) / rx) ** 2 < 1
    return np.where(inside[..., None], texture, np.uint8(GLASS)).astype(np.uint8)


def noise_picture(seed: int, height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_picture(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rgb(path, rgb)


def write_slide(path: Path, image: np.ndarray, metadata: dict[str, str] | None = None, mpp: float = 0.5) -> Path:
    """Write an OME-TIFF with a pyramid: RGB, or a DAB density of one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, size = ("rgb" if image.ndim == 3 else "dab"), Size(image.shape[1], image.shape[0])
    with TileStore.open(path.with_name(f"{path.name}.part"), {}, size, 256, kind, quality=95) as store:
        for row, column in np.ndindex(store.grid):
            store.put(row, column, image[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256])
        write_ome_tiff(store, path, mpp=mpp, metadata=metadata or {})
        store.discard()
    return path


def small_recipe(name: str = "tiny", mpp: float = 0.5, **generator: Any) -> Recipe:
    network = GeneratorRecipe(**({"width": 8, "depth": 2} | generator))
    return Recipe(name=name, mpp=mpp, generator=network, expression=ExpressionRecipe(width=4))


def write_bundle(folder: Path, recipe: Recipe) -> Path:
    """A bundle of random weights, the same for the same recipe."""
    torch.manual_seed(0)
    save_bundle(folder, Generator(recipe.generator, recipe.expression), recipe, step=1, data="made up", figures={})
    return folder


TRAINING: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "data": {"crop": 32, "batch": 2, "val_share": 0.25},
    "expression": {"width": 4, "steps": 2, "crop": 32, "batch": 2},
    "generator": {"width": 8, "depth": 2, "attention": {"head_dim": 8, "features": 8}},
    "discriminator": {"width": 4, "layers": 2},
    "train": {"steps": 4, "validate_every": 2},
}


def training_recipe(*changes: dict[str, Any]) -> Recipe:
    """A recipe of a training of seconds; changes of a section are merged into it, later ones over earlier ones."""
    values = TRAINING
    for change in changes:
        merged = {key: values.get(key, {}) | new if isinstance(new, dict) else new for key, new in change.items()}
        values = values | merged
    return parse_recipe(values, "test")


def phantom_pairs(tmp_path_factory: pytest.TempPathFactory, pairs: int, test_share: float, **options: Any) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(root, pairs=pairs, size=128, seed=5, test_share=test_share, **options)
    return root


@contextmanager
def little_tissue() -> Iterator[None]:
    """Growing tissue takes most of the time of a phantom slide: little of it is grown, and once, for it is a function of
    its arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slide, "TEXTURE_TILES", 2)
        patch.setattr(slide, "MOST_TEXTURES", 1)
        patch.setattr(slide, "grow_texture", functools.cache(slide.grow_texture))
        yield
