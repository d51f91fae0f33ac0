"""The tile pyramid of the viewer: levels of half the size each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from fastapi import Path

from restain.geometry import Point, Region, Size
from restain.web.errors import RequestError

TILE = 512
"""Side of a tile in px."""
TileNumber = Annotated[int, Path(ge=0, lt=10**9)]
"""A level, column or row in the address of a tile."""


@dataclass(frozen=True)
class Grid:
    """The tiles of an image of ``size`` px at ``mpp``. Level ``top`` is full size; level 0 is one tile."""

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
        """The tile's pixels at its level. Raises RequestError 404 if there is no such tile."""
        if not 0 <= level <= self.top:
            raise RequestError(404, "error.no_tile")
        extent, x, y = self.size_of(level), column * TILE, row * TILE
        if not (0 <= x < extent.width and 0 <= y < extent.height):
            raise RequestError(404, "error.no_tile")
        return Region(Point(x, y), Size(min(TILE, extent.width - x), min(TILE, extent.height - y)))

    def layout(self) -> dict[str, int]:
        """Size and highest level, as the scripts need them."""
        return {"width": self.size.width, "height": self.size.height, "top": self.top}
