"""Attribution maps by captum: how much each pixel of the H&E adds to a target.

Both compare the image with a *baseline* that stands for "nothing there":

* ``glass``: the H&E's own glass colour everywhere, so that what counts is that tissue is there at all;
* ``blur``: the image blurred by :data:`BLUR_UM`, which keeps the colour of a place and takes its nuclei away.

captum comes with the extra ``restain[explain]``; without it, importing this module is a :class:`RestainError`.
"""

from __future__ import annotations

from collections.abc import Callable
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

with needs("explain", "An explanation"):
    from captum.attr import IntegratedGradients, Occlusion

Baseline = Literal["glass", "blur"]
Floats = NDArray[np.float32]

BLUR_UM = 5.0
"""Standard deviation of the blurred baseline, in µm: no nucleus of 6 to 11 µm keeps its outline."""


@dataclass(frozen=True)
class Attribution:
    """One map and how it was made.

    ``values`` is ``(H, W)``, in the target's unit: above 0 where the pixel speaks for the target, below where against.
    ``accounted`` is, for integrated gradients, the map's sum over the difference that it should add up to (1 when the
    path has steps enough); None for other methods.
    """

    method: str
    values: Floats
    accounted: float | None = None


class Calls:
    """Counts a network's calls for a progress bar."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None = None) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def counted(self, target: Target) -> Target:
        def counting(he: Tensor) -> Tensor:
            result = target(he)
            self.done = min(self.done + len(he), self.total)
            if self.progress is not None:
                self.progress(self.done, self.total)
            return result

        return counting


def baseline_of(he: NDArray[np.uint8], kind: Baseline, mpp: float) -> Floats:
    """The baseline of an H&E image: ``(H, W, 3)`` uint8 to ``(H, W, 3)`` float32 in [0, 255].

    Raises:
        RestainError: if ``kind`` is none of the baselines.
    """
    if kind == "glass":
        return np.broadcast_to(optics.glass_white(he), he.shape).astype(np.float32)
    if kind == "blur":
        sigma = BLUR_UM / mpp
        return ndimage.gaussian_filter(he.astype(np.float32), (sigma, sigma, 0), mode="reflect").astype(np.float32)
    raise RestainError(f"'{kind}' is no baseline; there are {' and '.join(get_args(Baseline))}.")


def integrated_gradients(
    target: Target, he: NDArray[np.uint8], baseline: Floats, *, steps: int = 32, batch: int = 1
) -> Attribution:
    """Integrated gradients (Sundararajan et al., ICML 2017) along the straight line from ``baseline`` to ``he``.

    Args:
        target: what is explained.
        he: ``(H, W, 3)`` uint8 RGB.
        baseline: ``(H, W, 3)`` in [0, 255].
        steps: points on the line (Gauss–Legendre).
        batch: points per call of the network.

    Returns:
        The map, summed over colours.

    Raises:
        RestainError: if the target has no gradient.
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
    """Occlusion (Zeiler & Fergus, ECCV 2014): what the target loses where a patch is replaced by the baseline.

    Args:
        target: what is explained.
        he: ``(H, W, 3)`` uint8 RGB.
        baseline: ``(H, W, 3)`` in [0, 255].
        patch: side of the square that is replaced, in px; a smaller image's side where that is less.
        step: px between patches, at most ``patch``.
        batch: patches per call of the network.

    Returns:
        Per pixel the mean loss over the patches that cover it.
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
    """Network calls that :func:`occlusion` takes on an image of ``shape``."""
    side = min(patch, *shape[:2])
    count = [-(-(n - side) // min(step, side)) + 1 for n in shape[:2]]
    return count[0] * count[1] + 1
