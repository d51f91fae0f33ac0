"""Membrane completeness: the stained share of the cells' outlines.

The ASCO/CAP guideline reads HER2 from two things per cell, the intensity of the membrane's staining and whether it
runs all around. Both are measured here by rays: nuclei are blobs in the hematoxylin density; from each nucleus'
centre rays run to where the next nucleus' territory begins (the membrane of a cell lies halfway to its neighbour in
a sheet of tumour cells), and a ray is stained where DAB peaks on it. The stained share of a cell's rays is its
completeness. Densities are in OD units, lengths in micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from restain.evaluation.filters import gaussian
from restain.her2 import FAINT_OD
from restain.optics import DAB, HEMATOXYLIN, optical_density, unmix

Floats = NDArray[np.float32]

RAYS = 24
"""Directions in which a cell's outline is looked for."""

BLOB_UM = 2.8
"""Standard deviation in µm of the Gaussian whose Laplacian finds nuclei (a disc of radius r answers most at r/√2)."""

APART_UM = 2.0
"""Least distance of two nuclei's centres in µm."""

NUCLEUS_OD = 0.02
"""Least answer of the scale-normalised Laplacian, in OD, that counts as a nucleus."""

INNER_UM = 2.0
OUTER_UM = 10.0
"""Least and greatest distance in µm of a membrane from its nucleus' centre."""

BEYOND_UM = 0.5
"""How far in µm past the middle between two nuclei a membrane may lie: nuclei are not centred in their cells."""

SMOOTH_UM = 0.4
"""Standard deviation in µm of the Gaussian over DAB before rays are read: noise must not add up to a peak."""


@dataclass(frozen=True, slots=True)
class CellMembranes:
    """Completeness and density of each cell's membrane, measured along rays: arrays of N."""

    y: Floats
    x: Floats
    """Nuclear centres in px (row, column)."""
    completeness: Floats
    """Stained share of the outline in [0, 1]."""
    dab_od: Floats
    """Mean DAB density of the stained part of the outline in OD; 0 where nothing is stained."""


def ihc_hematoxylin(rgb: ArrayLike, white: ArrayLike = 255.0) -> Floats:
    """Hematoxylin density of an H-DAB image: ``(H, W, 3)`` 8-bit RGB to ``(H, W)``, OD units, never negative."""
    return np.maximum(unmix(optical_density(rgb, white), (HEMATOXYLIN, DAB))[..., 0], 0.0)


def find_nuclei(density: Floats, mpp: float, least: float = NUCLEUS_OD) -> NDArray[np.intp]:
    """Centres of blobs about as large as a nucleus: ``(H, W)`` OD to ``(N, 2)`` of (row, column) in px.

    Maxima of the negative scale-normalised Laplacian of a Gaussian (Lindeberg, *Int J Comput Vis* 30:79, 1998).
    """
    sigma = BLOB_UM / mpp
    # The Laplacian as a difference of Gaussians, since two separable filters are quicker than one Laplacian.
    narrow, wide = (gaussian(density, each, truncate=3) for each in (sigma / 1.26, sigma * 1.26))
    answer = (narrow - wide) / np.float32(np.log(1.26 * 1.26))
    return find_peaks(answer, max(1, round(APART_UM / mpp)), least)


def find_peaks(image: Floats, apart: int, least: float) -> NDArray[np.intp]:
    """Maxima above ``least`` of squares of ``2 * apart + 1`` px around them: ``(N, 2)`` of (row, column), greatest first.

    They are those of scikit-image's ``peak_local_max``, in a fifth of its time: squares are compared only around the
    few pixels that are not below their neighbours. Where maxima of one square are equal, the first is kept.
    """
    high = image > least
    high[1:] &= image[1:] >= image[:-1]
    high[:-1] &= image[:-1] >= image[1:]
    high[:, 1:] &= image[:, 1:] >= image[:, :-1]
    high[:, :-1] &= image[:, :-1] >= image[:, 1:]
    squares = sliding_window_view(np.pad(image, apart, constant_values=-np.inf), (2 * apart + 1, 2 * apart + 1))
    found = np.argwhere(high)
    value = image[high]
    greatest = value == squares[high].max(axis=(1, 2), initial=-np.inf)
    found = found[greatest][np.argsort(-value[greatest], kind="stable")]
    kept = np.ones(len(found), np.bool_)
    for first, second in sorted(cKDTree(found).query_pairs(apart - 0.5, p=np.inf)) if len(found) else ():
        kept[second] &= not kept[first]
    return found[kept]


def cell_membranes(dab: Floats, hematoxylin: Floats | None, mpp: float, threshold: float = FAINT_OD) -> CellMembranes:
    """Completeness and density of each cell's membrane.

    Args:
        dab: ``(H, W)`` DAB density in OD.
        hematoxylin: ``(H, W)`` hematoxylin density in OD of the same section, in which nuclei are found; ``None``
            looks for the unstained middles of cells in the DAB map itself, which misses cells without staining.
        mpp: micrometres per pixel.
        threshold: least DAB density in OD that counts as staining.

    Raises:
        ValueError: if the maps differ in shape.
    """
    if hematoxylin is not None and hematoxylin.shape != dab.shape:
        raise ValueError(f"hematoxylin {hematoxylin.shape} and DAB {dab.shape} must be of the same shape")
    return membranes_at(dab, find_nuclei(-dab if hematoxylin is None else hematoxylin, mpp), mpp, threshold)


