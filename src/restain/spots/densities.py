"""Densities under each spot: virtual DAB, and the H&E's own stains as baselines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce

from restain.data.spots import Spots
from restain.geometry import Point, Region, Size
from restain.optics import EOSIN, HEMATOXYLIN, glass_white, optical_density, unmix
from restain.progress import Progress
from restain.slides import DensitySlide, Slide

GRID_UM = 4.0
"""Pixel of the maps in which spots are read."""

SMOOTHED_UM = (24.0, 100.0)
"""Standard deviations of the Gaussians that smooth the baselines."""

HEMATOXYLIN_GIVEN = "hematoxylin, 24 µm"
"""The baseline that partial correlations are given."""

_STRIP = 1024
"""Rows of level 0 that are read at a time."""

Map = NDArray[np.float64]


def he_maps(slide: Slide, progress: Progress = lambda done, total: None) -> dict[str, Map]:
    """Maps of the H&E at about :data:`GRID_UM` per pixel in OD: hematoxylin, eosin and mean optical density, plain and smoothed.

    Densities are unmixed at level 0 relative to the slide's own glass, and averaged afterwards.
    """
    step = max(1, round(GRID_UM / slide.mpp))
    white = glass_white(slide.thumbnail(1024)[0])
    strips = []
    rows = max(step, _STRIP // step * step)
    for top in range(0, slide.size.height, rows):
        height = min(rows, slide.size.height - top)
        rgb = slide.read(Region(Point(0, top), Size(slide.size.width, height)), slide.mpp)
        od = optical_density(rgb, white)
        stains = np.maximum(unmix(od, (HEMATOXYLIN, EOSIN)), 0)
        both = np.dstack([stains, od.mean(axis=2, keepdims=True)])
        fit = both[: max(height // step, 1) * step, : slide.size.width // step * step]
        strips.append(block_reduce(fit, (step, step, 1), np.mean))
        progress(top + height, slide.size.height)
    plain = np.concatenate(strips).astype(np.float64)
    maps: dict[str, Map] = {}
    for number, name in enumerate(("hematoxylin", "eosin", "optical density")):
        maps[name] = plain[..., number]
        if name != "eosin":
            for um in SMOOTHED_UM:
                maps[f"{name}, {um:g} µm"] = gaussian_filter(plain[..., number], um / (step * slide.mpp))
    return maps


def dab_map(path: DensitySlide, shape: tuple[int, ...]) -> Map:
    """A virtual DAB density averaged onto a grid of ``shape``."""
    level = path.overview(max(shape))
    rows, columns = (
        np.linspace(0, side, count + 1).astype(int) for side, count in zip(level.shape, shape, strict=True)
    )
    sums = np.add.reduceat(np.add.reduceat(level.astype(np.float64), rows[:-1], axis=0), columns[:-1], axis=1)
    return sums / np.outer(np.diff(rows), np.diff(columns))


def under_spots(map_: Map, spots: Spots, size: Size, diameter_px: float) -> NDArray[np.float64]:
    """The mean of a map of the whole slide in the disc of each spot, ``(N,)``.

    Args:
        map_: ``(h, w)``, over the slide's whole extent.
        spots: the spots.
        size: the slide's, in px of level 0.
        diameter_px: diameter of a spot in px of level 0.
    """
    h, w = map_.shape
    scale = np.array([w / size.width, h / size.height])
    radius = diameter_px / 2 * scale.mean()
    reach = int(np.ceil(radius))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    found = []
    for x, y in spots.xy * scale - 0.5:
        rows, columns = round(y) + dy, round(x) + dx
        inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w) & (np.hypot(rows - y, columns - x) <= radius)
        found.append(map_[rows[inside], columns[inside]].mean() if inside.any() else np.nan)
    return np.array(found)
