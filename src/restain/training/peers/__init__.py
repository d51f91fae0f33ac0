"""One step of each peer, on one page each, with the players, schedule and checkpoints that all methods share."""

from __future__ import annotations

from lightning.fabric import Fabric

from restain.models.network import StainingNetwork
from restain.recipe import AspRecipe, BridgeRecipe, CycleGanRecipe, Recipe
from restain.training.adversarial import AdversarialStage
from restain.training.peers.asp import AspStage
from restain.training.peers.bridge import BridgeStage
from restain.training.peers.cyclegan import CycleGanStage
from restain.training.peers.pix2pix import Pix2PixStage
from restain.training.stage import SecondStage


def second_stage(fabric: Fabric, recipe: Recipe, generator: StainingNetwork) -> SecondStage:
    """Stage two of the recipe's method."""
    if recipe.peer is None:
        return AdversarialStage(fabric, recipe, generator)
    if isinstance(recipe.peer, CycleGanRecipe):
        return CycleGanStage(fabric, recipe, recipe.peer, generator)
    if isinstance(recipe.peer, AspRecipe):
        return AspStage(fabric, recipe, recipe.peer, generator)
    if isinstance(recipe.peer, BridgeRecipe):
        return BridgeStage(fabric, recipe, recipe.peer, generator)
    return Pix2PixStage(fabric, recipe, recipe.peer, generator)