def membranes_at(dab: Floats, centres: NDArray[np.intp], mpp: float, threshold: float = FAINT_OD) -> CellMembranes:
    """:func:`cell_membranes` of nuclei that are known, ``(N, 2)`` of (row, column) in px.

    Two stains of one tissue are best compared at the same nuclei.
    """
    return Rays(centres, dab.shape, mpp).membranes(smooth_membranes(dab, mpp), threshold)


def smooth_membranes(dab: Floats, mpp: float) -> Floats:
    """A DAB map as rays read it: ``(H, W)`` OD, smoothed by :data:`SMOOTH_UM`."""
    return gaussian(dab, SMOOTH_UM / mpp)


class Rays:
    """The rays of some nuclei, laid once for all DAB maps that are read at them.

    Args:
        centres: of the nuclei, ``(N, 2)`` of (row, column) in px.
        shape: of the maps.
        mpp: micrometres per pixel.
    """

    def __init__(self, centres: NDArray[np.intp], shape: tuple[int, ...], mpp: float) -> None:
        self.centres, self.shape = centres, shape
        angle = np.linspace(0, 2 * np.pi, RAYS, endpoint=False)
        direction = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        radius = np.arange(INNER_UM / mpp, OUTER_UM / mpp + 0.5, max(1.0, 0.5 / mpp))
        reach = np.maximum(_reach(centres.astype(np.float64), direction, OUTER_UM / mpp, BEYOND_UM / mpp), radius[0])
        steps = direction[:, None, :] * radius[:, None]
        steps = np.searchsorted(radius, reach.ravel(), side="right")
        ray = np.repeat(np.arange(len(steps)), steps)
        out = radius[np.arange(len(ray)) - np.repeat(np.cumsum(steps) - steps, steps)]
        last = np.array(shape) - 1
        at = [
            np.repeat(np.repeat(centre, RAYS), steps) + np.repeat(np.tile(along, len(centres)), steps) * out
            for centre, along in zip(centres.T, direction.T, strict=True)
        ]
        # Beyond the image there is no stain.
        within = (at[0] >= 0) & (at[0] <= last[0]) & (at[1] >= 0) & (at[1] <= last[1])
        corner, offset = [], []
        for one, end in zip(at, last, strict=True):
            inside = one[within]
            corner.append(np.minimum(inside.astype(np.intp), max(end - 1, 0)))
            offset.append((inside - corner[-1]).astype(np.float32))
        which = ray[within]
        self._down, self._right = offset
        self._corner = corner[0] * shape[1] + corner[1]
        self._starts = np.flatnonzero(np.diff(which, prepend=-1))
        self._which = which[self._starts]

    def peaks(self, smooth: Floats) -> Floats:
        """The greatest DAB density on each ray of each nucleus, ``(N, RAYS)``, of a map by :func:`smooth_membranes`."""
        flat, below, beside = smooth.ravel(), self.shape[1] * (self.shape[0] > 1), int(self.shape[1] > 1)
        above = flat[self._corner]
        above += self._right * (flat[self._corner + beside] - above)
        under = flat[self._corner + below]
        under += self._right * (flat[self._corner + below + beside] - under)
        above += self._down * (under - above)
        found = np.zeros(len(self.centres) * RAYS, np.float32)
        if len(self._starts):
            found[self._which] = np.maximum(np.maximum.reduceat(above, self._starts), 0)
        return found.reshape(-1, RAYS)

    def membranes(self, smooth: Floats, threshold: float = FAINT_OD) -> CellMembranes:
        """The membranes of a map by :func:`smooth_membranes`; ``threshold`` as in :func:`cell_membranes`."""
        peak = self.peaks(smooth)
        stained = peak >= threshold
        count = stained.sum(axis=1)
        strength = np.where(stained, peak, 0).sum(axis=1) / np.maximum(count, 1)
        y, x = self.centres.T.astype(np.float32)
        return CellMembranes(y, x, (count / RAYS).astype(np.float32), strength.astype(np.float32))


def _reach(
    centres: NDArray[np.float64], direction: NDArray[np.float64], longest: float, beyond: float
) -> NDArray[np.float64]:
    """How far each ray may run: to the edge of the cell's Voronoi territory and ``beyond``; ``(N, RAYS)`` in px."""
    reach = np.full((len(centres), len(direction)), longest)
    if len(centres) > 1:
        near = min(9, len(centres))
        distance, who = cKDTree(centres).query(centres, k=near)
        for k in range(1, near):
            towards = (centres[who[:, k]] - centres) / np.maximum(distance[:, k], 1e-6)[:, None]
            cosine = towards @ direction.T
            # The bisector of two centres at distance d cuts a ray at angle a after d / (2 cos a).
            edge = np.where(cosine > 1e-3, distance[:, k, None] / (2 * np.maximum(cosine, 1e-3)), np.inf)
            reach = np.minimum(reach, edge + beyond)
    return reach
