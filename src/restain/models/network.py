"""What every generator is: one interface for the method and for its peers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from restain.models.expression import ExpressionClassifier
from restain.models.heads import Stained
from restain.models.state_grid import State
from restain.models.streamed import AttentionState


class StainingNetwork(nn.Module, ABC):
    """H&E image to virtual IHC image: ``(N, 3, H, W)`` RGB in [0, 1] of any size to :class:`~restain.models.heads.Stained`."""

    def __init__(self) -> None:
        super().__init__()
        self.expression: ExpressionClassifier | None = None
        """The frozen classifier of stage one, in a network that takes its feature map in."""

    @abstractmethod
    def forward(self, he: Tensor) -> Stained: ...

    def redraw_features(self, generator: torch.Generator) -> None:
        """Draw new random features, in a network that has some (see the recipe's ``redraw_every``)."""

    @property
    def surveyed_blocks(self) -> int:
        """How many attention blocks :meth:`survey` tells of, whose states a call takes as its ``context``."""
        return 0

    @property
    def surveys(self) -> bool:
        """Whether :meth:`survey` can tell anything."""
        return self.surveyed_blocks > 0

    def survey(self, he: Tensor, context: Sequence[State] = (), blocks: int | None = None) -> list[AttentionState]:
        """What attention needs to know of ``he``, ``(N, 3, H, W)``, as keys; one state per attention block, which add up.

        ``context``: what the first blocks read from meanwhile; the others read from ``he`` itself. ``blocks``: no more than so many.
        """
        return []


def batch_of(he: NDArray[np.uint8] | NDArray[np.float32], device: torch.device | None = None) -> Tensor:
    """``(H, W, 3)`` RGB in [0, 255] as a batch of one, ``(1, 3, H, W)`` in [0, 1], in the networks' memory layout."""
    tensor = torch.from_numpy(np.ascontiguousarray(he)).to(device).permute(2, 0, 1)[None].float() / 255
    return tensor.contiguous(memory_format=torch.channels_last)


def padded(he: Tensor, step: int) -> Tensor:
    """``he`` with rows and columns added at the bottom and right, by reflection, up to multiples of ``step``."""
    height, width = he.shape[2:]
    if height % step == 0 and width % step == 0:
        return he
    mode = "reflect" if min(height, width) > step else "replicate"
    return F.pad(he, (0, -width % step, 0, -height % step), mode=mode)
