"""How an image is cut into tiles: a pyramid of halves, as the viewer asks for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from restain.geometry import Point, Region, Size
from restain.web.faults import Fault

TILE = 512
"""Side of a tile in px."""


@dataclass(frozen=True)
class Grid:
    """The tiles of an image of ``size`` px at ``mpp``; level ``top`` is full size, level 0 a single tile at most."""

    size: Size
    mpp: float

    @property
    def top(self) -> int:
        return max(0, math.ceil(math.log2(max(self.size.width, self.size.height) / TILE)))

    def reduction(self, level: int) -> int:
        """Px of level ``top`` per px of ``level``."""
        return 1 << (self.top - level)

    def size_of(self, level: int) -> Size:
        """The size of a level, each side rounded up."""
        by = self.reduction(level)
        return Size(-(-self.size.width // by), -(-self.size.height // by))

    def region(self, level: int, column: int, row: int) -> Region:
        """The tile's pixels at its level.

        Raises:
            Fault: 404, if there is no such tile.
        """
        if not 0 <= level <= self.top:
            raise Fault(404, "fault.no_tile")
        of = self.size_of(level)
        x, y = column * TILE, row * TILE
        if column < 0 or row < 0 or x >= of.width or y >= of.height:
            raise Fault(404, "fault.no_tile")
        return Region(Point(x, y), Size(min(TILE, of.width - x), min(TILE, of.height - y)))
