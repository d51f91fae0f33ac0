"""The multi-task discriminator: one trunk, two heads.

The trunk is pix2pix's PatchGAN (Isola et al. 2017) on the H&E image and the IHC image together, with spectral
normalisation (Miyato et al. 2018), where the recipe has it, instead of batch statistics. One head says real or virtual for every patch, the other
the HER2 level of the whole input, as in an auxiliary-classifier GAN (Odena et al. 2017).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from restain.her2 import Her2Level
from restain.recipe import DiscriminatorRecipe


class DiscriminatorOutput(NamedTuple):
    real: Tensor
    """``(N, 1, h, w)``: logit that the patch is a real IHC image of this H&E image."""
    level: Tensor
    """``(N, 4)``: logits of the HER2 level."""


class Discriminator(nn.Module):
    """``(N, 3, H, W)`` H&E and ``(N, 3, H, W)`` IHC, RGB in [0, 1], to :class:`DiscriminatorOutput`."""

    def __init__(self, recipe: DiscriminatorRecipe) -> None:
        super().__init__()
        widths = [recipe.width * min(2**i, 8) for i in range(recipe.layers)]

        def bounded(layer: nn.Module) -> nn.Module:
            return spectral_norm(layer) if recipe.spectral_norm else layer

        trunk: list[nn.Module] = []
        for narrow, wide in zip([6, *widths[:-1]], widths, strict=True):
            trunk += [bounded(nn.Conv2d(narrow, wide, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*trunk)
        self.real = bounded(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.level = nn.Linear(widths[-1], len(Her2Level))

    def forward(self, he: Tensor, ihc: Tensor) -> DiscriminatorOutput:
        shared = self.trunk(torch.cat([he, ihc], dim=1) * 2 - 1)
        return DiscriminatorOutput(self.real(shared), self.level(shared.mean(dim=(2, 3))))
