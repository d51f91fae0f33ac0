"""The tiles that a running job has made so far, as a pyramid with nothing where nothing is yet."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from restain import NOTICE
from restain.images import Rgb
from restain.slides.store_view import COARSEST, StoreView
from restain.web.faults import Fault
from restain.web.grid import TILE, Grid
from restain.web.opened import ByteCache

MEDIA = "image/webp"
QUALITY = 85
MOST_READINGS = 1024
"""Tiles of the store that are decoded for one tile of the browser; the rest of it comes when it is asked for again."""
_MINI = 16
"""Side in px of the small copies that coarse levels are made of."""


class LiveTiles:
    """One job's unfinished store; each tile says the notice in its EXIF description."""

    def __init__(self, folder: Path) -> None:
        self.view = StoreView(folder)
        self._cache = ByteCache(heaviest=16 << 20)
        self._minis: dict[tuple[int, int], Rgb] = {}
        self._lock = threading.Lock()

    def look(self) -> dict[str, int] | None:
        """Tiles there and in all, and the pyramid's size; None where there is no store."""
        there = self.view.refresh()
        size = self.view.size
        if size is None or not self.view.count:
            return None
        return {
            "there": there,
            "all": self.view.count,
            "width": size.width,
            "height": size.height,
            "top": Grid(size, 1.0).top,
        }

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile as WebP, transparent where nothing is yet.

        Raises:
            Fault: 404, if there is no such tile.
        """
        if self.view.size is None:
            self.view.refresh()
        if (size := self.view.size) is None:
            # The job was finished, or begun anew, since the browser heard of its tiles.
            return _encoded(np.zeros((1, 1, 4), np.uint8))
        if self.view.tile != TILE:
            raise Fault(404, "fault.no_tile")
        grid = Grid(size, 1.0)
        region = grid.region(level, column, row)
        step = grid.reduction(level)
        rows = slice(row * step, min((row + 1) * step, self.view.grid[0]))
        columns = slice(column * step, min((column + 1) * step, self.view.grid[1]))
        there = self.view.there(rows, columns) if step <= COARSEST else []
        key = (level, column, row, len(there))
        if (known := self._cache.get(key)) is not None:
            return known
        canvas = np.zeros((TILE, TILE, 4), np.uint8)
        side, left, whole = TILE // step, MOST_READINGS, True
        for at in there:
            if step * _MINI > TILE and at not in self._minis:
                if left == 0:
                    whole = False
                    continue
                left -= 1
            if (rgb := self._read(at, side)) is None:
                whole = False
                continue
            y, x = (at[0] - rows.start) * side, (at[1] - columns.start) * side
            canvas[y : y + side, x : x + side, :3] = rgb
            canvas[y : y + side, x : x + side, 3] = 255
        data = _encoded(canvas[: region.size.height, : region.size.width])
        if whole:
            self._cache.put(key, data)
        return data

    def _read(self, at: tuple[int, int], side: int) -> Rgb | None:
        if side >= _MINI * 2:
            return self.view.read(*at, TILE // side)
        with self._lock:
            mini = self._minis.get(at)
        if mini is None:
            if (mini := self.view.read(*at, TILE // _MINI)) is None:
                return None
            with self._lock:
                self._minis[at] = mini
        by = _MINI // side
        return mini.reshape(side, by, side, by, 3).mean(axis=(1, 3)).round().astype(np.uint8) if by > 1 else mini


def _encoded(rgba: NDArray[np.uint8]) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x010E] = NOTICE
    buffer = io.BytesIO()
    PIL.Image.fromarray(rgba).save(buffer, "WEBP", quality=QUALITY, method=0, exif=exif)
    return buffer.getvalue()
