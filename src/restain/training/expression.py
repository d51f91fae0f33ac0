"""Stage one: the classifier of the HER2 level on the H&E image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric import Fabric

from restain import losses
from restain.data import Pair
from restain.models.blocks import channels_last
from restain.models.expression import ExpressionClassifier
from restain.recipe import Recipe
from restain.training.batches import Batch
from restain.training.stage import adam


class ExpressionStage:
    """The classifier, its optimiser and its step: cross-entropy of the level, Adam with a linear decay to zero."""

    name = "expression"

    def __init__(self, fabric: Fabric, recipe: Recipe, classifier: ExpressionClassifier) -> None:
        self.fabric = fabric
        self.recipe = recipe.expression
        self.steps = recipe.expression.steps
        self.bare = channels_last(classifier.requires_grad_(True).train())
        self.classifier, self.optimiser = fabric.setup(self.bare, adam(self.recipe.optimiser, classifier))

    def step(self, number: int, batch: Batch) -> dict[str, float]:
        """Train on one batch; returns the loss and the share of right answers before the step.

        Raises:
            RestainError: if the loss is not a finite number.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.optimiser.lr * (1 - number / self.steps)
        logits = self.classifier(batch.he).logits
        loss = losses.level(logits, batch.level)
        losses.require_finite(number, {"level": loss})
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimiser.step()
        right = (logits.argmax(1) == batch.level).float().mean()
        return {"level": float(loss.detach()), "accuracy": float(right)}

    def validate(self, pairs: Sequence[Pair]) -> dict[str, float | None]:
        """Share of right levels over whole validation images; None where no level is known."""
        known = [p for p in pairs if p.level is not None]
        if not known:
            return {"val_level_accuracy": None}
        self.bare.eval()
        right = 0
        for pair in known:
            he = torch.from_numpy(pair.load()[0]).to(self.fabric.device).permute(2, 0, 1)[None].float() / 255
            with torch.no_grad():
                right += int(self.bare(he).logits.argmax()) == pair.level
        self.bare.train()
        return {"val_level_accuracy": right / len(known), "val_pairs": float(len(known))}

    def state(self) -> dict[str, Any]:
        return {"classifier": self.bare.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.bare.load_state_dict(state["classifier"])
        self.optimiser.load_state_dict(state["optimiser"])
