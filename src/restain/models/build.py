"""From a recipe to its generator: the method's, or a peer's."""

from __future__ import annotations

from restain.models.generator import Generator
from restain.models.network import StainingNetwork
from restain.models.peers.bridge import BrownianBridge
from restain.models.peers.resnet9 import ResNet9
from restain.models.peers.unet256 import UNet256
from restain.recipe import BridgeRecipe, Pix2PixRecipe, Recipe


def build_generator(recipe: Recipe) -> StainingNetwork:
    """The network that a recipe trains and its bundle holds, with fresh weights.

    Raises:
        RestainError: if it needs a package that is not installed.
    """
    peer = recipe.peer
    if peer is None:
        return Generator(recipe.generator, recipe.expression)
    if isinstance(peer, BridgeRecipe):
        return BrownianBridge(peer.width, peer.variance, peer.sample_steps)
    if isinstance(peer, Pix2PixRecipe) and peer.network == "unet256":
        return UNet256(peer.width)
    return ResNet9(peer.width)
