"""Checks before the first step of a training: devices, data and crops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from restain.data import Pair, PairSet, read_header, require_scale, require_sides
from restain.errors import RestainError
from restain.models.peers.bridge import BrownianBridge
from restain.recipe import BridgeRecipe, Recipe
from restain.training.batches import training_pairs
from restain.training.devices import Devices, choose_devices

LEAST_CROP = 32
"""Side of crops in px below which a network's deepest map is empty."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The pairs, split as the recipe says, and the devices."""

    pairs: PairSet
    devices: Devices


def prepare(
    recipe: Recipe,
    data: Sequence[Path],
    *,
    accelerator: str = "auto",
    devices: str | int = 1,
    nodes: int = 1,
) -> Prepared:
    """Open the data of a training and find all in it that would stop it later; nothing is written.

    Args and raises as :func:`restain.training.train`. Of the pictures headers are read, and a few whole.
    """
    chosen = choose_devices(accelerator, devices, nodes)
    _require_shapes(recipe)
    pairs = training_pairs(recipe, data)
    training = pairs.split("train")
    if not training:
        raise RestainError(f"{data[0]}: there is no training split to train on ({pairs.describe()}).")
    _require_crops(recipe, training)
    require_scale((*training, *pairs.split("val")), recipe.mpp, "--set mpp=")
    require_sides(training)
    return Prepared(pairs, chosen)


def trains_expression(recipe: Recipe, pairs: Iterable[Pair]) -> bool:
    """Whether there is a first stage: a network that has a classifier, steps for it, and levels to learn."""
    uses = recipe.peer is None and recipe.generator.label_feature and recipe.expression.steps > 0
    return uses and any(pair.level is not None for pair in pairs)


def _require_shapes(recipe: Recipe) -> None:
    """See that the networks can take the crops."""
    crop = recipe.data.crop
    for key, side in (("data.crop", crop), ("expression.crop", recipe.expression.crop)):
        if side < LEAST_CROP:
            raise RestainError(f"{key} = {side}: the networks need crops of {LEAST_CROP} px or more.")
    if isinstance(recipe.peer, BridgeRecipe):
        for key, value in (("peer.width", recipe.peer.width), ("data.crop", crop)):
            if value % BrownianBridge.STEP:
                raise RestainError(f"{key} = {value}: the diffusion peer needs a multiple of {BrownianBridge.STEP}.")
    if recipe.peer is not None:
        return
    if crop < 2**recipe.discriminator.layers:
        raise RestainError(
            f"data.crop = {crop}: a discriminator of {recipe.discriminator.layers} layers (discriminator.layers) needs "
            f"crops of {2**recipe.discriminator.layers} px or more."
        )
    if recipe.losses.contextual and crop < recipe.losses.contextual_px:
        raise RestainError(
            f"losses.contextual_px = {recipe.losses.contextual_px}: the pieces are larger than the crop (data.crop = {crop})."
        )


def _require_crops(recipe: Recipe, training: Sequence[Pair]) -> None:
    crops = {"data.crop": recipe.data.crop}
    if trains_expression(recipe, training):
        crops["expression.crop"] = recipe.expression.crop
    key = max(crops, key=lambda name: crops[name])
    require_crop(training, crops[key], f"--set {key}=")


def require_crop(pairs: Sequence[Pair], crop: int, option: str) -> None:
    """See that no picture of ``pairs`` is smaller than a crop of ``crop`` px; headers are read.

    Raises:
        RestainError: naming the file, and ``option`` (``--set data.crop=``) with the largest crop that it allows.
    """
    for pair in pairs:
        size = read_header(pair.he_path).size
        width = size.width // 2 if pair.side_by_side else size.width
        if min(width, size.height) < crop:
            raise RestainError(
                f"{pair.he_path}: {width}x{size.height} px is smaller than the training crop of {crop} px; "
                f"give {option}{min(width, size.height)} or less."
            )
