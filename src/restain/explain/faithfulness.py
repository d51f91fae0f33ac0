"""Faithfulness of a map: its position relative to a known cause, and deletion and insertion curves.

All maps, also baseline maps, are smoothed by the same Gaussian and ordered on the same grid of patches, so that none wins
by a finer resolution.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.integrate import trapezoid

from restain.explain.attribution import Floats
from restain.explain.targets import Target
from restain.geometry import Point
from restain.models.tensors import batch_of

SMOOTH_UM = 2.0
"""Standard deviation of the Gaussian that smooths every map, in µm: it removes pixel noise and keeps a nucleus."""
PATCH = 16
"""Side in px of the patches that are deleted and inserted."""


def smoothed(values: NDArray[np.floating], mpp: float) -> Floats:
    """A map ``(H, W)`` smoothed by ``SMOOTH_UM``, as it is shown, summed and measured; its sum is kept."""
    smooth = ndimage.gaussian_filter(np.asarray(values, np.float64), SMOOTH_UM / mpp, mode="reflect")
    return np.asarray(smooth, np.float32)


def evidence(values: NDArray[np.floating], mpp: float) -> Floats:
    """The positive part of a smoothed map ``(H, W)``."""
    return np.maximum(smoothed(values, mpp), 0)


def pointing_hit(values: NDArray[np.floating], cause: NDArray[np.bool_], mpp: float) -> float:
    """Pointing game (Zhang et al., IJCV 2018): 1 if the map's maximum lies in ``cause`` ``(H, W)``, else 0.

    Without tolerance around the cause. NaN for a map without evidence.
    """
    found = evidence(values, mpp)
    return float(cause.flat[int(found.argmax())]) if found.max() > 0 else float("nan")


def share_inside(values: NDArray[np.floating], cause: NDArray[np.bool_], mpp: float) -> float:
    """Energy-based pointing game (Wang et al., CVPRW 2020): share of the map's evidence that lies in ``cause``.

    A uniform map reaches the cause's share of the area. NaN for a map without evidence.
    """
    found = evidence(values, mpp)
    total = float(found.sum())
    return float(found[cause].sum()) / total if total > 0 else float("nan")


def patch_order(values: NDArray[np.floating], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pixel's patch ``(H, W)``, and the patches by falling mean of a map ``(H, W)``; ``rng`` breaks ties."""
    height, width = values.shape
    across = -(-width // PATCH)
    number = (np.arange(height) // PATCH)[:, None] * across + np.arange(width) // PATCH
    mean = ndimage.mean(values, number, np.arange(number.max() + 1))
    return number, np.lexsort((rng.random(len(mean)), -np.asarray(mean)))


def curve(
    target: Target,
    he: NDArray[np.uint8],
    baseline: Floats,
    values: NDArray[np.floating],
    *,
    insert: bool,
    steps: int,
    seed: int,
    ends: tuple[float, float],
) -> Floats:
    """Deletion or insertion curve (Petsiuk et al., BMVC 2018): ``(steps + 1,)`` values of the target.

    The patches with the highest mean of the map ``values`` ``(H, W)`` change first, in ``steps`` equal parts: from ``he``
    ``(H, W, 3)`` uint8 to ``baseline`` ``(H, W, 3)`` in [0, 255], or with ``insert`` the other way. ``ends`` are the
    target on the image and on the baseline, which all maps share; ``seed`` breaks ties.
    """
    number, order = patch_order(values, np.random.default_rng([seed]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    first, last = ends[::-1] if insert else ends
    result = [first]
    for done in range(1, steps):
        changed = (rank < round(len(order) * done / steps))[number]
        pixels = np.where((changed if insert else ~changed)[..., None], he, baseline).astype(np.float32)
        with torch.inference_mode():
            result.append(float(target(batch_of(pixels)).item()))
    return np.array([*result, last], np.float32)


def area_under(values: Floats) -> float:
    """Area under a curve over [0, 1], by trapezoids: the mean height."""
    return float(trapezoid(values, dx=1 / (len(values) - 1)))


def random_map(shape: tuple[int, int], seed: int) -> Floats:
    """Baseline map: uniform noise in [0, 1), one draw per patch."""
    height, width = shape
    drawn = np.random.default_rng([seed]).random((-(-height // PATCH), -(-width // PATCH)))
    return np.kron(drawn, np.ones((PATCH, PATCH)))[:height, :width].astype(np.float32)


def edge_map(he: NDArray[np.uint8], mpp: float) -> Floats:
    """Baseline map: gradient magnitude of the H&E's brightness at 0.5 µm; independent of the model."""
    grey = he.astype(np.float32).mean(axis=-1)
    return np.asarray(ndimage.gaussian_gradient_magnitude(grey, 0.5 / mpp, mode="reflect"), np.float32)


def nearness_map(shape: tuple[int, int], point: Point, mpp: float) -> Floats:
    """Baseline map of a place: a Gaussian of 8 µm around it."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * (np.hypot(y - point.y, x - point.x) * mpp / 8.0) ** 2).astype(np.float32)
