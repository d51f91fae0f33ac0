"""Adaptive supervised PatchNCE (Li et al., "Adaptive Supervised PatchNCE Loss for Learning H&E-to-IHC Stain
Translation with Inconsistent Groundtruth Image Pairs", MICCAI 2023)."""

from __future__ import annotations

import torch
from lightning.fabric import Fabric
from torch import Tensor

from restain import losses
from restain.models.network import StainingNetwork
from restain.models.peers.nce import PatchProjector, adaptive_weights, draw_places, patch_nce
from restain.models.peers.patchgan import PatchGan
from restain.models.peers.resnet9 import ResNet9
from restain.recipe import AspRecipe, Objective, Recipe
from restain.training.batches import Batch
from restain.training.stage import SecondStage

_OBJECTIVE: Objective = "least-squares"


class AspStage(SecondStage):
    """Least-squares adversarial loss on the image alone, PatchNCE to the H&E, adaptive PatchNCE and a pyramid to the real image."""

    def __init__(self, fabric: Fabric, recipe: Recipe, peer: AspRecipe, generator: StainingNetwork) -> None:
        assert isinstance(generator, ResNet9)
        super().__init__(
            fabric,
            recipe,
            generator,
            critics={"discriminator": PatchGan(3, peer.discriminator_width)},
            helpers={"projector": PatchProjector(generator.nce_channels)},
        )
        self.peer = peer

    def _play(self, number: int, batch: Batch) -> dict[str, Tensor]:
        virtual = self.players["generator"].network(batch.he).rgb.to(batch.he.dtype)

        logits = self.players["discriminator"].network(torch.cat([batch.ihc, virtual.detach()]))
        discriminating = {"D.gan": losses.discrimination(logits, _OBJECTIVE)}
        self._descend(["discriminator"], discriminating)

        generating = {
            "G.gan": losses.adversarial(self._critic("discriminator", virtual).float(), True, _OBJECTIVE),
            "G.pyramid": self.peer.pyramid * losses.pyramid_l1(virtual, batch.ihc, self.peer.pyramid_levels),
        }
        generating |= self._nce_terms(number, batch, virtual)
        self._descend(["generator", "projector"], generating)
        return discriminating | generating

    def _nce_terms(self, number: int, batch: Batch, virtual: Tensor) -> dict[str, Tensor]:
        bare, projector = self.players["generator"].bare, self.players["projector"].network
        with self.fabric.autocast():
            # One pass for the three images; keys get no gradient in patch_nce.
            maps = bare.features(torch.cat([virtual, batch.he, batch.ihc]))
            places = draw_places(maps, self.peer.patches, self._generator(number))
            by_layer = projector(maps, places)
        to_he, to_real = virtual.new_zeros(()), virtual.new_zeros(())
        for vectors in by_layer:
            query, he, ihc = vectors.float().chunk(3)
            to_he = to_he + patch_nce(query, he, self.peer.temperature).mean()
            trust = adaptive_weights(query, ihc, number / self.steps)
            to_real = to_real + (trust * patch_nce(query, ihc, self.peer.temperature)).mean()
        return {
            "G.nce": self.peer.nce * to_he / len(by_layer),
            "G.supervised": self.peer.supervised * to_real / len(by_layer),
        }
