"""Attribution maps by captum: how much each pixel of the H&E adds to a target.

Both methods compare the image with a *baseline* without evidence: ``glass`` is the H&E's own glass colour everywhere,
``blur`` the image blurred by :data:`BLUR_UM`, which keeps the colour of a place and removes its nuclei.

captum comes with the extra ``restain[explain]``; without it, importing this module is a :class:`RestainError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from restain import optics
from restain.errors import RestainError, needs
from restain.explain.targets import Target
from restain.models.tensors import batch_of
from restain.progress import Steps

with needs("explain", "An explanation"):
    from captum.attr import IntegratedGradients, Occlusion

Baseline = Literal["glass", "blur"]
Floats = NDArray[np.float32]

BLUR_UM = 5.0
"""Standard deviation of the blurred baseline, in µm: no nucleus of 6 to 11 µm keeps its outline."""


@dataclass(frozen=True)
class Attribution:
    """A map ``(H, W)`` in the target's unit: positive where the pixel raises the target, negative where it lowers it.

    ``completeness`` is, for integrated gradients, the map's sum over the difference of the target between image and
    baseline: 1 with enough steps. None for other methods, or without a difference.
    """

    method: str
    values: Floats
    completeness: float | None = None


def counted(target: Target, calls: Steps) -> Target:
    """``target``, whose calls are counted image by image."""

    def counting(he: Tensor) -> Tensor:
        result = target(he)
        calls.add(len(he))
        return result

    return counting


def baseline_of(he: NDArray[np.uint8], kind: Baseline, mpp: float) -> Floats:
    """The baseline of an H&E image: ``(H, W, 3)`` uint8 to float32 in [0, 255].

    Raises RestainError if ``kind`` is unknown.
    """
    if kind == "glass":
        return np.broadcast_to(optics.glass_white(he), he.shape).astype(np.float32)
    if kind == "blur":
        sigma = BLUR_UM / mpp
        return ndimage.gaussian_filter(he.astype(np.float32), (sigma, sigma, 0), mode="reflect").astype(np.float32)
    raise RestainError(f"Unknown baseline '{kind}'; choose from {' and '.join(get_args(Baseline))}.")


def integrated_gradients(
    target: Target, he: NDArray[np.uint8], baseline: Floats, *, steps: int = 32, batch: int = 1
) -> Attribution:
    """Integrated gradients (Sundararajan et al., ICML 2017), summed over colours.

    The path is the straight line from ``baseline`` ``(H, W, 3)`` in [0, 255] to ``he`` ``(H, W, 3)`` uint8, with ``steps``
    points (Gauss–Legendre); ``batch`` points go into one call of the network.
    """
    x, start = batch_of(he), batch_of(baseline)
    attribution = IntegratedGradients(target).attribute(
        x, baselines=start, n_steps=steps, method="gausslegendre", internal_batch_size=batch
    )
    values = attribution[0].sum(0).detach().numpy().astype(np.float32)
    with torch.no_grad():
        change = float((target(x) - target(start)).item())
    return Attribution("integrated_gradients", values, float(values.sum()) / change if abs(change) > 1e-6 else None)


def occlusion(
    target: Target, he: NDArray[np.uint8], baseline: Floats, *, patch: int = 32, step: int = 16, batch: int = 1
) -> Attribution:
    """Occlusion (Zeiler & Fergus, ECCV 2014): per pixel the target's mean loss over the patches that cover it.

    ``baseline`` replaces ``he`` (both as in :func:`integrated_gradients`) inside a patch of ``patch`` px, at most the
    image's side. Patches lie ``step`` px apart; ``batch`` of them go into one call of the network.
    """
    patch = min(patch, *he.shape[:2])
    attribution = Occlusion(target).attribute(
        batch_of(he),
        sliding_window_shapes=(3, patch, patch),
        strides=(3, min(step, patch), min(step, patch)),
        baselines=batch_of(baseline),
        perturbations_per_eval=batch,
    )
    return Attribution("occlusion", attribution[0].mean(0).detach().numpy().astype(np.float32))


def occlusion_calls(shape: tuple[int, ...], patch: int, step: int) -> int:
    """Network calls of :func:`occlusion` on an image of ``shape``."""
    side = min(patch, *shape[:2])
    rows, columns = (-(-(n - side) // min(step, side)) + 1 for n in shape[:2])
    return rows * columns + 1
