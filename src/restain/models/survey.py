"""What the attention of all of an image's tiles reads from, so that a pixel's result does not depend on its tile.

The state of FAVOR+ attention is a sum over tokens (:class:`~restain.models.attention.AttentionState`): states of windows
on a fixed grid, which has nothing to do with the tiles, add up to one for the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size
from restain.models.attention import AttentionState
from restain.models.network import StainingNetwork, batch_of


@dataclass(frozen=True)
class Survey:
    """Where to look: windows on a fixed grid, at most ``most`` of them.

    An image of more windows is surveyed at evenly spread ones: the state is a mean, which a sample estimates.
    """

    window: int = 512
    """Side of a window in px at the model's mpp."""
    most: int = 64

    def windows(self, size: Size, where: Callable[[Region], bool] | None = None) -> list[Region]:
        """The windows for an image of ``size``, row by row; no two overlap. ``where``: leave out all others."""
        every = [
            Region(Point(x, y), Size(min(self.window, size.width - x), min(self.window, size.height - y)))
            for y in range(0, size.height, self.window)
            for x in range(0, size.width, self.window)
        ]
        if where is not None:
            every = [window for window in every if where(window)]
        chosen = np.unique(np.linspace(0, len(every) - 1, min(self.most, len(every))).round().astype(int))
        return [every[i] for i in chosen]


def survey_of(generator: StainingNetwork, windows: Iterable[NDArray[np.uint8]]) -> list[AttentionState]:
    """The states of ``windows`` of an H&E image, ``(h, w, 3)`` each, together; empty without windows."""
    device = next(generator.parameters()).device
    total: list[AttentionState] = []
    for he in windows:
        with torch.inference_mode():
            states = generator.survey(batch_of(he, device))
        total = [a + b for a, b in zip(total, states, strict=True)] if total else states
    return total
