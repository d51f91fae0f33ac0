"""Figures of the stain: location, amount and area of DAB in the virtual image against the reference.

DAB densities are compared per cell of 16 µm, about the size of one tumour cell, because pairs match only
roughly: two sections of a few micrometres' distance, or one that was stained twice, agree on cells and not on
pixels. "Virtual" and "reference" are ``(H, W)`` DAB maps in OD units (:func:`restain.optics.dab_density`, or
the truth of a phantom).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.filters import gaussian
from restain.geometry import um_to_px

CELL_UM = 16.0
"""Side of the square cells over which DAB is averaged, in micrometres."""

WIDE_CELL_UM = 64.0
"""Side of the wider cells: about 16 tumour cells, beyond the misalignment of most pairs."""

BACKGROUND_OD = 0.05
"""A pixel is background where the reference's DAB density, smoothed by ``BACKGROUND_SIGMA``, is below."""

BACKGROUND_SIGMA = 1.0
"""Standard deviation in px of the Gaussian that takes noise out of the reference before the threshold."""

POSITIVE_OD = 0.10
"""A pixel is positive where DAB density, smoothed by ``BACKGROUND_SIGMA``, is at least this: above the faintest stain
that an eye sees (``her2.FAINT_OD``), below the weakest membrane that is complete (``her2.WEAK_OD``)."""

WEAK_OD = (0.05, 0.30)
"""Smoothed reference density from which and below which staining is weak, the kind that whitening bleaches."""

MIN_WEAK = 0.001
"""Share of an image that must be weakly stained for the kept share of it to be a figure."""

MIN_SPREAD_OD = 0.001
"""A reference whose cell means have a smaller standard deviation, in OD, has no pattern to correlate with.

It is about half a grey level of an 8-bit white.
"""

_FLAT_OD = 1e-5
"""A virtual map whose cell means have a smaller standard deviation is flat; rounding in the sums is below that."""

MIN_CELLS = 3
"""Two cells always correlate perfectly, so a correlation needs at least three."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over cells from which a Pearson correlation follows; sums of images add up to those of a split."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def cell_px(mpp: float, cell_um: float = CELL_UM) -> int:
    """Side of a cell in whole pixels at ``mpp`` micrometres per pixel (35 px at BCI's 0.46).

    Raises:
        ValueError: if ``mpp`` is not a positive number.
    """
    return um_to_px(cell_um, mpp)


def cell_means(density: NDArray[np.float32], cell: int) -> NDArray[np.float64]:
    """Means over square cells of ``cell`` px: ``(H, W)`` to ``(H // cell, W // cell)``.

    Cells start at the top left; a margin that fills no whole cell is left out. A side shorter than a cell is
    one cell.
    """
    height, width = (min(cell, side) for side in density.shape)
    rows, columns = density.shape[0] // height, density.shape[1] // width
    whole = density[: rows * height, : columns * width].astype(np.float64)
    return whole.reshape(rows, height, columns, width).mean(axis=(1, 3))


def cell_moments(
    virtual: NDArray[np.float32], reference: NDArray[np.float32], mpp: float, cell_um: float = CELL_UM
) -> Moments:
    """The sums over the cells of one image, for :func:`pearson` of it alone or pooled with others."""
    cell = cell_px(mpp, cell_um)
    return moments_of(cell_means(virtual, cell).ravel(), cell_means(reference, cell).ravel())


def moments_of(virtual: NDArray[np.float64], reference: NDArray[np.float64]) -> Moments:
    """The sums over any values that go in pairs, two arrays of N."""
    x, y = virtual, reference
    return Moments(float(x.size), *(float(s.sum()) for s in (x, y, x * x, y * y, x * y)))


def pearson(moments: Moments) -> float:
    """Pearson's r between virtual and reference cells, in [-1, 1].

    NaN where the reference has no pattern (standard deviation below ``MIN_SPREAD_OD``) or there are
    fewer than ``MIN_CELLS`` cells. A virtual map without any variance against a reference that has some
    explains nothing: r is 0, so that a flat picture cannot leave the mean by being flat.
    """
    return float(pearson_of_sums(np.array(astuple(moments))))


def pearson_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`pearson` of many sums at once: ``(..., 6)`` in the order of :class:`Moments` to ``(...)``."""
    n = np.maximum(sums[..., 0], 1)
    x, y, xx, yy, xy = (sums[..., k] / n for k in range(1, 6))
    variance_x, variance_y = np.maximum(xx - x * x, 0), np.maximum(yy - y * y, 0)
    flat = variance_x < _FLAT_OD**2
    scale = np.sqrt(np.where(flat, 1, variance_x) * np.where(variance_y > 0, variance_y, 1))
    r = np.where(flat, 0.0, np.clip((xy - x * y) / scale, -1.0, 1.0))
    return np.where((sums[..., 0] < MIN_CELLS) | (variance_y < MIN_SPREAD_OD**2), np.nan, r)


def dab_r16(
    virtual: NDArray[np.float32], reference: NDArray[np.float32], mpp: float, cell_um: float = CELL_UM
) -> float:
    """Pearson's r over cells of 16 µm of two ``(H, W)`` DAB maps; NaN where undefined (:func:`pearson`).

    It asks where the stain is, not how strong: any positive linear map of the densities has the same r.
    """
    return pearson(cell_moments(virtual, reference, mpp, cell_um))


def dab_mean(density: NDArray[np.float32]) -> float:
    """Mean DAB density of an image in OD units."""
    return float(np.mean(density, dtype=np.float64))


def dab_sum(density: NDArray[np.float32], mpp: float) -> float:
    """Integrated DAB density of an image in OD·µm²: the amount of stain, independent of the pixel's size."""
    return float(np.sum(density, dtype=np.float64)) * mpp * mpp


def smoothed(density: NDArray[np.float32], sigma: float = BACKGROUND_SIGMA) -> NDArray[np.float32]:
    """A DAB map as thresholds see it: ``(H, W)`` OD, smoothed so that one noisy pixel is no stain."""
    return gaussian(density, sigma)


def positive_area(smooth: NDArray[np.float32], threshold: float = POSITIVE_OD) -> float:
    """Share of an image in [0, 1] whose :func:`smoothed` DAB density is at least ``threshold`` OD."""
    return float(np.mean(smooth >= threshold))


def weak_area_ratio(virtual: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Share in [0, 1] of the weakly stained area that the virtual map stains too.

    Weak is where the reference is within ``WEAK_OD``; stained is where the virtual map is at least its lower end. A
    model that buys white background by bleaching 1+ staining shows here. Both maps are :func:`smoothed`. NaN
    where less than ``MIN_WEAK`` of the image is weakly stained.
    """
    weak = (reference >= WEAK_OD[0]) & (reference < WEAK_OD[1])
    if weak.mean() < MIN_WEAK:
        return float("nan")
    return float(np.mean(virtual[weak] >= WEAK_OD[0]))


def background_mask(
    reference: NDArray[np.float32], threshold: float = BACKGROUND_OD, sigma: float = BACKGROUND_SIGMA
) -> NDArray[np.bool_]:
    """Where there is no DAB: ``(H, W)`` OD to a mask of the pixels below ``threshold`` after smoothing."""
    return smoothed(reference, sigma) < threshold
