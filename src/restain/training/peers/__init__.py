"""One step of each peer, on one page each, with the players, schedule and checkpoints that all methods share."""

from __future__ import annotations

from collections.abc import Callable

from lightning.fabric import Fabric

from restain.models.network import StainingNetwork
from restain.recipe import Recipe
from restain.training.adversarial import AdversarialStage
from restain.training.peers.asp import AspStage
from restain.training.peers.bridge import BridgeStage
from restain.training.peers.cyclegan import CycleGanStage
from restain.training.peers.pix2pix import Pix2PixStage
from restain.training.stage import SecondStage

_STAGES: dict[str, Callable[..., SecondStage]] = {
    "pix2pix": Pix2PixStage,
    "cyclegan": CycleGanStage,
    "asp": AspStage,
    "bridge": BridgeStage,
}


def second_stage(fabric: Fabric, recipe: Recipe, generator: StainingNetwork) -> SecondStage:
    """Stage two of the recipe's method; freezes the classifier that stage one trained."""
    if generator.expression is not None:
        generator.expression.requires_grad_(False)
    if recipe.peer is None:
        return AdversarialStage(fabric, recipe, generator)
    return _STAGES[recipe.peer.kind](fabric, recipe, recipe.peer, generator)
