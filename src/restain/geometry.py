"""Sizes and units: pixels at a level and micrometres, as types that cannot be mistaken for one another.

The style is wsidicom's ``geometry.py``: small frozen value objects, no hidden conversion. ``mpp`` is micrometres per
pixel everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A pixel position ``(x, y)`` at a level; x counts columns, y counts rows."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Size:
    """A size in pixels at a level."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"a size must be positive, not {self.width}x{self.height}")

    def to_um(self, mpp: float) -> SizeUm:
        """The physical size at ``mpp`` micrometres per pixel."""
        return SizeUm(self.width * mpp, self.height * mpp)


@dataclass(frozen=True, slots=True)
class SizeUm:
    """A physical size in micrometres."""

    width: float
    height: float

    def to_px(self, mpp: float) -> Size:
        """The size in whole pixels (rounded, at least one) at ``mpp`` micrometres per pixel."""
        return Size(um_to_px(self.width, mpp), um_to_px(self.height, mpp))


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of pixels at a level: top-left corner and size."""

    origin: Point
    size: Size

    @property
    def right(self) -> int:
        return self.origin.x + self.size.width

    @property
    def bottom(self) -> int:
        return self.origin.y + self.size.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """``(rows, columns)`` for indexing an ``(H, W, ...)`` array."""
        return slice(self.origin.y, self.bottom), slice(self.origin.x, self.right)

    def common(self, other: Region) -> Region:
        """What two regions that meet have in common."""
        x, y = max(self.origin.x, other.origin.x), max(self.origin.y, other.origin.y)
        return Region(Point(x, y), Size(min(self.right, other.right) - x, min(self.bottom, other.bottom) - y))

    def grown(self, margin: int) -> Region:
        """This region with ``margin`` px on every side."""
        corner = Point(self.origin.x - margin, self.origin.y - margin)
        return Region(corner, Size(self.size.width + 2 * margin, self.size.height + 2 * margin))

    def within(self, other: Region) -> tuple[slice, slice]:
        """``(rows, columns)`` for indexing an array that holds ``other``, which this region lies in."""
        return Region(Point(self.origin.x - other.origin.x, self.origin.y - other.origin.y), self.size).slices


SAME_MPP = 0.01
"""Two statements of one scale differ by at most this share: formats round their resolution."""


def same_mpp(one: float, other: float) -> bool:
    """Whether two positive values of µm per px are one scale, by :data:`SAME_MPP`."""
    return abs(one - other) <= SAME_MPP * min(one, other) * (1 + 1e-9)


def um_to_px(um: float, mpp: float) -> int:
    """A length in whole pixels (rounded, at least one).

    Raises ValueError if ``mpp`` is not a positive, finite number.
    """
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp must be a positive number of micrometres per pixel, not {mpp}")
    return max(1, round(um / mpp))


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``[0, length)``, each ``min(tile, length)`` long.

    Neighbours share at least ``overlap`` pixels; the last tile is moved back so that it ends at ``length``. Raises
    ValueError if ``overlap`` is negative or not smaller than ``tile``.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"an overlap of {overlap} px does not fit tiles of {tile} px")
    if length <= tile:
        return [0]
    step = tile - overlap
    count = math.ceil((length - tile) / step)
    return [min(i * step, length - tile) for i in range(count + 1)]


def tiles(size: Size, tile: int, overlap: int) -> Iterator[Region]:
    """Tiles that cover an image of ``size``, row by row (see :func:`tile_starts`)."""
    extent = Size(min(tile, size.width), min(tile, size.height))
    for y in tile_starts(size.height, tile, overlap):
        for x in tile_starts(size.width, tile, overlap):
            yield Region(Point(x, y), extent)
