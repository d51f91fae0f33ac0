"""Targets: numbers that a model computes from an H&E image, as functions with a gradient.

A target takes ``(N, 3, H, W)`` RGB in [0, 1] and returns ``(N,)``: the logit or probability of a HER2 level, or the mean
DAB density of a disc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain import losses, optics
from restain.errors import RestainError
from restain.geometry import Point
from restain.her2 import Her2Level
from restain.models.expression import ExpressionClassifier, ExpressionOutput
from restain.models.heads import Stained
from restain.models.network import StainingNetwork

Target = Callable[[Tensor], Tensor]

DISC_UM = 16.0
"""Diameter of the disc over which DAB is averaged, in µm: about one tumour cell with its membrane."""


def level_logit(classifier: ExpressionClassifier, level: Her2Level) -> Target:
    """The classifier's logit of ``level``."""
    return lambda he: classifier(he).logits[:, int(level)]


def level_probability(classifier: ExpressionClassifier, level: Her2Level) -> Target:
    """The classifier's probability of ``level``, in [0, 1]."""
    return lambda he: torch.softmax(classifier(he).logits, dim=1)[:, int(level)]


def disc_mask(shape: tuple[int, int], centre: Point, mpp: float) -> NDArray[np.bool_]:
    """The pixels of the disc around ``centre``, ``(H, W)``; cut off at the image's edge.

    Raises RestainError if the centre lies outside the image.
    """
    height, width = shape
    if not (0 <= centre.x < width and 0 <= centre.y < height):
        raise RestainError(f"The point {centre.x},{centre.y} lies outside the image, which is {width}x{height} px.")
    y, x = np.ogrid[:height, :width]
    within: NDArray[np.bool_] = np.hypot(y - centre.y, x - centre.x) * mpp <= DISC_UM / 2
    return within


def dab_map(stained: Stained) -> Tensor:
    """DAB density ``(N, H, W)`` in OD units: the stain head's, or of a colour-only model by colour deconvolution.

    The white point of each image is then its glass (:func:`restain.optics.glass_white`), without a gradient.
    """
    if stained.dab is not None:
        return stained.dab[:, 0]
    light = (stained.rgb.detach().permute(0, 2, 3, 1) * 255).cpu().numpy()
    white = torch.from_numpy(np.stack([optics.glass_white(image) for image in light]) / 255)
    return losses.dab_density(stained.rgb, white.to(stained.rgb))[:, 0]


def disc_dab(network: StainingNetwork, disc: NDArray[np.bool_]) -> Target:
    """The mean DAB density, in OD units, that ``network`` gives to the pixels of ``disc`` ``(H, W)``."""
    inside = torch.from_numpy(np.flatnonzero(disc))
    return lambda he: dab_map(network(he)).flatten(1)[:, inside].mean(dim=1)


@contextmanager
def label_gradient(network: StainingNetwork) -> Iterator[None]:
    """Let gradients pass through the label feature, which the generator otherwise treats as a constant.

    Without this, the contribution of the label feature would be missing from the gradient of a DAB.
    """

    def again(module: torch.nn.Module, args: tuple[Any, ...], output: ExpressionOutput) -> ExpressionOutput | None:
        if torch.is_inference_mode_enabled() or not args[0].requires_grad or output.features.requires_grad:
            return None
        with torch.enable_grad():
            result: ExpressionOutput = module.forward(*args)
        return result

    hook = None if network.expression is None else network.expression.register_forward_hook(again)
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
