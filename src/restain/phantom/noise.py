"""Smooth random fields, from which outlines, fibres, chromatin and misalignment are made."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FIELD_BUMP_UM = 45.0
"""Standard deviation of the bumps of a misalignment field, in µm: sections stretch over tens of cells."""


@functools.lru_cache(maxsize=96)
def _kernel(length: int, sigma: float) -> Floats:
    """Gaussian bumps on a grid finer than ``sigma``: ``(length, knots)``, rows of unit L2 norm."""
    spacing = 0.8 * sigma
    knots = np.arange(-4, math.ceil(length / spacing) + 4) * spacing
    bumps = np.exp(-0.5 * ((np.arange(length)[:, None] - knots[None, :]) / sigma) ** 2)
    return (bumps / np.linalg.norm(bumps, axis=1, keepdims=True)).astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, float]) -> Floats:
    """Gaussian noise ``(H, W)`` of zero mean and unit variance, blurred by ``sigma`` px (or ``(sigma_y, sigma_x)``).

    White noise on a coarse grid is spread by two matrix products, so the cost falls as ``sigma`` grows.
    """
    sigma_y, sigma_x = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    rows, columns = _kernel(shape[0], max(sigma_y, 0.5)), _kernel(shape[1], max(sigma_x, 0.5))
    white = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return np.asarray(rows @ white @ columns.T, dtype=np.float32)


def misalignment_field(shape: tuple[int, int], *, mpp: float, rms_um: float, seed: int, index: int) -> Floats:
    """The elastic field that moves the IHC of pair ``index`` of the data set with ``seed``.

    Returns:
        ``(2, H, W)`` displacement in px along rows and columns, with a root mean square length of ``rms_um``. The
        misaligned image shows at ``(y, x)`` what the aligned one shows at ``(y + field[0], x + field[1])``.
    """
    rng = np.random.default_rng([seed, index, 3])
    sigma = FIELD_BUMP_UM / mpp
    field = np.stack([smooth_noise(rng, shape, sigma), smooth_noise(rng, shape, sigma)])
    rms = float(np.sqrt(np.mean(np.sum(field**2, axis=0))))
    return (field * (rms_um / mpp / max(rms, 1e-6))).astype(np.float32)
