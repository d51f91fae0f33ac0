"""One image through a network in one piece, without tissue mask, blocks or survey: what training validates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restain.engines.eager import EagerEngine
from restain.models.network import StainingNetwork
from restain.models.state_grid import State
from restain.prediction import Prediction


def restain_whole(
    generator: StainingNetwork,
    he: NDArray[np.uint8],
    white: NDArray[np.float32] | None = None,
    context: Sequence[State] | None = None,
) -> NDArray[np.float32]:
    """Restain an image in one piece, on the generator's device.

    ``(H, W, 3)`` uint8 RGB to ``(H, W, 3 or 4)``: RGB in [0, 1], then the DAB density in OD units where the model has a
    stain head. ``white``, ``(3,)`` in [0, 255], is the glass to render on in place of the model's own; it needs a stain head.
    ``context``: what a survey says of the image that ``he`` is a tile of, for restain's own generator.
    """
    engine = EagerEngine(generator, next(generator.parameters()).device)
    planes: NDArray[np.float32] = engine(he[None], white, context)[0]
    return planes


def to_prediction(planes: NDArray[np.float32]) -> Prediction:
    """What :func:`restain_whole` gives, as an 8-bit image and a DAB map."""
    rgb = np.round(planes[..., :3].clip(0, 1) * 255).astype(np.uint8)
    return Prediction(rgb, planes[..., 3] if planes.shape[2] == 4 else None)
