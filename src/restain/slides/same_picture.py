"""Whether one image is a smaller copy of another, from a few of their pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.slides.resample import axis_taps, resample
from restain.slides.source import levels_of

Read = Callable[[Region], Rgb]
"""Reads a region of one image."""

_CELL = 32
_MOST_PX = 1 << 22
_CELLS = 16
_LEAST_OFF, _LEAST_SHARE = 4.0, 0.6


def same_picture(fine: Size, read_fine: Read, coarse: Size, read_coarse: Read) -> bool:
    """Whether ``coarse`` shows what ``fine`` shows.

    Small cells of both are averaged and compared: all cells, or for large images those that lie on a grid and those in which
    a small ``coarse`` has most detail. Copies made with any kernel, or by leaving pixels out, and compressed once more,
    differ by less than a third of their contrast; other pictures of the same colours by more than all of it.

    Raises:
        RestainError: if pixels cannot be decoded.
    """
    step = levels_of([fine, coarse])[1].downsample
    side = max(8, min(_CELL, int(1024 / step)))
    across, down = max(1, coarse.width // side), max(1, coarse.height // side)
    cells = [Point(x * side, y * side) for y in range(down) for x in range(across)]
    thumbnail = None
    if coarse.width * coarse.height <= _MOST_PX:
        thumbnail = read_coarse(Region(Point(0, 0), coarse))
    picture = None
    if fine.width * fine.height <= _MOST_PX:
        picture = read_fine(Region(Point(0, 0), fine))
    else:
        chosen = [cells[i] for i in np.linspace(0, len(cells) - 1, min(_CELLS, len(cells))).astype(int)]
        if thumbnail is not None:
            detail = [thumbnail[c.y : c.y + side, c.x : c.x + side].std(axis=(0, 1)).sum() for c in cells]
            chosen += [cells[i] for i in np.argsort(detail)[-_CELLS:]]
        cells = list(dict.fromkeys(chosen))

    ours, theirs = [], []
    for cell in cells:
        region = Region(cell, Size(min(side, coarse.width - cell.x), min(side, coarse.height - cell.y)))
        small = read_coarse(region) if thumbnail is None else thumbnail[region.slices]
        theirs.append(_means(small))
        ours.append(_means(_reduced(region, step, fine, read_fine, picture)))
    one, other = np.concatenate(ours), np.concatenate(theirs)
    off = np.abs(one - other).mean()
    contrast = np.mean([np.abs(of - np.median(of, axis=0)).mean() for of in (one, other)])
    return bool(off <= _LEAST_OFF + _LEAST_SHARE * contrast)


def _reduced(region: Region, step: float, fine: Size, read: Read, picture: Rgb | None) -> Rgb:
    """A region of the coarse image, made from the fine one."""
    rows = axis_taps(region.origin.y, region.size.height, step, fine.height)
    columns = axis_taps(region.origin.x, region.size.width, step, fine.width)
    top, left = int(rows.index.min()), int(columns.index.min())
    size = Size(int(columns.index.max()) + 1 - left, int(rows.index.max()) + 1 - top)
    needed = Region(Point(left, top), size)
    pixels = read(needed) if picture is None else picture[needed.slices]
    return resample(pixels, (top, left), rows, columns)


def _means(cell: Rgb) -> NDArray[np.float64]:
    """Means of squares of 4 px, ``(n, 3)``, which forgive the shift of half a pixel between kernels."""
    height, width = max(4, cell.shape[0] // 4 * 4), max(4, cell.shape[1] // 4 * 4)
    padded = np.pad(
        cell, ((0, max(0, height - cell.shape[0])), (0, max(0, width - cell.shape[1])), (0, 0)), mode="edge"
    )
    blocks = padded[:height, :width].reshape(height // 4, 4, width // 4, 4, 3).astype(np.float64)
    return blocks.mean(axis=(1, 3)).reshape(-1, 3)
