"""Reading one slide on another's grid, a region at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.geometry import Point, Region, Size, tiles
from restain.images import Rgb
from restain.registration.transform import Transform
from restain.slides import Slide
from restain.slides.source_picture import ArraySource

TILE = 1024
"""Largest side in px of what is warped at once: bounded memory for any region."""
NODE_PX = 8
"""The transform is evaluated every so many px and interpolated linearly: its lattice is always coarser."""
WHITE = (255, 255, 255)


def slide_of(rgb: Rgb, mpp: float | None, name: str | Path = "picture") -> Slide:
    """An array ``(H, W, 3)`` ``uint8`` as a slide."""
    return Slide(ArraySource(rgb, mpp, Path(name)))


def warp_region(
    moving: Slide, transform: Transform, region: Region, mpp: float, *, outside: tuple[int, int, int] | None = WHITE
) -> Rgb:
    """The moving slide's pixels on the fixed slide's grid, interpolated linearly, in bounded memory beside the result.

    Args:
        moving: the slide to read; if it or the transform has no mpp, px of level 0 stand for micrometres.
        transform: from the fixed slide to ``moving``.
        region: in px of the fixed slide at ``mpp``.
        mpp: micrometres per pixel of the result.
        outside: colour beyond the moving slide's border; None mirrors the slide there.

    Returns:
        ``(region.size.height, region.size.width, 3)`` ``uint8``.

    Raises:
        RestainError: if the slide's pixels cannot be decoded.
    """
    if transform.fixed_mpp is None or transform.moving_mpp is None or not moving.has_mpp:
        moving, transform = moving.taken_at(1.0), replace(transform, fixed_mpp=1.0, moving_mpp=1.0)
    out = np.empty((region.size.height, region.size.width, 3), np.uint8)
    for part in tiles(region.size, TILE, 0):
        corner = Point(region.origin.x + part.origin.x, region.origin.y + part.origin.y)
        out[part.slices] = _warp_tile(moving, transform, Region(corner, part.size), mpp, outside)
    return out


def read_mirrored(slide: Slide, region: Region, mpp: float) -> Rgb:
    """A region of a slide, which is mirrored beyond its border: the border gives no edge."""
    size = slide.size_at(mpp)
    columns = _mirrored(region.origin.x, region.size.width, size.width)
    rows = _mirrored(region.origin.y, region.size.height, size.height)
    left, top = int(columns.min()), int(rows.min())
    inner = Region(Point(left, top), Size(int(columns.max()) + 1 - left, int(rows.max()) + 1 - top))
    return slide.read(inner, mpp)[np.ix_(rows - top, columns - left)]


def _mirrored(start: int, count: int, length: int) -> NDArray[np.int64]:
    index = np.mod(np.arange(start, start + count), 2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def _warp_tile(
    moving: Slide, transform: Transform, region: Region, mpp: float, outside: tuple[int, int, int] | None
) -> Rgb:
    assert transform.fixed_mpp is not None
    ratio = mpp / transform.fixed_mpp
    width, height = region.size.width, region.size.height
    # Nodes have the same places for every region, so that neighbouring tiles fit.
    columns, across = _nodes(region.origin.x, width)
    rows, down = _nodes(region.origin.y, height)
    nodes = np.stack(np.meshgrid(columns + 0.5, rows + 0.5), axis=-1)
    moved = transform.forward(nodes.reshape(-1, 2) * ratio)
    # Reading the moving slide at this step gives one of its pixels per pixel of the result.
    step = max(1.0, ratio * math.sqrt(abs(float(np.linalg.det(transform.matrix[:2, :2])))))
    moved = moved.reshape(*nodes.shape) / step
    size = moving.size_at(moving.mpp * step)
    left, top = (max(0, math.floor(v) - 2) for v in (moved[..., 0].min(), moved[..., 1].min()))
    right = min(size.width, math.ceil(moved[..., 0].max()) + 2)
    bottom = min(size.height, math.ceil(moved[..., 1].max()) + 2)
    if left >= right or top >= bottom:
        return np.full((height, width, 3), WHITE if outside is None else outside, np.uint8)
    pixels = moving.read(Region(Point(left, top), Size(right - left, bottom - top)), moving.mpp * step)
    x = down @ (moved[..., 0] - left - 0.5) @ across.T
    y = down @ (moved[..., 1] - top - 0.5) @ across.T
    index = np.stack([y, x]).astype(np.float32)
    out = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        plane = pixels[..., channel].astype(np.float32)
        values = ndimage.map_coordinates(plane, index, order=1, mode="mirror" if outside is None else "nearest")
        out[..., channel] = np.rint(values)
    if outside is not None:
        beyond = (x < -0.5 - left) | (y < -0.5 - top) | (x > size.width - left - 0.5) | (y > size.height - top - 0.5)
        out[beyond] = outside
    return out


def _nodes(start: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every :data:`NODE_PX`-th pixel about ``length`` px from ``start``, and the weights ``(length, nodes)`` of linear interpolation."""
    first = start // NODE_PX * NODE_PX
    nodes = np.arange(first, start + length - 1 + NODE_PX, NODE_PX)
    position = (start - first + np.arange(length)) / NODE_PX
    cell = np.minimum(position.astype(int), max(len(nodes) - 2, 0))
    weights = np.zeros((length, len(nodes)))
    weights[np.arange(length), cell] = 1 - (position - cell)
    if len(nodes) > 1:
        weights[np.arange(length), cell + 1] += position - cell
    return nodes, weights
