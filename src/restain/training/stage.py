"""What the second stage of every method shares: players, their optimisers, the schedule, averaged weights, checkpoints.

A *player* is a network with its own Adam: the generator, a discriminator, a peer's second generator. A method's stage
says what the players are and what one step is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restain.data import Pair
from restain.data.normalization import Normalize
from restain.images import Rgb
from restain.models.blocks import channels_last
from restain.models.network import StainingNetwork
from restain.recipe import OptimiserRecipe, Recipe
from restain.training.batches import Batch
from restain.training.validate import validate


def adam(recipe: OptimiserRecipe, module: nn.Module) -> torch.optim.Adam:
    """Adam over the parameters that are trained, in one kernel per few tensors."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=recipe.lr, betas=recipe.betas, fused=True)


@dataclass
class Player:
    """A network and its optimiser."""

    bare: Any
    """The network itself."""
    network: Any
    """The network as Fabric wrapped it, for the calls whose gradients train it."""
    optimiser: Any
    recipe: OptimiserRecipe


class SecondStage(ABC):
    """Networks, optimisers and the step of a method.

    Args:
        fabric: Lightning Fabric, launched; it holds device, precision and processes.
        recipe: the recipe.
        generator: the network that the bundle will hold.
        critics: further networks that learn with the discriminator's optimiser, by name.
        helpers: further networks that learn with the generator's optimiser, by name.
    """

    name = "adversarial"

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        generator: StainingNetwork,
        *,
        critics: Mapping[str, nn.Module] | None = None,
        helpers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.fabric = fabric
        self.recipe = recipe
        self.steps = recipe.train.steps
        self.players: dict[str, Player] = {}
        self._add("generator", generator.train(), recipe.generator_optimiser)
        for name, network in (critics or {}).items():
            self._add(name, network, recipe.discriminator_optimiser)
        for name, network in (helpers or {}).items():
            self._add(name, network, recipe.generator_optimiser)
        averaging: Any = get_ema_multi_avg_fn(recipe.train.ema)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(generator, multi_avg_fn=averaging)

    def _add(self, name: str, network: nn.Module, recipe: OptimiserRecipe) -> None:
        bare = channels_last(network)
        wrapped, optimiser = self.fabric.setup(bare, adam(recipe, bare))
        self.players[name] = Player(bare, wrapped, optimiser, recipe)

    @property
    def averaged_generator(self) -> StainingNetwork:
        """The generator with averaged weights, which is validated and which the bundle holds."""
        generator: StainingNetwork = self.average.module  # type: ignore[assignment]
        return generator

    def step(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch; returns every term of every player's objective, on the device and not yet read."""
        self._schedule(number)
        # Dropout draws from the global generator: from the step's number, so that a resumed run draws the same.
        torch.manual_seed(self._seed(number))
        terms = self._play(number, batch)
        self.average.update_parameters(self.players["generator"].bare)
        return {name: term.detach() for name, term in terms.items()}

    @abstractmethod
    def _play(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """One step of every player; returns the terms of all objectives."""

    def _descend(self, players: Sequence[str], terms: dict[str, Tensor]) -> None:
        """One step of these players down the sum of ``terms``."""
        for name in players:
            self.players[name].optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(torch.stack(list(terms.values())).sum())
        for name in players:
            self.players[name].optimiser.step()

    @property
    def networks(self) -> dict[str, tuple[nn.Module, Any]]:
        """Network and optimiser of each player."""
        return {name: (player.bare, player.optimiser) for name, player in self.players.items()}

    def validate(self, pairs: Sequence[Pair], normalize: Normalize) -> tuple[dict[str, float | None], list[Rgb]]:
        """Figures and panels of the averaged generator; see :func:`restain.training.validate.validate`."""
        return validate(self.averaged_generator, pairs, self.recipe.mpp, normalize)

    def _critic(self, critic: str, *inputs: Tensor) -> Any:
        """The output of a critic, for a gradient to the inputs only.

        The bare network: its weights are not trained by this call, so DDP must not wait for their gradients.
        """
        bare = self.players[critic].bare
        bare.requires_grad_(False)
        with self.fabric.autocast():
            output = bare(*inputs)
        bare.requires_grad_(True)
        return output

    def _generator(self, number: int) -> torch.Generator:
        """Randomness of one step, which depends on the seed and the step's number only."""
        return torch.Generator().manual_seed(self._seed(number))

    def _seed(self, number: int) -> int:
        return (self.recipe.seed * 1_000_003 + number) * 64 + self.fabric.global_rank

    def _schedule(self, number: int) -> None:
        """Set the learning rates, and redraw the random features when their time has come.

        Both depend on the step's number only, so there is nothing to restore after a kill.
        """
        start = self.recipe.train.lr_decay_from * self.steps
        factor = min(1.0, (self.steps - number) / max(self.steps - start, 1.0))
        for player in self.players.values():
            for group in player.optimiser.param_groups:
                group["lr"] = player.recipe.lr * factor
        every = self.recipe.generator.attention.redraw_every
        if every and number and number % every == 0:
            seeded = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + number)
            self.players["generator"].bare.redraw_features(seeded)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as tensors and plain values."""
        state: dict[str, Any] = {"average": self.average.state_dict()}
        for name, player in self.players.items():
            state[name] = player.bare.state_dict()
            state[f"{name}_optimiser"] = player.optimiser.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`state` gave."""
        self.average.load_state_dict(state["average"])
        for name, player in self.players.items():
            player.bare.load_state_dict(state[name])
            player.optimiser.load_state_dict(state[f"{name}_optimiser"])
