"""Tests whether one image is a smaller copy of another, from samples of pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.slides.resample import resample
from restain.slides.source import levels_of

Read = Callable[[Region], Rgb]
"""Reads a region of one image."""

_CELL = 32
_MOST_PX = 1 << 20
_CELLS = 8
_SMALL, _SHARE = 4.0, 0.5


def same_picture(fine: Size, read_fine: Read, coarse: Size, read_coarse: Read) -> bool:
    """Whether ``coarse`` shows what ``fine`` shows.

    Small cells of both are averaged and compared: some over the whole image, and those in which a ``coarse`` of at most
    a megapixel has most detail. Copies made with any kernel, or by leaving pixels out, and compressed once more, differ
    much less than if they are moved against one another; to another picture it makes no difference. Raises RestainError
    if pixels cannot be decoded.
    """
    step = levels_of([fine, coarse])[1].downsample
    side = max(8, min(_CELL, int(1024 / step)))
    across, down = max(1, coarse.width // side), max(1, coarse.height // side)
    cells = [Point(x * side, y * side) for y in range(down) for x in range(across)]
    thumbnail = None
    if coarse.width * coarse.height <= _MOST_PX:
        thumbnail = read_coarse(Region(Point(0, 0), coarse))
    if fine.width * fine.height <= _MOST_PX:
        picture = read_fine(Region(Point(0, 0), fine))
        read_fine = lambda region: picture[region.slices]  # noqa: E731
    if len(cells) > 2 * _CELLS:
        chosen = [cells[i] for i in np.linspace(0, len(cells) - 1, min(_CELLS, len(cells))).astype(int)]
        if thumbnail is not None:
            detail = [thumbnail[c.y : c.y + side : 4, c.x : c.x + side : 4].std(axis=(0, 1)).sum() for c in cells]
            chosen += [cells[i] for i in np.argsort(detail)[-_CELLS:]]
        cells = list(dict.fromkeys(chosen))

    aligned, shifted = [], []
    for cell in cells:
        region = Region(cell, Size(min(side, coarse.width - cell.x), min(side, coarse.height - cell.y)))
        stored = _means(read_coarse(region) if thumbnail is None else thumbnail[region.slices])
        reduced = _means(resample(read_fine, region, step, fine))
        aligned.append(np.abs(reduced - stored).mean())
        shifted.append(_shifted(reduced, stored))
    off = np.mean(aligned)
    return bool(off <= _SMALL or off <= _SHARE * np.mean(shifted))


def _shifted(reduced: NDArray[np.float64], stored: NDArray[np.float64]) -> float:
    """By how much two cells differ if one of them is moved by a quarter of its sides."""
    y, x = (max(1, n // 4) if n > 1 else 0 for n in reduced.shape[:2])
    moved = [(reduced[y:], stored[: len(stored) - y]), (reduced[: len(reduced) - y], stored[y:])]
    moved += [(reduced[:, x:], stored[:, : stored.shape[1] - x]), (reduced[:, : reduced.shape[1] - x], stored[:, x:])]
    return float(np.mean([np.abs(one - other).mean() for one, other in moved]))


def _means(cell: Rgb) -> NDArray[np.float64]:
    """Means of squares of 4 px, ``(h, w, 3)``, which forgive the shift of half a pixel between kernels."""
    height, width = max(4, cell.shape[0] // 4 * 4), max(4, cell.shape[1] // 4 * 4)
    padded = np.pad(
        cell, ((0, max(0, height - cell.shape[0])), (0, max(0, width - cell.shape[1])), (0, 0)), mode="edge"
    )
    blocks = padded[:height, :width].reshape(height // 4, 4, width // 4, 4, 3).astype(np.float64)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3))
    return means
