"""What every generator is: one interface for the method and for its peers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restain.models.expression import ExpressionClassifier
from restain.models.heads import Stained, StainHead


class StainingNetwork(nn.Module, ABC):
    """H&E image to virtual IHC image: ``(N, 3, H, W)`` RGB in [0, 1] of any size to :class:`~restain.models.heads.Stained`."""

    def __init__(self) -> None:
        super().__init__()
        self.expression: ExpressionClassifier | None = None
        """The frozen classifier of stage one, in a network that takes its feature map in."""

    @property
    def stain_head(self) -> StainHead | None:
        """The head that gives stain densities and renders them; None in a network that gives RGB alone."""
        return None

    @abstractmethod
    def forward(self, he: Tensor) -> Stained: ...

    def redraw_features(self, generator: torch.Generator) -> None:
        """Draw new random features, in a network that has some (see the recipe's ``redraw_every``)."""


def padded(he: Tensor, step: int) -> Tensor:
    """``he`` with rows and columns added at the bottom and right, by reflection, up to multiples of ``step``."""
    height, width = he.shape[2:]
    if height % step == 0 and width % step == 0:
        return he
    mode = "reflect" if min(height, width) > step else "replicate"
    return F.pad(he, (0, -width % step, 0, -height % step), mode=mode)
