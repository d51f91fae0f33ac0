from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from restain.data import open_pairs
from restain.models.generator import Generator
from restain.recipe import ExpressionRecipe, GeneratorRecipe
from restain.training.white import typical_white


def pairs_with_glass(root: Path, *glass: int) -> Path:
    for stain in ("HE", "IHC"):
        (root / stain / "train").mkdir(parents=True)
    for number, white in enumerate(glass):
        for stain in ("HE", "IHC"):
            picture = np.full((32, 32, 3), white if stain == "IHC" else 240, np.uint8)
            picture[8:16] = 90
            Image.fromarray(picture).save(root / stain / "train" / f"{number:05}_train_0.png")
    return root


def test_typical_white_is_the_median_over_slides_not_over_patches(tmp_path: Path) -> None:
    pairs = open_pairs(pairs_with_glass(tmp_path, 250, 220, 180, 182), val_share=0).pairs
    assert np.allclose(typical_white(pairs), (220 + 182) / 2)
    told = [replace(pair, slide="s" if number > 1 else None) for number, pair in enumerate(pairs)]
    assert np.allclose(typical_white(told), 220)


def test_a_measured_white_is_set_is_not_trained_and_gives_way_to_a_told_one() -> None:
    torch.manual_seed(0)
    recipe = GeneratorRecipe(width=8, depth=2, white="measured", label_feature=False)
    generator = Generator(recipe, ExpressionRecipe())
    generator.head.white.measured(torch.tensor([200.0, 210.0, 220.0]) / 255)  # type: ignore[operator, union-attr]
    assert not generator.head.white.colour.requires_grad  # type: ignore[union-attr]
    he = torch.rand(2, 3, 16, 16)
    own = generator(he)
    told = generator(he, torch.tensor([[100.0, 105.0, 110.0], [200.0, 210.0, 220.0]]) / 255)
    assert torch.equal(own.dab, told.dab)
    assert torch.allclose(told.rgb[0], own.rgb[0] / 2, atol=1e-4)
    assert torch.allclose(told.rgb[1], own.rgb[1], atol=1e-4)


@pytest.mark.parametrize(("part", "learning"), [("encoder", {"head", "decode"}), ("body", {"head"})])
def test_what_is_frozen_gets_no_gradient_and_the_rest_does(
    part: Literal["encoder", "body"], learning: set[str]
) -> None:
    generator = Generator(GeneratorRecipe(width=8, depth=2, label_feature=False), ExpressionRecipe())
    generator.freeze(part)
    generator(torch.rand(1, 3, 16, 16)).rgb.mean().backward()
    moved = {name.partition(".")[0] for name, p in generator.named_parameters() if p.grad is not None}
    assert moved == learning
