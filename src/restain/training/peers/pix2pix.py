"""pix2pix (Isola et al., CVPR 2017); with ResNet-9 and a pyramid loss PyramidPix2pix (Liu et al., CVPRW 2022)."""

from __future__ import annotations

import torch
from lightning.fabric import Fabric
from torch import Tensor

from restain import losses
from restain.models.network import StainingNetwork
from restain.models.peers.patchgan import PatchGan
from restain.recipe import Pix2PixRecipe, Recipe
from restain.training.batches import Batch
from restain.training.stage import SecondStage


class Pix2PixStage(SecondStage):
    """Conditional PatchGAN, L1, and L1 at the levels of a Gaussian pyramid where the recipe has it."""

    def __init__(self, fabric: Fabric, recipe: Recipe, peer: Pix2PixRecipe, generator: StainingNetwork) -> None:
        super().__init__(fabric, recipe, generator, critics={"discriminator": PatchGan(6, peer.discriminator_width)})
        self.peer = peer

    def _play(self, number: int, batch: Batch) -> dict[str, Tensor]:
        objective = self.peer.objective
        virtual = self.players["generator"].network(batch.he).rgb

        real_pair = torch.cat([batch.he, batch.ihc], dim=1)
        fake_pair = torch.cat([batch.he, virtual.to(batch.he.dtype)], dim=1)
        logits = self.players["discriminator"].network(torch.cat([real_pair, fake_pair.detach()]))
        discriminating = {"D.gan": losses.discrimination(logits, objective)}
        self._descend(["discriminator"], discriminating)

        logits = self._critic("discriminator", fake_pair)
        generating = {
            "G.gan": losses.adversarial(logits.float(), True, objective),
            "G.l1": self.peer.l1 * losses.l1(virtual, batch.ihc),
        }
        if self.peer.pyramid:
            pyramid = losses.pyramid_l1(virtual, batch.ihc, self.peer.pyramid_levels)
            generating["G.pyramid"] = self.peer.pyramid * pyramid
        self._descend(["generator"], generating)
        return discriminating | generating
