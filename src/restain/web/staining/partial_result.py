"""The finished tiles of a running job, as a pyramid that is transparent elsewhere."""

from __future__ import annotations

import io
import math
import threading
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from restain import NOTICE
from restain.images import Rgb
from restain.slides.store_view import COARSEST, StoreView
from restain.web.caches import ByteCache
from restain.web.errors import RequestError
from restain.web.grid import TILE, Grid

MEDIA_TYPE = "image/webp"
QUALITY = 85
MAX_DECODED = 1024
"""Stored tiles that are decoded for one tile of the browser; the rest follows at its next request."""
_MINI = 16
"""Side in px of the small copies for coarse levels."""


class PartialResult:
    """The unfinished store of one job. Each tile holds the notice in its EXIF description."""

    def __init__(self, folder: Path) -> None:
        self.view = StoreView(folder)
        self._cache = ByteCache(max_bytes=16 << 20)
        self._minis: dict[tuple[int, int], Rgb] = {}
        self._lock = threading.Lock()

    def status(self, part: tuple[float, float, float, float]) -> dict[str, int] | None:
        """Finished tiles and all tiles in a part of the image, and the layout of the pyramid; None without a store.

        ``part`` is left, top, right and bottom as shares of the image.
        """
        self.view.refresh()
        size = self.view.size
        if size is None or not self.view.count:
            return None
        left, top, right, bottom = part
        (down, across), tile = self.view.grid, self.view.tile
        rows = slice(int(top * size.height / tile), min(down, math.ceil(bottom * size.height / tile)))
        columns = slice(int(left * size.width / tile), min(across, math.ceil(right * size.width / tile)))
        count = (rows.stop - rows.start) * (columns.stop - columns.start)
        return {"there": len(self.view.there(rows, columns)), "all": count, **Grid(size, 1.0).layout()}

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile as WebP, transparent where nothing is finished. Raises RequestError 404 if there is no such tile."""
        if self.view.size is None:
            self.view.refresh()
        if (size := self.view.size) is None:
            # The job ended or restarted since the browser learned of its tiles.
            return _encode(np.zeros((1, 1, 4), np.uint8))
        if self.view.tile != TILE:
            raise RequestError(404, "error.no_tile")
        grid = Grid(size, 1.0)
        region, step = grid.region(level, column, row), grid.reduction(level)
        rows = slice(row * step, min((row + 1) * step, self.view.grid[0]))
        columns = slice(column * step, min((column + 1) * step, self.view.grid[1]))
        finished = self.view.there(rows, columns) if step <= COARSEST else []
        key = (level, column, row, len(finished))
        if (data := self._cache.get(key)) is not None:
            return data
        canvas = np.zeros((TILE, TILE, 4), np.uint8)
        side, budget, complete = TILE // step, MAX_DECODED, True
        for at in finished:
            if side < _MINI and at not in self._minis:
                budget -= 1
                if budget < 0:
                    complete = False
                    continue
            if (rgb := self._read(at, side)) is None:
                complete = False
                continue
            y, x = (at[0] - rows.start) * side, (at[1] - columns.start) * side
            canvas[y : y + side, x : x + side, :3] = rgb
            canvas[y : y + side, x : x + side, 3] = 255
        data = _encode(canvas[: region.size.height, : region.size.width])
        if complete:
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


def _encode(rgba: NDArray[np.uint8]) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x010E] = NOTICE
    buffer = io.BytesIO()
    PIL.Image.fromarray(rgba).save(buffer, "WEBP", quality=QUALITY, method=0, exif=exif)
    return buffer.getvalue()
