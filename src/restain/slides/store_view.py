"""The unfinished tiles of a job, read while another process stores them."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from restain.geometry import Size
from restain.images import Rgb
from restain.slides.store import BLANK, FILE, TILE, is_intact, lossless_tile, uniform_tile

COARSEST = 512
"""Tiles are given at halves down to one px of this side."""
_SHORTCUT = 8
"""libjpeg decodes at up to this reduction without decoding all pixels."""


class StoreView:
    """The RGB tiles that a :class:`~restain.slides.TileStore` of another process holds so far.

    Nothing is written. A store that was begun anew is noticed. Thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size: Size | None = None
        self.tile = 0
        self.grid = (0, 0)
        self._lossless = False
        self._there = np.zeros(self.grid, bool)

    def refresh(self) -> int:
        """Look for new tiles; the number of tiles now, 0 without a store."""
        try:
            ((text,),) = self._select("SELECT text FROM plan")
            plan = json.loads(text)
            if plan["kind"] != "rgb":
                raise ValueError("not a store of RGB tiles")
            self.size, self.tile = Size(*plan["size"]), int(plan["tile"])
            self._lossless = plan["quality"] is None
            self.grid = (-(-self.size.height // self.tile), -(-self.size.width // self.tile))
            there = np.zeros(self.grid, bool)
            there.flat[[number for (number,) in self._select("SELECT number FROM tile")]] = True
        except (sqlite3.Error, ValueError, KeyError, TypeError, IndexError):
            there = np.zeros(self.grid, bool)
        self._there = there
        return int(np.count_nonzero(there))

    @property
    def count(self) -> int:
        """Number of tiles of the finished slide; 0 while unknown."""
        return self.grid[0] * self.grid[1]

    def there(self, rows: slice, columns: slice) -> list[tuple[int, int]]:
        """``(row, column)`` of the stored tiles within rows and columns of the grid."""
        found = np.argwhere(self._there[rows, columns])
        return [(int(row) + rows.start, int(column) + columns.start) for row, column in found]

    def read(self, row: int, column: int, reduction: int = 1) -> Rgb | None:
        """A tile at its full side (the border repeated beyond the slide); None if it is not stored.

        ``reduction`` is a power of two up to the tile's side: the result is that many times smaller.
        """
        side, number = self.tile // reduction, row * self.grid[1] + column
        try:
            found = self._select("SELECT content, payload, crc FROM tile WHERE number = ?", number)
        except sqlite3.Error:
            return None
        if not found or not is_intact(number, *found[0]):
            return None
        content, payload, _ = found[0]
        if content == TILE:
            return _decoded(payload, self.tile, side, self._lossless)
        return uniform_tile(side, payload if content == BLANK else None)

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        # Opened anew each time: a store that was begun anew is another file.
        with closing(sqlite3.connect(f"{(self.folder / FILE).resolve().as_uri()}?mode=ro", uri=True)) as db:
            return db.execute(query, values).fetchall()


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
