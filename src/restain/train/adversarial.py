"""Stage two: generator against discriminator.

One step is: restain a batch, teach the discriminator real from virtual and the HER2 level, then teach the generator to
pass both heads and to be near the real image. The step's order is pix2pix's (Isola et al. 2017).
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restain import losses
from restain.models.blocks import channels_last
from restain.models.discriminator import Discriminator
from restain.models.generator import Generator
from restain.models.heads import Stained
from restain.recipe import OptimiserRecipe, Recipe
from restain.train.batches import Batch


def adam(recipe: OptimiserRecipe, module: nn.Module) -> torch.optim.Adam:
    """Adam over the parameters that are trained."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=recipe.lr, betas=recipe.betas)


class AdversarialStage:
    """Networks, optimisers and the step of stage two.

    Args:
        fabric: Lightning Fabric, launched; it holds device, precision and processes.
        recipe: the recipe.
        generator: with the trained, frozen expression classifier inside.
    """

    name = "adversarial"

    def __init__(self, fabric: Fabric, recipe: Recipe, generator: Generator) -> None:
        self.fabric = fabric
        self.recipe = recipe
        self.weights = recipe.losses
        self.steps = recipe.train.steps
        self.bare_generator = channels_last(generator)
        self.bare_discriminator = channels_last(Discriminator(recipe.discriminator))
        self.generator, self.generator_optimiser = fabric.setup(
            self.bare_generator, adam(recipe.generator_optimiser, generator)
        )
        self.discriminator, self.discriminator_optimiser = fabric.setup(
            self.bare_discriminator, adam(recipe.discriminator_optimiser, self.bare_discriminator)
        )
        averaging: Any = get_ema_multi_avg_fn(recipe.train.ema)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.bare_generator, multi_avg_fn=averaging)

    @property
    def averaged_generator(self) -> Generator:
        """The generator with averaged weights: what validation looks at and the bundle holds."""
        generator: Generator = self.average.module  # type: ignore[assignment]
        return generator

    def step(self, number: int, batch: Batch) -> dict[str, float]:
        """Train on one batch; returns the value of every term of both objectives.

        Raises:
            RestainError: if a term is not a finite number, naming the step and the term.
        """
        self._schedule(number)
        adversarial = self.weights.gan > 0 or self.weights.level_generator > 0
        adversarial = adversarial and number >= self.recipe.train.gan_from * self.steps
        virtual = self.generator(batch.he)

        terms: dict[str, Tensor] = {}
        if adversarial:
            discriminating = self._discriminator_terms(batch, virtual)
            self._descend("D", number, discriminating, self.discriminator_optimiser)
            terms |= discriminating
            generating = self._adversarial_terms(batch, virtual) | self._reconstruction_terms(batch, virtual)
        else:
            generating = self._reconstruction_terms(batch, virtual)
        self._descend("G", number, generating, self.generator_optimiser)
        terms |= generating

        self.average.update_parameters(self.bare_generator)
        return {name: float(term.detach()) for name, term in terms.items()}

    def _discriminator_terms(self, batch: Batch, virtual: Stained) -> dict[str, Tensor]:
        # Real and virtual go through in one call: spectral normalisation updates its buffers in place at every call,
        # which two calls before one backward pass do not survive under DDP.
        said = self.discriminator(
            torch.cat([batch.he, batch.he]), torch.cat([batch.ihc, virtual.rgb.detach().to(batch.ihc.dtype)])
        )
        real, fake = said.real.chunk(2)
        gan = (losses.adversarial(real, True) + losses.adversarial(fake, False)) / 2
        return {
            "D.gan": self.weights.gan * gan,
            "D.level": self.weights.level_discriminator * losses.level(said.level.chunk(2)[0], batch.level),
        }

    def _adversarial_terms(self, batch: Batch, virtual: Stained) -> dict[str, Tensor]:
        # The bare discriminator: its weights are not trained here, so DDP must not wait for their gradients.
        self.bare_discriminator.requires_grad_(False)
        with self.fabric.autocast():
            said = self.bare_discriminator(batch.he, virtual.rgb)
        self.bare_discriminator.requires_grad_(True)
        return {
            "G.gan": self.weights.gan * losses.adversarial(said.real.float(), True),
            "G.level": self.weights.level_generator * losses.level(said.level.float(), batch.level),
        }

    def _reconstruction_terms(self, batch: Batch, virtual: Stained) -> dict[str, Tensor]:
        w = self.weights
        terms = {}
        if w.l1:
            terms["G.l1"] = w.l1 * losses.l1(virtual.rgb, batch.ihc)
        if w.pyramid:
            terms["G.pyramid"] = w.pyramid * losses.pyramid_l1(virtual.rgb, batch.ihc, w.pyramid_levels)
        if w.dab or w.dab_cells:
            dab = losses.dab_density(virtual.rgb, batch.white) if virtual.dab is None else virtual.dab
            real = losses.dab_density(batch.ihc, batch.white)
            terms["G.dab"] = w.dab * losses.l1(dab, real)
            terms["G.dab_cells"] = w.dab_cells * losses.dab_cells(dab, real)
        return terms

    def _descend(self, who: str, number: int, terms: dict[str, Tensor], optimiser: Any) -> None:
        losses.require_finite(number, terms)
        optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(torch.stack(list(terms.values())).sum())
        optimiser.step()

    def _schedule(self, number: int) -> None:
        """Set both learning rates, and redraw the random features when their time has come.

        Both depend on the step's number only, so there is nothing to restore after a kill.
        """
        start = self.recipe.train.lr_decay_from * self.steps
        factor = min(1.0, (self.steps - number) / max(self.steps - start, 1.0))
        for optimiser, recipe in (
            (self.generator_optimiser, self.recipe.generator_optimiser),
            (self.discriminator_optimiser, self.recipe.discriminator_optimiser),
        ):
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * factor
        every = self.recipe.generator.attention.redraw_every
        if every and number and number % every == 0:
            seeded = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + number)
            self.bare_generator.redraw_features(seeded)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as tensors and plain values."""
        return {
            "generator": self.bare_generator.state_dict(),
            "discriminator": self.bare_discriminator.state_dict(),
            "average": self.average.state_dict(),
            "generator_optimiser": self.generator_optimiser.state_dict(),
            "discriminator_optimiser": self.discriminator_optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`state` gave."""
        self.bare_generator.load_state_dict(state["generator"])
        self.bare_discriminator.load_state_dict(state["discriminator"])
        self.average.load_state_dict(state["average"])
        self.generator_optimiser.load_state_dict(state["generator_optimiser"])
        self.discriminator_optimiser.load_state_dict(state["discriminator_optimiser"])
