"""A result in memory: the same blocks as for files, into arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Size
from restain.slides.store import Kind


class MemoryTiles:
    """What a :class:`~restain.slides.TileStore` is to :class:`~restain.stain.windows.WindowStainer`, as one array.

    ``pixels``: ``(H, W, 3)`` ``uint8`` RGB, or ``(H, W)`` ``float32`` optical density of DAB.
    """

    def __init__(self, size: Size, tile: int, kind: Kind) -> None:
        self.size, self.tile = size, tile
        self.grid = (-(-size.height // tile), -(-size.width // tile))
        shape = (size.height, size.width)
        self.pixels: NDArray[np.uint8] | NDArray[np.float32] = (
            np.zeros((*shape, 3), np.uint8) if kind == "rgb" else np.zeros(shape, np.float32)
        )
        self.pattern: NDArray[np.uint8] | None = None
        self._there = np.zeros(self.grid, bool)

    def has(self, row: int, column: int) -> bool:
        return bool(self._there[row, column])

    def extent(self, row: int, column: int) -> tuple[int, int]:
        """``(height, width)`` in px of the part of a tile that lies on the image."""
        return (
            min(self.tile, self.size.height - row * self.tile),
            min(self.tile, self.size.width - column * self.tile),
        )

    def put(self, row: int, column: int, image: NDArray[np.uint8] | NDArray[np.float32]) -> None:
        self._at(row, column)[...] = image

    def put_blank(self, row: int, column: int, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
        tile = self._at(row, column)
        if self.pixels.ndim == 3 and self.pattern is not None:
            rows, columns = (
                np.arange(at * self.tile, at * self.tile + length) % side
                for at, length, side in zip((row, column), tile.shape, self.pattern.shape, strict=False)
            )
            tile[...] = self.pattern.take(rows, axis=0).take(columns, axis=1)
        else:
            tile[...] = colour if self.pixels.ndim == 3 else 0

    def put_hole(self, row: int, column: int, reason: str) -> None:
        """An array has no place that says that it is a hole.

        Raises:
            RestainError: always, with ``reason``.
        """
        raise RestainError(reason)

    def _at(self, row: int, column: int) -> NDArray[np.uint8] | NDArray[np.float32]:
        self._there[row, column] = True
        top, left = row * self.tile, column * self.tile
        return self.pixels[top : top + self.tile, left : left + self.tile]
