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
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max

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
    narrow = gaussian_filter(density.astype(np.float32), sigma / 1.26, truncate=3)
    wide = gaussian_filter(density.astype(np.float32), sigma * 1.26, truncate=3)
    answer = (narrow - wide) / np.float32(np.log(1.26 * 1.26))
    distance = max(1, round(APART_UM / mpp))
    return peak_local_max(answer, min_distance=distance, threshold_abs=least, exclude_border=False)


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
    if len(centres) == 0:
        none = np.zeros(0, np.float32)
        return CellMembranes(none, none, none, none)
    smooth = gaussian_filter(dab.astype(np.float32), SMOOTH_UM / mpp)
    peak = _along_rays(smooth, centres.astype(np.float64), mpp)
    stained = peak >= threshold
    count = stained.sum(axis=1)
    strength = np.where(stained, peak, 0).sum(axis=1) / np.maximum(count, 1)
    return CellMembranes(
        centres[:, 0].astype(np.float32),
        centres[:, 1].astype(np.float32),
        (count / RAYS).astype(np.float32),
        strength.astype(np.float32),
    )


def _along_rays(dab: Floats, centres: NDArray[np.float64], mpp: float) -> Floats:
    """The greatest DAB density on each ray of each cell: ``(N, RAYS)``."""
    angle = np.linspace(0, 2 * np.pi, RAYS, endpoint=False)
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    reach = _reach(centres, direction, OUTER_UM / mpp, BEYOND_UM / mpp)
    radius = np.arange(INNER_UM / mpp, OUTER_UM / mpp + 0.5, max(1.0, 0.5 / mpp))
    at = centres[:, None, None, :] + direction[None, :, None, :] * radius[None, None, :, None]
    value = map_coordinates(dab, at.reshape(-1, 2).T, order=1, mode="constant", cval=0.0).reshape(at.shape[:-1])
    return np.where(radius <= np.maximum(reach, radius[0])[..., None], value, 0).max(axis=2).astype(np.float32)


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
