"""CycleGAN (Zhu et al., ICCV 2017): the pairing is not used."""

from __future__ import annotations

import torch
from lightning.fabric import Fabric
from torch import Tensor

from restain import losses
from restain.models.network import StainingNetwork
from restain.models.peers.patchgan import PatchGan
from restain.models.peers.resnet9 import ResNet9
from restain.recipe import CycleGanRecipe, Objective, Recipe
from restain.training.batches import Batch
from restain.training.stage import SecondStage

_OBJECTIVE: Objective = "least-squares"


class CycleGanStage(SecondStage):
    """H&E to IHC and back; least-squares adversarial loss on both sides, cycle and identity losses.

    The original's buffer of earlier images is left out: a checkpoint would have to hold it.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, peer: CycleGanRecipe, generator: StainingNetwork) -> None:
        super().__init__(
            fabric,
            recipe,
            generator,
            critics={
                "judge_ihc": PatchGan(3, peer.discriminator_width),
                "judge_he": PatchGan(3, peer.discriminator_width),
            },
            helpers={"back": ResNet9(peer.width)},
        )
        self.peer = peer

    def _play(self, number: int, batch: Batch) -> dict[str, Tensor]:
        forth, back = self.players["generator"].network, self.players["back"].network
        ihc_of = forth(torch.cat([batch.he, batch.ihc])).rgb
        virtual_ihc, same_ihc = ihc_of.chunk(2)
        he_of = back(torch.cat([batch.ihc, batch.he, virtual_ihc.to(batch.he.dtype)])).rgb
        virtual_he, same_he, he_again = he_of.chunk(3)
        ihc_again = forth(virtual_he).rgb

        generating = {
            "G.gan_ihc": losses.adversarial(self._critic("judge_ihc", virtual_ihc).float(), True, _OBJECTIVE),
            "G.gan_he": losses.adversarial(self._critic("judge_he", virtual_he).float(), True, _OBJECTIVE),
            "G.cycle": self.peer.cycle * (losses.l1(he_again, batch.he) + losses.l1(ihc_again, batch.ihc)),
            "G.identity": self.peer.identity * (losses.l1(same_ihc, batch.ihc) + losses.l1(same_he, batch.he)),
        }
        self._descend(["generator", "back"], generating)

        discriminating = {}
        for critic, real, virtual in (("judge_ihc", batch.ihc, virtual_ihc), ("judge_he", batch.he, virtual_he)):
            logits = self.players[critic].network(torch.cat([real, virtual.detach().to(real.dtype)]))
            discriminating[f"D.{critic}"] = losses.discrimination(logits, _OBJECTIVE)
        self._descend(["judge_ihc", "judge_he"], discriminating)
        return generating | discriminating
