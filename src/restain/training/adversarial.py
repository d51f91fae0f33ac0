"""Stage two of the method: generator against discriminator.

One step is: restain a batch, teach the discriminator real from virtual and the HER2 level, then teach the generator to
pass both heads and to be near the real image. The step's order is pix2pix's (Isola et al. 2017). Where the recipe says
that pairs match only roughly, the virtual image is moved onto the real one before the two are compared.
"""

from __future__ import annotations

import torch
from lightning.fabric import Fabric
from torch import Tensor

from restain import losses
from restain.models.discriminator import Discriminator
from restain.models.heads import Stained
from restain.models.network import StainingNetwork
from restain.recipe import Recipe
from restain.training.batches import Batch
from restain.training.deform import deformer, deformer_terms, laid_on
from restain.training.stage import SecondStage


class AdversarialStage(SecondStage):
    """The method's stage two; the generator holds the trained, frozen expression classifier."""

    def __init__(self, fabric: Fabric, recipe: Recipe, generator: StainingNetwork) -> None:
        super().__init__(fabric, recipe, generator, critics={"discriminator": Discriminator(recipe.discriminator)})
        self.weights = recipe.losses
        self.deform = recipe.deform
        if self.deform is not None:
            self._add("deformer", deformer(self.deform, recipe.mpp), self.deform.optimiser)

    def _play(self, number: int, batch: Batch) -> dict[str, Tensor]:
        adversarial = self.weights.gan > 0 or self.weights.level_generator > 0
        adversarial = adversarial and number >= self.recipe.train.gan_from * self.steps
        white = batch.white if self.recipe.generator.white == "measured" else None
        virtual = self.players["generator"].network(batch.he, white)

        terms: dict[str, Tensor] = {}
        near = virtual
        if self.deform is not None:
            field = self.players["deformer"].network(virtual.rgb.detach(), batch.ihc)
            deforming = deformer_terms(self.deform, field, virtual.rgb.detach(), batch.ihc)
            self._descend(["deformer"], deforming)
            terms |= deforming
            if number >= self.deform.begin * self.steps:
                near = laid_on(virtual, field.detach(), batch)
        generating = self._reconstruction_terms(batch, near)
        if adversarial:
            discriminating = self._discriminator_terms(number, batch, virtual)
            self._descend(["discriminator"], discriminating)
            terms |= discriminating
            generating |= self._adversarial_terms(batch, virtual)
        self._descend(["generator"], generating)
        return terms | generating

    def _discriminator_terms(self, number: int, batch: Batch, virtual: Stained) -> dict[str, Tensor]:
        w, discriminator = self.weights, self.players["discriminator"]
        fake_ihc = virtual.rgb.detach().to(batch.ihc.dtype)
        # Real and virtual go through in one call: spectral normalisation updates its buffers in place at every call,
        # which two calls before one backward pass do not survive under DDP.
        output = discriminator.network(torch.cat([batch.he, batch.he]), torch.cat([batch.ihc, fake_ihc]))
        terms = {
            "D.gan": w.gan * losses.discrimination(output.real, w.objective),
            "D.level": w.level_discriminator * losses.level(output.level.chunk(2)[0], batch.level),
        }
        if w.objective == "wasserstein" and w.gradient_penalty:
            share = torch.rand(len(batch.he), generator=self._generator(number)).to(batch.he)
            penalty = losses.gradient_penalty(
                lambda ihc: discriminator.bare(batch.he, ihc).real, batch.ihc, fake_ihc, share
            )
            terms["D.penalty"] = w.gan * w.gradient_penalty * penalty
        return terms

    def _adversarial_terms(self, batch: Batch, virtual: Stained) -> dict[str, Tensor]:
        output = self._critic("discriminator", batch.he, virtual.rgb)
        return {
            "G.gan": self.weights.gan * losses.adversarial(output.real.float(), True, self.weights.objective),
            "G.level": self.weights.level_generator * losses.level(output.level.float(), batch.level),
        }

    def _reconstruction_terms(self, batch: Batch, virtual: Stained) -> dict[str, Tensor]:
        w = self.weights
        terms = {}
        if w.l1:
            terms["G.l1"] = w.l1 * losses.l1(virtual.rgb, batch.ihc)
        if w.pyramid:
            terms["G.pyramid"] = w.pyramid * losses.pyramid_l1(virtual.rgb, batch.ihc, w.pyramid_levels)
        if w.dab or w.dab_cells or w.dab_where:
            dab = losses.dab_density(virtual.rgb, batch.white) if virtual.dab is None else virtual.dab
            real = losses.dab_density(batch.ihc, batch.white)
            terms["G.dab"] = w.dab * losses.l1(dab, real)
            terms["G.dab_cells"] = w.dab_cells * losses.dab_cells(dab, real, w.dab_cells_px)
            if w.dab_where:
                terms["G.dab_where"] = w.dab_where * losses.dab_where(dab, real, w.dab_cells_px)
        if w.contextual:
            reach = w.contextual_reach_um / self.recipe.mpp
            terms["G.contextual"] = w.contextual * losses.contextual(virtual.rgb, batch.ihc, w.contextual_px, reach)
        if w.lab:
            terms["G.lab"] = w.lab * losses.lab(virtual.rgb, batch.ihc)
        if w.hsv:
            terms["G.hsv"] = w.hsv * losses.hsv(virtual.rgb, batch.ihc)
        if w.background:
            terms["G.background"] = w.background * losses.lab_background(virtual.rgb, batch.ihc, batch.white)
        return terms
