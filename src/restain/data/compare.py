"""Comparison of the two pictures of a pair: their stains, whether they are identical, and their orientation.

Pictures are reduced to about :data:`SIDE_PX` px, so that a data set of thousands is checked in minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from restain.images import Rgb
from restain.optics import glass_white, optical_density
from restain.registration.features import feature_channels, measure_stain, tissue_density

Floats = NDArray[np.float64]

LEAST_PX = 64
"""Pictures with a shorter side are not compared."""
SIDE_PX = 128
STAIN_FLOOR = 0.06
"""Added to the mean density (sum over RGB), so that the noise of bare glass is no stain."""
STAINS_APART = 0.06
"""Least difference of :func:`eosin_share` between two stains. H&E has 0.12 to 0.30, IHC -0.18 to 0.03."""
SAME_CORRELATION = 0.98
SAME_COLOUR = 8.0
"""Least correlation in luminance and largest difference in grey levels of identical pictures; recompression gives 0.99 and 3."""
SEAM = 2.0
"""Step across the seam of a side-by-side picture, relative to steps beside it, below which one picture continues across the seam."""
REACH_PX = 2
"""Allowed shift between partners, each way: about a sixtieth of the side."""
SHARES = np.array([0.5, 0.25, 0.25])
"""Weights of tissue density, its edges and hematoxylin in the correlation of partners."""
ROTATIONS = ("", "rotated by 90°", "rotated by 180°", "rotated by 270°")
ORIENTATIONS = (*ROTATIONS, "mirrored", *(f"mirrored and {rotation}" for rotation in ROTATIONS[1:]))
"""Orientation of the IHC on the H&E, in the order of :attr:`Comparison.fit`; the first is right."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of the two pictures of a pair.

    ``stains`` is :func:`eosin_share` of H&E minus that of IHC: positive if right, negative if the sides are swapped, about 0
    if both are of one stain. ``joined``: both are of one stain and continue each other when side by side. ``same``: both are
    one picture. ``fit`` is, for each of :data:`ORIENTATIONS`, the correlation in [-1, 1] of the structure of the H&E with that
    of the IHC brought back from it.
    """

    stains: float
    joined: bool
    same: bool
    fit: Floats


def compare_sides(he: Rgb, ihc: Rgb) -> Comparison | None:
    """Compare ``(H, W, 3)`` ``uint8`` RGB pictures of one size; None if they are too small."""
    if min(he.shape[:2]) < LEAST_PX:
        return None
    one, other = _small(he), _small(ihc)
    stains = eosin_share(one) - eosin_share(other)
    joined = abs(stains) < STAINS_APART and _continue(he, ihc)
    return Comparison(stains, joined, _is_same(one, other), _fits(one, other))


def stain_difference(he: Rgb, ihc: Rgb) -> float | None:
    """:attr:`Comparison.stains` alone, which costs less; None if the pictures are too small."""
    return eosin_share(_small(he)) - eosin_share(_small(ihc)) if min(he.shape[:2]) >= LEAST_PX else None


def eosin_share(rgb: Rgb) -> float:
    """Share of eosin in a picture's stain, in [-1, 1]: above 0.1 in H&E, about 0 in blue counterstain, negative with DAB.

    It is the excess of optical density in green over both red and blue, as a share of all: eosin absorbs green alone, while
    hematoxylin absorbs red as much and DAB blue more.
    """
    density = np.maximum(optical_density(rgb, glass_white(rgb)), 0.0)
    above = density[..., 1] - np.maximum(density[..., 0], density[..., 2])
    return float(above.mean() / (density.sum(axis=-1).mean() + STAIN_FLOOR))


def halves_of_one(one: Rgb, other: Rgb) -> bool:
    """Whether two pictures are of one stain and continue each other from left to right, in either order."""
    stains = stain_difference(one, other)
    return stains is not None and abs(stains) < STAINS_APART and _continue(one, other)


def _continue(one: Rgb, other: Rgb) -> bool:
    return any(_seam(left, right) < SEAM for left, right in ((one, other), (other, one)))


def _seam(left: Rgb, right: Rgb) -> float:
    columns = np.concatenate([left[:, -4:], right[:, :4]], axis=1).astype(np.float64)
    steps = np.abs(np.diff(columns, axis=1)).mean(axis=(0, 2))
    return float(steps[3] / (np.delete(steps, 3).max() + 1e-6))


def _small(rgb: Rgb) -> Rgb:
    factor = max(1, min(rgb.shape[:2]) // SIDE_PX)
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).reduce(factor))


def _is_same(one: Rgb, other: Rgb) -> bool:
    a, b = one.astype(np.float64), other.astype(np.float64)
    if np.abs(a - b).mean() > SAME_COLOUR:
        return False
    a, b = a.mean(axis=-1), b.mean(axis=-1)
    deviation = a.std() * b.std()
    # Two empty fields correlate without being one picture.
    correlated = deviation > 1 and ((a - a.mean()) * (b - b.mean())).mean() > SAME_CORRELATION * deviation
    return bool(correlated or np.array_equal(one, other))


def _fits(one: Rgb, other: Rgb) -> Floats:
    here = np.fft.rfft2(_planes(one))
    there = _planes(other)
    oriented = [np.rot90(planes, k, axes=(1, 2)) for planes in (there, there[:, :, ::-1]) for k in range(4)]
    return np.array([_correlation(here, planes) for planes in oriented])


def _planes(rgb: Rgb) -> Floats:
    """``(3, n, n)``: tissue density, its edges and the pattern of hematoxylin, of mean 0; the squares of their deviations are :data:`SHARES`."""
    side = min(rgb.shape[:2])
    top, left = ((n - side) // 2 for n in rgb.shape[:2])
    square = np.ascontiguousarray(rgb[top : top + side, left : left + side])
    glass = glass_white(square)
    stain = measure_stain(square, glass=glass)
    total = np.maximum(optical_density(square, glass), 0).sum(axis=-1)
    edges = ndimage.gaussian_gradient_magnitude(np.sqrt(total), 1.0)
    planes = np.stack([tissue_density(square, stain), edges, feature_channels(square, stain, 1.0)[1]]).astype(
        np.float64
    )
    planes -= planes.mean(axis=(1, 2), keepdims=True)
    return planes * (np.sqrt(SHARES)[:, None, None] / (planes.std(axis=(1, 2), keepdims=True) + 1e-6))


def _correlation(here: NDArray[np.complex128], planes: Floats) -> float:
    surface = np.fft.irfft2((here * np.conj(np.fft.rfft2(planes))).sum(axis=0), planes.shape[1:])
    near = np.roll(surface, (REACH_PX, REACH_PX), axis=(0, 1))[: 2 * REACH_PX + 1, : 2 * REACH_PX + 1]
    return float(near.max() / planes[0].size)
