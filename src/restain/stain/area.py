"""The pixels of a slide that are stained: tissue with a margin, in the region of interest, not under a pen mark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from shapely import box
from shapely.affinity import scale, translate

from restain.geometry import Region, Size
from restain.slides import Polygon, TissueMask, rasterize

MARGIN_UM = 32.0
"""Margin round the tissue that is stained too, since the mask's pixels are coarse."""
FADE_UM = 32.0
"""Width beyond the margin over which the stained image fades into glass."""


class Area:
    """What of a slide is stained at ``mpp``; all regions below are in px at this.

    Nothing is stained outside of the outlines ``roi``, in px of level 0 at ``slide_mpp``; None for the whole slide.
    """

    def __init__(self, tissue: TissueMask, slide_mpp: float, mpp: float, roi: Sequence[Polygon] | None = None) -> None:
        distance = ndimage.distance_transform_edt(~tissue.mask) if tissue.mask.any() else np.inf
        soft = np.clip(1 - (distance * tissue.mpp - MARGIN_UM) / FADE_UM, 0, 1).astype(np.float32)
        self._soft = np.broadcast_to(soft, tissue.mask.shape)
        self._ink = tissue.ink.astype(np.float32) if tissue.ink is not None and tissue.ink.any() else None
        self._scale = mpp / tissue.mpp
        self._roi = None if roi is None else [scale(polygon, *(slide_mpp / mpp,) * 2, origin=(0, 0)) for polygon in roi]

    def weight(self, region: Region) -> NDArray[np.float32]:
        """``(h, w)`` in [0, 1]: 1 where the stained image shows, 0 where there is glass."""
        return self._between(self._soft, region)

    def inside(self, region: Region) -> NDArray[np.bool_] | None:
        """``(h, w)``: the pixels inside the region of interest that no pen mark hides; None where all are."""
        mask = np.ones((region.size.height, region.size.width), bool)
        if self._roi is not None:
            near = [
                translate(p, -region.origin.x, -region.origin.y)
                for p in self._roi
                if box(*p.bounds).intersects(rectangle(region))
            ]
            mask = rasterize(near, region.size, 1.0)
        if self._ink is not None:
            mask &= self._between(self._ink, region) < 0.5
        return None if mask.all() else mask

    def _between(self, values: NDArray[np.float32], region: Region) -> NDArray[np.float32]:
        """The mask's ``values`` at the pixels of ``region``, linear between the centres of the mask's pixels."""
        rows, down = self._taps(region.origin.y, region.size.height, values.shape[0])
        columns, across = self._taps(region.origin.x, region.size.width, values.shape[1])
        upper, lower = values[rows], values[np.minimum(rows + 1, values.shape[0] - 1)]
        lines = upper + (lower - upper) * down[:, None]
        found: NDArray[np.float32] = lines[:, columns]
        found += (lines[:, np.minimum(columns + 1, values.shape[1] - 1)] - found) * across[None]
        return found

    def is_glass(self, region: Region) -> bool:
        """Whether nothing but glass shows in ``region``."""
        first_y, last_y = self._reach(region.origin.y, region.bottom, self._soft.shape[0])
        first_x, last_x = self._reach(region.origin.x, region.right, self._soft.shape[1])
        return not self._soft[first_y:last_y, first_x:last_x].any()

    def is_stained(self, region: Region) -> bool:
        """Whether ``region`` shows tissue inside the region of interest."""
        if self.is_glass(region):
            return False
        inside = self.inside(region)
        return inside is None or bool((inside & (self.weight(region) > 0)).any())

    def _reach(self, start: int, stop: int, length: int) -> tuple[int, int]:
        first = int(np.floor((start + 0.5) * self._scale - 0.5))
        last = int(np.floor((stop - 0.5) * self._scale - 0.5)) + 2
        return min(max(first, 0), length - 1), max(min(last, length), 1)

    def _taps(self, start: int, count: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Mask pixels left of each pixel's centre, and how far beyond their centre it is."""
        centre = np.clip((np.arange(start, start + count) + 0.5) * self._scale - 0.5, 0, length - 1)
        first = np.floor(centre).astype(np.int64)
        return first, (centre - first).astype(np.float32)


def rectangle(region: Region) -> Polygon:
    """A rectangle as an outline."""
    return box(region.origin.x, region.origin.y, region.right, region.bottom)


def everywhere(size: Size, tissue: TissueMask) -> TissueMask:
    """A mask that takes the whole slide for tissue, with the glass of ``tissue``; ``size`` in px at its mpp."""
    return TissueMask(np.ones((size.height, size.width), bool), tissue.mpp, tissue.glass)
