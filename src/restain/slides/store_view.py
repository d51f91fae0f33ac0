"""The unfinished tiles of a job, read while another process stores them."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import PIL.Image

from restain.geometry import Size
from restain.images import Rgb
from restain.slides.records import BLANK, MISSING, TILE, RecordIndex
from restain.slides.store import PLAN, RECORDS, lossless_tile, uniform_tile

COARSEST = 512
"""Tiles are given at halves down to one px of this side."""
_SHORTCUT = 8
"""libjpeg decodes at up to this reduction without decoding all pixels."""


class StoreView:
    """The RGB tiles that a :class:`~restain.slides.TileStore` of another process holds so far.

    Nothing is locked or written. A store that was begun anew is noticed. Thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size: Size | None = None
        self.tile = 0
        self.grid = (0, 0)
        self._lossless = False
        self._plan: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._records = RecordIndex(0)

    def refresh(self) -> int:
        """Read new records; the number of tiles now, 0 without a store."""
        with self._lock:
            try:
                self._read_plan()
                with open(self.folder / RECORDS, "rb") as file:
                    if file.seek(0, io.SEEK_END) < self._records.end:
                        self._records = RecordIndex(self.count)
                    self._records.scan(file, check=False)
            except (OSError, ValueError, KeyError, TypeError):
                self._records = RecordIndex(self.count)
            return int(np.count_nonzero(self._records.content != MISSING))

    @property
    def count(self) -> int:
        """Number of tiles of the finished slide; 0 while unknown."""
        return self.grid[0] * self.grid[1]

    def there(self, rows: slice, columns: slice) -> list[tuple[int, int]]:
        """``(row, column)`` of the stored tiles within rows and columns of the grid."""
        with self._lock:
            found = np.argwhere(self._records.content.reshape(self.grid)[rows, columns] != MISSING)
        return [(int(row) + rows.start, int(column) + columns.start) for row, column in found]

    def read(self, row: int, column: int, reduction: int = 1) -> Rgb | None:
        """A tile at its full side (the border repeated beyond the slide); None if it is not stored.

        ``reduction`` is a power of two up to the tile's side: the result is that many times smaller.
        """
        side = self.tile // reduction
        with self._lock:
            index = row * self.grid[1] + column
            if index >= self._records.content.size:
                return None
            place = self._records.place(index)
        if place[0] == MISSING:
            return None
        try:
            with open(self.folder / RECORDS, "rb") as file:
                payload = RecordIndex.payload(file, index, place)
        except OSError:
            return None
        if payload is None:
            return None
        if place[0] == TILE:
            return _decoded(payload, self.tile, side, self._lossless)
        return uniform_tile(side, payload if place[0] == BLANK else None)

    def _read_plan(self) -> None:
        path = self.folder / PLAN
        state = path.stat()
        if self._plan == (state.st_mtime_ns, state.st_ino):
            return
        plan = json.loads(path.read_bytes())
        if plan["kind"] != "rgb":
            raise ValueError("not a store of RGB tiles")
        self.size, self.tile = Size(*plan["size"]), int(plan["tile"])
        self._lossless = plan["quality"] is None
        self.grid = (-(-self.size.height // self.tile), -(-self.size.width // self.tile))
        self._plan = state.st_mtime_ns, state.st_ino
        self._records = RecordIndex(self.count)


def _decoded(payload: bytes, tile: int, side: int, lossless: bool) -> Rgb:
    if lossless:
        rgb = lossless_tile(payload, tile)
    else:
        picture = PIL.Image.open(io.BytesIO(payload), formats=("JPEG",))
        coarse = max(side, tile // _SHORTCUT)
        picture.draft("RGB", (coarse, coarse))
        rgb = np.asarray(picture.convert("RGB"))
    step = rgb.shape[0] // side
    if step > 1:
        rgb = rgb.reshape(side, step, side, step, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return rgb
