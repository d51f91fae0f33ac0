"""A store of tiles that another process is filling, looked at without disturbing it."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import PIL.Image

from restain.geometry import Size
from restain.images import Rgb
from restain.slides.store import _BLANK, _CRC, _HEAD, _HOLE, _NOTHING, _PLAN, _RECORDS, _TILE, _checksum, lossless_tile

COARSEST = 512
"""Tiles are given at halves down to one px of this side."""
_SHORTCUT = 8
"""A JPEG is decoded at up to this reduction without its pixels being decoded whole."""


class StoreView:
    """The RGB tiles of a :class:`~restain.slides.store.TileStore` as far as they are there.

    Nothing is locked and nothing is written. A store that is begun anew under the same name is noticed. Safe from many
    threads, but not for the process that has the store open: there, closing a second descriptor drops the store's lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size: Size | None = None
        self.tile = 0
        self.grid = (0, 0)
        self._lossless = False
        self._plan: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._forget()

    def refresh(self) -> int:
        """Look for new tiles; how many are there now. 0 where there is no store (yet, or no longer)."""
        with self._lock:
            try:
                self._read_plan()
                with open(self.folder / _RECORDS, "rb") as file:
                    self._read_records(file)
            except (OSError, ValueError, KeyError, TypeError):
                self._forget()
            return int(np.count_nonzero(self._what != _NOTHING))

    @property
    def count(self) -> int:
        """Tiles in all; 0 while that is not known."""
        return self.grid[0] * self.grid[1]

    def there(self, rows: slice, columns: slice) -> list[tuple[int, int]]:
        """``(row, column)`` of the tiles that are there within some rows and columns of the grid."""
        with self._lock:
            found = np.argwhere(self._what.reshape(self.grid)[rows, columns] != _NOTHING)
        return [(int(row) + rows.start, int(column) + columns.start) for row, column in found]

    def read(self, row: int, column: int, reduction: int = 1) -> Rgb | None:
        """A tile with its full side (the border repeated beyond the slide), ``reduction`` times smaller (a power of two up
        to its side); None where it is not there."""
        side = self.tile // reduction
        with self._lock:
            index = row * self.grid[1] + column
            if index >= self._what.size or self._what[index] == _NOTHING:
                return None
            what, start, length = int(self._what[index]), int(self._start[index]), int(self._length[index])
        try:
            with open(self.folder / _RECORDS, "rb") as file:
                file.seek(start)
                body = file.read(length + _CRC.size)
        except OSError:
            return None
        payload = body[:length]
        if len(body) < length + _CRC.size or _CRC.unpack(body[length:])[0] != _checksum(index, what, payload):
            return None
        if what == _TILE:
            return _decoded(payload, self.tile, side, self._lossless)
        if what == _BLANK:
            return np.full((side, side, 3), list(payload or b"\xff\xff\xff"), np.uint8)
        rows, columns = np.indices((side, side))
        arm = max(1, side // 64)
        cross = (np.abs(rows - columns) < arm) | (np.abs(rows + columns - side + 1) < arm)
        return np.where(cross[..., None], np.uint8(0), np.uint8(128)).repeat(3, axis=2)

    def _forget(self) -> None:
        count = self.grid[0] * self.grid[1]
        self._what = np.zeros(count, np.uint8)
        self._start = np.zeros(count, np.int64)
        self._length = np.zeros(count, np.uint32)
        self._end = 0

    def _read_plan(self) -> None:
        path = self.folder / _PLAN
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
        self._forget()

    def _read_records(self, file: io.BufferedReader) -> None:
        left = file.seek(0, io.SEEK_END) - self._end
        if left < 0:
            left += self._end
            self._forget()
        file.seek(self._end)
        while left >= _HEAD.size + _CRC.size:
            index, what, length = _HEAD.unpack(file.read(_HEAD.size))
            whole = _HEAD.size + length + _CRC.size
            # The record that is being written; it is looked at again.
            if whole > left or index >= self._what.size or what not in (_TILE, _BLANK, _HOLE):
                return
            file.seek(length + _CRC.size, io.SEEK_CUR)
            self._what[index], self._start[index], self._length[index] = what, self._end + _HEAD.size, length
            self._end += whole
            left -= whole


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
