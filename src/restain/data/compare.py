"""How the two pictures of a pair look beside each other: their stains, whether they are one picture, how one lies on the other.

Everything is measured on pictures of about :data:`SIDE_PX` px, so that a data set of thousands is looked through in minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from restain.images import Rgb
from restain.optics import glass_white, optical_density
from restain.register.structure import channels, look_of, matter

Floats = NDArray[np.float64]

LEAST_PX = 64
"""Pictures with a shorter side are not compared: they show too little."""
SIDE_PX = 128
STAIN_FLOOR = 0.06
"""Added to the mean density (sum over RGB), that the noise of bare glass is no stain."""
STAINS_APART = 0.06
"""Difference of :func:`eosin_share` between H&E and IHC from which on they are told apart. H&E has 0.12 to 0.30, IHC -0.18 to 0.03."""
SAME_CORRELATION = 0.98
SAME_COLOUR = 8.0
"""Pictures that correlate so in luminance and differ in colour by so few grey levels are one; recompression gives 0.99 and 3."""
SEAM = 2.0
"""Step across the seam of a side-by-side picture, relative to steps beside it, below which one picture goes on over the seam."""
REACH_PX = 2
"""Shift that is allowed between partners, each way: about a sixtieth of the side."""
SHARES = np.array([0.5, 0.25, 0.25])
"""Weights of matter, its edges and hematoxylin in the correlation of partners."""
TURNS = ("", "turned by 90°", "turned by 180°", "turned by 270°")
ORIENTATIONS = (*TURNS, "mirrored", *(f"mirrored and {turn}" for turn in TURNS[1:]))
"""How the IHC lies on the H&E, in the order of :attr:`Comparison.fit`; the first is as it should be."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A pair's two pictures beside each other.

    ``stains`` is :func:`eosin_share` of H&E less that of IHC: positive as it should be, negative where the sides are exchanged,
    about 0 where both are of one stain. ``joined`` says that they are of one stain and go on over their seam when laid side by
    side. ``same`` says that both are one picture. ``fit`` holds for each of :data:`ORIENTATIONS`
    the correlation, in [-1, 1], of the structure of the H&E with that of the IHC brought back from it.
    """

    stains: float
    joined: bool
    same: bool
    fit: Floats


def compare_sides(he: Rgb, ihc: Rgb) -> Comparison | None:
    """Compare ``(H, W, 3)`` ``uint8`` RGB pictures of one size; None where they are too small to tell anything."""
    if min(he.shape[:2]) < LEAST_PX:
        return None
    one, other = _small(he), _small(ihc)
    stains = eosin_share(one) - eosin_share(other)
    joined = abs(stains) < STAINS_APART and _go_on(he, ihc)
    return Comparison(stains, joined, _is_same(one, other), _fits(one, other))


def stain_difference(he: Rgb, ihc: Rgb) -> float | None:
    """:attr:`Comparison.stains` alone, which costs less; None where the pictures are too small to tell."""
    return eosin_share(_small(he)) - eosin_share(_small(ihc)) if min(he.shape[:2]) >= LEAST_PX else None


def eosin_share(rgb: Rgb) -> float:
    """How much of a picture's stain is eosin's: in [-1, 1], above 0.1 in H&E, about 0 in blue counterstain, negative with DAB.

    It is the share of the optical density by which green stands above both red and blue: eosin absorbs green alone, while
    hematoxylin absorbs red as much and DAB blue more.
    """
    density = np.maximum(optical_density(rgb, glass_white(rgb)), 0.0)
    above = density[..., 1] - np.maximum(density[..., 0], density[..., 2])
    return float(above.mean() / (density.sum(axis=-1).mean() + STAIN_FLOOR))


def halves_of_one(one: Rgb, other: Rgb) -> bool:
    """Whether two pictures are of one stain and continue one another from left to right, in either order."""
    stains = stain_difference(one, other)
    return stains is not None and abs(stains) < STAINS_APART and _go_on(one, other)


def _go_on(one: Rgb, other: Rgb) -> bool:
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
    # Two empty fields look alike without being one picture.
    alike = deviation > 1 and ((a - a.mean()) * (b - b.mean())).mean() > SAME_CORRELATION * deviation
    return bool(alike or np.array_equal(one, other))


def _fits(one: Rgb, other: Rgb) -> Floats:
    here = np.fft.rfft2(_planes(one))
    there = _planes(other)
    turned = [np.rot90(planes, k, axes=(1, 2)) for planes in (there, there[:, :, ::-1]) for k in range(4)]
    return np.array([_correlation(here, planes) for planes in turned])


def _planes(rgb: Rgb) -> Floats:
    """``(3, n, n)``: matter, its edges and the pattern of hematoxylin, of mean 0; the squares of their deviations are :data:`SHARES`."""
    side = min(rgb.shape[:2])
    top, left = ((n - side) // 2 for n in rgb.shape[:2])
    square = np.ascontiguousarray(rgb[top : top + side, left : left + side])
    glass = glass_white(square)
    look = look_of(square, glass=glass)
    seen = matter(square, look)
    total = np.maximum(optical_density(square, glass), 0).sum(axis=-1)
    edges = ndimage.gaussian_gradient_magnitude(np.sqrt(total), 1.0)
    planes = np.stack([seen, edges, channels(square, look, 1.0)[1]]).astype(np.float64)
    planes -= planes.mean(axis=(1, 2), keepdims=True)
    return planes * (np.sqrt(SHARES)[:, None, None] / (planes.std(axis=(1, 2), keepdims=True) + 1e-6))


def _correlation(here: NDArray[np.complex128], planes: Floats) -> float:
    surface = np.fft.irfft2((here * np.conj(np.fft.rfft2(planes))).sum(axis=0), planes.shape[1:])
    near = np.roll(surface, (REACH_PX, REACH_PX), axis=(0, 1))[: 2 * REACH_PX + 1, : 2 * REACH_PX + 1]
    return float(near.max() / planes[0].size)
