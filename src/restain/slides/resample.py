"""Area resampling on a fixed global grid: a pixel's value depends on its position alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.optics import round_to_uint8


@dataclass(frozen=True)
class Taps:
    """For each output pixel of one axis: ``index`` (n, k) of source pixels and ``weight`` (n, k), rows summing to 1."""

    index: NDArray[np.int64]
    weight: NDArray[np.float32]


def axis_taps(start: int, count: int, scale: float, length: int) -> Taps:
    """Source pixels and weights of the output pixels ``start .. start + count``.

    Output pixel ``j`` covers ``[j * scale, (j + 1) * scale)`` source pixels. With ``scale >= 1`` it is their mean by
    covered length (a plain box mean at whole factors); below, the linear interpolation at its centre. Beyond the
    source's ``length`` the edge pixel is repeated.
    """
    whole = round(scale)
    if whole >= 1 and abs(scale - whole) < 1e-6 * scale:
        scale = float(whole)
    at = np.arange(start, start + count, dtype=np.float64)
    if scale >= 1:
        low, high = at * scale, (at + 1) * scale
        first = np.floor(low).astype(np.int64)
        taps = int(scale) if scale == int(scale) else math.ceil(scale) + 1
        index = first[:, None] + np.arange(taps)
        weight = np.clip(np.minimum(high[:, None], index + 1) - np.maximum(low[:, None], index), 0, None)
    else:
        centre = (at + 0.5) * scale - 0.5
        first = np.floor(centre).astype(np.int64)
        index = first[:, None] + np.arange(2)
        weight = np.stack([1 - (centre - first), centre - first], axis=1)
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, length - 1), weight.astype(np.float32))


def resample(read: Callable[[Region], Rgb], region: Region, scale: float, extent: Size) -> Rgb:
    """A region of an image that is ``scale`` times smaller than the one of ``extent`` px that ``read`` reads."""
    rows = axis_taps(region.origin.y, region.size.height, scale, extent.height)
    columns = axis_taps(region.origin.x, region.size.width, scale, extent.width)
    top, left = int(rows.index.min()), int(columns.index.min())
    needed = Size(int(columns.index.max()) + 1 - left, int(rows.index.max()) + 1 - top)
    pixels = read(Region(Point(left, top), needed))
    if rows.index.shape[1] == columns.index.shape[1] == 1 and needed == region.size:
        return pixels
    across = _along(pixels.astype(np.float32), columns, left, 1)
    return round_to_uint8(_along(across, rows, top, 0))


def _along(image: NDArray[np.float32], taps: Taps, origin: int, axis: int) -> NDArray[np.float32]:
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    # A matrix product would sum in an order that depends on the shape; tap after tap does not.
    index, weight = taps.index - origin, taps.weight
    total = np.take(image, index[:, 0], axis=axis) * weight[:, 0].reshape(shape)
    for tap in range(1, index.shape[1]):
        total += np.take(image, index[:, tap], axis=axis) * weight[:, tap].reshape(shape)
    return total
