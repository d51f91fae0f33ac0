"""How long a recipe's steps take on this machine, measured before a training that has a budget of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from restain.data.decoded import DecodedInMemory
from restain.errors import RestainError
from restain.models.build import build_generator
from restain.recipe import Recipe
from restain.training.batches import Batch, Crops, batches, training_pairs
from restain.training.clock import Clock
from restain.training.devices import choose_devices
from restain.training.expression import ExpressionStage
from restain.training.peers import second_stage

MEASURED = 5
"""Steps that are measured; the first, which is slow, is one of them."""


def steps_within(recipe: Recipe, data: Sequence[Path], seconds: float, *, accelerator: str = "auto") -> int:
    """Steps of stage two after which both stages together will have computed for ``seconds``.

    The two stages are measured by a few steps each, stage two without and with its discriminator where the recipe lets
    that join later. Computing is what :class:`restain.training.clock.Seconds` calls busy.

    Raises:
        RestainError: if stage one alone takes longer, or the data cannot be read.
    """
    pairs = training_pairs(recipe, data)
    fabric = choose_devices(accelerator).fabric(recipe.train)
    fabric.launch()
    torch.manual_seed(recipe.seed)
    generator = build_generator(recipe)

    def pace(step: Callable[[int, Batch], object], crop: int, batch: int, number: int) -> float:
        crops = Crops(DecodedInMemory(pairs.split("train")), crop, recipe.data.augment, recipe.seed)
        feed = batches(crops, stop=MEASURED, batch=batch, workers=0, device=fabric.device)
        laps = []
        for crop_batch in feed:
            clock = Clock(fabric.device)
            step(number, crop_batch)
            clock.lap()
            laps.append(clock.seconds.busy)
        # The quickest: what slows a step down is other work on the machine, never the recipe.
        return min(laps)

    if generator.expression is not None and recipe.expression.steps:
        stage_one = ExpressionStage(fabric, recipe, generator.expression)
        used = recipe.expression.steps * pace(stage_one.step, recipe.expression.crop, recipe.expression.batch, 0)
    else:
        used = 0.0
    stage_two = second_stage(fabric, recipe, generator)
    share = recipe.train.gan_from if recipe.peer is None else 0.0
    early = pace(stage_two.step, recipe.data.crop, recipe.data.batch, 0) if share else 0.0
    late = pace(stage_two.step, recipe.data.crop, recipe.data.batch, recipe.train.steps - 1) if share < 1 else 0.0
    steps = int((seconds - used) / (share * early + (1 - share) * late))
    if steps < 1:
        raise RestainError(
            f"{recipe.name}: the budget of {seconds / 60:g} min is too small; stage one alone takes {used / 60:.1f} min here."
        )
    return steps
