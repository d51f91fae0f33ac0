"""Stage one: the classifier of the HER2 level on the H&E image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from restain import losses
from restain.data import Pair
from restain.data.normalization import Normalize
from restain.images import Rgb
from restain.models.blocks import channels_last
from restain.models.expression import ExpressionClassifier
from restain.models.tensors import batch_of
from restain.recipe import Recipe
from restain.training.batches import Batch
from restain.training.stage import adam


def local_levels(batch: Batch, local: Tensor) -> Tensor:
    """The level at each place of the classifier's map: ``(N, h, w)`` class indices for ``(N, 4, h, w)`` logits."""
    if batch.level_map is None:
        return batch.level[:, None, None].expand(-1, *local.shape[2:])
    levels = F.interpolate(batch.level_map[:, None].float(), size=local.shape[2:], mode="nearest")
    return levels[:, 0].long()


class ExpressionStage:
    """The classifier, its optimiser and its step: cross-entropy of the level, as a whole and at each place; Adam with a linear decay."""

    name = "expression"
    averaged_generator = None

    def __init__(self, fabric: Fabric, recipe: Recipe, classifier: ExpressionClassifier) -> None:
        self.fabric = fabric
        self.recipe = recipe.expression
        self.steps = recipe.expression.steps
        self.bare = channels_last(classifier.requires_grad_(True).train())
        self.classifier, self.optimiser = fabric.setup(self.bare, adam(self.recipe.optimiser, classifier))

    def step(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch; returns the loss and the share of right answers before the step, not yet read."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.optimiser.lr * (1 - number / self.steps)
        output = self.classifier(batch.he)
        logits = output.logits
        loss = losses.level(logits, batch.level) + losses.level(output.local, local_levels(batch, output.local))
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimiser.step()
        known = batch.level != losses.UNKNOWN_LEVEL
        right = (known & (logits.argmax(1) == batch.level)).sum() / known.sum().clamp(min=1)
        return {"level": loss.detach(), "accuracy": right}

    @property
    def networks(self) -> dict[str, tuple[nn.Module, Any]]:
        """The classifier with its optimiser."""
        return {"classifier": (self.bare, self.optimiser)}

    def validate(self, pairs: Sequence[Pair], normalize: Normalize) -> tuple[dict[str, float | None], list[Rgb]]:
        """Share of right levels over whole validation images (None where no level is known), and no panels."""
        known = [p for p in pairs if p.level is not None]
        if not known:
            return {"val_level_accuracy": None}, []
        self.bare.eval()
        right = 0
        for pair in known:
            he = batch_of(normalize(pair.load()[0]), self.fabric.device)
            with torch.no_grad():
                right += int(self.bare(he).logits.argmax()) == pair.level
        self.bare.train()
        return {"val_level_accuracy": right / len(known), "val_pairs": float(len(known))}, []

    def state(self) -> dict[str, Any]:
        return {"classifier": self.bare.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.bare.load_state_dict(state["classifier"])
        self.optimiser.load_state_dict(state["optimiser"])
