from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restain.engines.eager import to_batch
from restain.models.attention import ResidualAttentionBlock
from restain.models.generator import Generator
from restain.models.network import StainingNetwork
from restain.models.streamed import AttentionState
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe

CPU = torch.device("cpu")


@pytest.fixture
def make() -> Callable[..., Generator]:
    """Makes a small generator in which attention matters."""

    def made(**changes: object) -> Generator:
        torch.manual_seed(0)
        recipe = GeneratorRecipe(width=8, depth=2, white="measured", attention=AttentionRecipe(head_dim=8, features=8))
        generator = Generator(recipe.model_copy(update=changes), ExpressionRecipe(width=4)).eval()
        for block in generator.modules():
            if isinstance(block, ResidualAttentionBlock):
                torch.nn.init.ones_(block.scale)
        return generator

    return made


@pytest.fixture
def he() -> NDArray[np.uint8]:
    """``(2, 64, 64, 3)``."""
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def survey() -> Callable[[StainingNetwork, NDArray[np.uint8]], Sequence[AttentionState]]:
    def surveyed(network: StainingNetwork, he: NDArray[np.uint8]) -> Sequence[AttentionState]:
        with torch.inference_mode():
            return network.survey(to_batch(he, CPU))

    return surveyed
