"""Tiles of an image: what holds results, in memory or on disk, and the H&E read tile by tile."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.slides.source import paste
from restain.slides.store import Kind, TileGrid

TILE = 512
"""Side in px of the result's tiles."""

Tile = tuple[int, int]
"""Row and column of a tile in the result's grid."""


class Tiles(Protocol):
    """What holds an image's tiles: a :class:`restain.slides.TileStore` on disk, or :class:`restain.stain.tiles.MemoryTiles`."""

    size: Size
    tile: int
    grid: tuple[int, int]
    pattern: NDArray[np.uint8] | None
    """What blank tiles show, ``(p, p, 3)`` repeated from the image's corner on; None for one colour."""

    def has(self, row: int, column: int) -> bool: ...
    def extent(self, row: int, column: int) -> tuple[int, int]: ...
    def put(self, row: int, column: int, image: NDArray[np.uint8] | NDArray[np.float32]) -> None: ...
    def put_blank(self, row: int, column: int, colour: tuple[int, int, int] = ...) -> None: ...
    def put_hole(self, row: int, column: int, reason: str) -> None: ...


class MemoryTiles(TileGrid):
    """An image's tiles as one array.

    ``pixels``: ``(H, W, 3)`` ``uint8`` RGB, or ``(H, W)`` ``float32`` optical density of DAB.
    """

    def __init__(self, size: Size, tile: int, kind: Kind) -> None:
        super().__init__(size, tile)
        shape = (size.height, size.width)
        self.pixels: NDArray[np.uint8] | NDArray[np.float32] = (
            np.zeros((*shape, 3), np.uint8) if kind == "rgb" else np.zeros(shape, np.float32)
        )
        self.pattern: NDArray[np.uint8] | None = None
        self._there = np.zeros(self.grid, bool)

    def has(self, row: int, column: int) -> bool:
        return bool(self._there[row, column])

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
        """Raise ``reason``: an array cannot mark a hole."""
        raise RestainError(reason)

    def _at(self, row: int, column: int) -> NDArray[np.uint8] | NDArray[np.float32]:
        self._there[row, column] = True
        top, left = row * self.tile, column * self.tile
        return self.pixels[top : top + self.tile, left : left + self.tile]


class HeTiles:
    """The H&E at the model's mpp, read tile by tile and kept for a while, since neighbouring windows share pixels.

    ``glass`` ``(3,)`` RGB is shown beyond the image, and for a tile that ``read`` cannot read, unless ``strict``. May
    be used by several threads at once.
    """

    def __init__(self, read: Callable[[Region], Rgb], store: Tiles, glass: NDArray[np.float32], strict: bool) -> None:
        self._read, self._store, self._strict = read, store, strict
        self._glass = np.rint(glass).astype(np.uint8)
        self._most = 4 * store.grid[1] + 4
        self._tiles: OrderedDict[Tile, Future[Rgb]] = OrderedDict()
        self._lock = threading.Lock()

    def tile(self, tile: Tile) -> Rgb:
        """The pixels of a tile. Raises RestainError if they cannot be read."""
        with self._lock:
            future = self._tiles.pop(tile, None)
            mine = future is None
            future = future or Future()
            self._tiles[tile] = future
            if len(self._tiles) > self._most:
                self._tiles.popitem(last=False)
        if mine:
            try:
                future.set_result(self._read(region_of(self._store, *tile)))
            except BaseException as fault:
                future.set_exception(fault)
        return future.result()

    def region(self, region: Region) -> Rgb:
        """The pixels of any region, with the colour of glass where there are none.

        Raises RestainError if ``strict`` and a tile cannot be read.
        """
        out = np.empty((region.size.height, region.size.width, 3), np.uint8)
        out[:] = self._glass
        for tile in tiles_of(self._store, region):
            try:
                paste(out, region, self.tile(tile), tile[1] * self._store.tile, tile[0] * self._store.tile)
            except RestainError:
                if self._strict:
                    raise
        return out


def region_of(store: Tiles, row: int, column: int) -> Region:
    """A tile's pixels on the image."""
    height, width = store.extent(row, column)
    return Region(Point(column * store.tile, row * store.tile), Size(width, height))


def tiles_of(store: Tiles, region: Region) -> Iterator[Tile]:
    """The tiles that ``region`` meets, row by row."""
    rows, columns = store.grid
    for row in range(max(region.origin.y // store.tile, 0), min((region.bottom - 1) // store.tile + 1, rows)):
        for column in range(max(region.origin.x // store.tile, 0), min((region.right - 1) // store.tile + 1, columns)):
            yield row, column
