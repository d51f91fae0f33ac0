"""Pictures by which a registration can be judged at a glance: checkerboard, overlay and error map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region
from restain.images import Rgb
from restain.register.structure import Look, matter
from restain.register.transform import Transform
from restain.register.verdict import Quality
from restain.register.warp import warp_region
from restain.slides.slide import Slide

PICTURE_PX = 2048
"""Longer side of the pictures at most."""
FIELDS = 16
"""Fields of the checkerboard along its longer side."""
RAMP = ((0.0, (49, 104, 142)), (0.25, (94, 201, 98)), (0.5, (253, 231, 37)), (1.0, (200, 30, 30)))
"""Colours (RGB) of errors, as shares of the worst that is told apart."""
WORST_UM = 20.0
"""Errors of this many µm (px for plain pictures) and more are red."""


def both(fixed: Slide, moving: Slide, transform: Transform) -> tuple[Rgb, Rgb, float]:
    """The fixed slide and the moving one on its grid, both ``(h, w, 3)``, and their mpp; slides have an mpp."""
    mpp = fixed.mpp * max(1.0, max(fixed.size.width, fixed.size.height) / PICTURE_PX)
    whole = Region(Point(0, 0), fixed.size_at(mpp))
    return fixed.read(whole, mpp), warp_region(moving, transform, whole, mpp), mpp


def checkerboard(one: Rgb, other: Rgb) -> Rgb:
    """Fields of ``one`` and ``other`` by turns, both ``(h, w, 3)``."""
    height, width = one.shape[:2]
    side = max(8, max(height, width) // FIELDS)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    dark = (rows[:, None] + columns) % 2 == 1
    return np.where(dark[..., None], other, one)


def overlay(one: Rgb, other: Rgb, looks: tuple[Look, Look]) -> Rgb:
    """Matter of ``one`` in magenta and of ``other`` in green; where both are, grey."""
    light = [255 * (1 - 0.8 * matter(rgb, look)) for rgb, look in zip((one, other), looks, strict=True)]
    return np.rint(np.stack([light[1], light[0], light[1]], axis=-1)).astype(np.uint8)


def error_map(picture: Rgb, quality: Quality, mpp: float, fixed_mpp: float) -> Rgb:
    """The fixed slide in grey, ``(h, w, 3)``, with the estimated error of each block in colour (see :data:`RAMP`)."""
    grey = picture.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    plane = np.full(quality.shape, np.nan)
    plane[quality.places[:, 0], quality.places[:, 1]] = quality.error
    height, width = picture.shape[:2]
    rows, columns = (
        np.clip((np.arange(n) + 0.5) * mpp / fixed_mpp / quality.spacing, 0, side - 1).astype(int)
        for n, side in zip((height, width), plane.shape, strict=True)
    )
    error = plane[np.ix_(rows, columns)]
    shown = ~np.isnan(error)
    coloured: NDArray[np.float64] = 0.4 * grey[shown] + 0.6 * _ramp(error[shown] / WORST_UM)
    grey[shown] = coloured
    return np.rint(grey).astype(np.uint8)


def _ramp(share: NDArray[np.float64]) -> NDArray[np.float64]:
    stops = [stop for stop, _ in RAMP]
    return np.stack([np.interp(share, stops, [colour[i] for _, colour in RAMP]) for i in range(3)], axis=-1)
