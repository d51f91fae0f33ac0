"""The Brownian-bridge diffusion peer: one network, one regression, no discriminator (Li et al., CVPR 2023, eq. 8)."""

from __future__ import annotations

from typing import cast

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from restain.models.network import StainingNetwork
from restain.models.peers.bridge import BrownianBridge
from restain.recipe import BridgeRecipe, Recipe
from restain.training.batches import Batch
from restain.training.stage import SecondStage


class BridgeStage(SecondStage):
    """L1 between the network's and the true way back from a random time of the bridge."""

    def __init__(self, fabric: Fabric, recipe: Recipe, peer: BridgeRecipe, generator: StainingNetwork) -> None:
        super().__init__(fabric, recipe, generator)
        # What is trained is one step of the bridge, not the sampling that forward() does.
        self.players["generator"].network.mark_forward_method("step_back")

    def _play(self, number: int, batch: Batch) -> dict[str, Tensor]:
        bridge = cast(BrownianBridge, self.players["generator"].bare)
        he, ihc = batch.he * 2 - 1, batch.ihc * 2 - 1
        generator = self._generator(number)
        m = torch.rand(len(he), generator=generator).to(he)
        noise = torch.randn(he.shape, generator=generator).to(he)
        x = bridge.noised(ihc, he, m, noise)
        estimate = self.players["generator"].network.step_back(x, he, m)
        terms = {"G.bridge": F.l1_loss(estimate.float(), x - ihc)}
        self._descend(["generator"], terms)
        return terms
