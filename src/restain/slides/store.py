"""Finished level-0 tiles on disk, in any order, so that a job killed at any moment goes on where it stood."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.files import lock, write_json
from restain.geometry import Region, Size
from restain.images import OD_PER_COUNT
from restain.slides.source import paste

Kind = Literal["rgb", "dab"]

_FORMAT = 1
_PLAN = "plan.json"
_RECORDS = "records.bin"
_LEVELS = "levels"

# tile index, what it is, payload bytes; then the CRC-32 of these and the payload together.
_HEAD = struct.Struct("<IBI")
_CRC = struct.Struct("<I")
_NOTHING, _TILE, _BLANK, _HOLE = range(4)


class TileStore:
    """A folder ``NAME.part`` of encoded tiles: ``plan.json`` says for what, ``records.bin`` grows tile by tile.

    A record that was whole when the process died is kept; a torn one at the end is cut when the store is opened
    again. Of two records of one tile the later holds. ``rgb`` tiles are JPEG without chroma subsampling, or without a
    ``quality`` deflate with horizontal differencing, which keeps every pixel as it is; ``dab`` tiles are 16-bit counts of
    1e-4 optical density (0 to 6.5535), deflate likewise: all are what a TIFF tile holds, and :meth:`encoded` gives them
    out unchanged.

    Made by :meth:`open`; use it as a context manager, or :meth:`close` it. All methods may be called from several
    threads at once.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, str], size: Size, tile: int, kind: Kind, quality: int | None
    ):
        self.folder = folder
        self.identity = dict(identity)
        self.size = size
        self.tile = tile
        self.kind: Kind = kind
        self.quality = quality
        self.pattern: NDArray[np.uint8] | None = None
        """``(p, p, 3)``, ``p`` a multiple of ``tile``: shown by ``rgb`` tiles put as blank in place of their colour,
        repeated from the slide's corner on. Not kept in the folder: to be set whenever the store is opened."""
        self.grid = (-(-size.height // tile), -(-size.width // tile))
        count = self.grid[0] * self.grid[1]
        self._what = np.zeros(count, np.uint8)
        self._start = np.zeros(count, np.int64)
        self._length = np.zeros(count, np.uint32)
        self._end = 0
        self._lock = threading.Lock()
        self._uniform: dict[bytes, bytes] = {}
        self._file: io.FileIO

    @classmethod
    def open(
        cls, folder: Path, identity: Mapping[str, str], size: Size, tile: int, kind: Kind, quality: int | None = 90
    ) -> TileStore:
        """Open the store in ``folder``, or begin one.

        Args:
            folder: made where it is missing; its parent must exist.
            identity: everything that decides what the tiles hold (slide, bundle, options), as text. A store of
                another identity or geometry in ``folder`` is thrown away and begun anew.
            size: level 0 in px.
            tile: the side of a tile in px, a multiple of 16 (TIFF).
            kind: ``"rgb"`` or ``"dab"``.
            quality: of JPEG, 1 to 100; None for lossless tiles. Of no effect on ``dab``.

        Raises:
            RestainError: if the folder cannot be written or another process has the store open.
            ValueError: if ``tile`` is not a positive multiple of 16.
        """
        if tile <= 0 or tile % 16:
            raise ValueError(f"the side of a tile must be a positive multiple of 16, not {tile}")
        store = cls(folder, identity, size, tile, kind, quality)
        with store._writing():
            folder.mkdir(exist_ok=True)
            # Opened unbuffered: what write() has taken survives the death of the process.
            store._file = io.FileIO(folder / _RECORDS, "a+")
        try:
            store._claim()
            store._resume()
        except BaseException:
            store.close()
            raise
        return store

    def has(self, row: int, column: int) -> bool:
        """Whether the tile is there: as pixels, blank, or a hole."""
        return bool(self._what[self._index(row, column)] != _NOTHING)

    @property
    def missing(self) -> int:
        """How many tiles are not there yet."""
        return int(np.count_nonzero(self._what == _NOTHING))

    @property
    def holes(self) -> list[tuple[int, int, str]]:
        """``(row, column, reason)`` of every hole, row by row."""
        columns = self.grid[1]
        return [
            (int(i) // columns, int(i) % columns, self._payload(int(i)).decode())
            for i in np.flatnonzero(self._what == _HOLE)
        ]

    @property
    def stamp(self) -> str:
        """Text that changes with every record, for telling whether something made from the tiles is still right."""
        return str(self._end)

    def extent(self, row: int, column: int) -> tuple[int, int]:
        """``(height, width)`` in px of the part of a tile that lies on the slide."""
        self._index(row, column)
        return (
            min(self.tile, self.size.height - row * self.tile),
            min(self.tile, self.size.width - column * self.tile),
        )

    def put(self, row: int, column: int, image: NDArray[np.uint8] | NDArray[np.float32]) -> None:
        """Keep the pixels of a tile.

        Args:
            row: of the grid.
            column: of the grid.
            image: ``uint8`` ``(h, w, 3)`` for ``rgb``; optical density, ``float`` ``(h, w)``, for ``dab``. ``h`` and
                ``w`` are the whole tile's or, at the right and lower border, those of :meth:`extent`.

        Raises:
            RestainError: if the system refuses to write; what was written before is kept.
            ValueError: if shape or type are wrong.
        """
        index, (height, width) = self._index(row, column), self.extent(row, column)
        if image.shape[:2] not in {(height, width), (self.tile, self.tile)}:
            raise ValueError(f"tile {row}, {column} is {height}x{width} px, not {image.shape}")
        self._append(index, _TILE, self._encode(image[:height, :width]))

    def put_blank(self, row: int, column: int, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
        """Keep a tile of glass in a few bytes: ``colour`` for ``rgb``, no density for ``dab``.

        Raises:
            RestainError: if the system refuses to write.
        """
        self._append(self._index(row, column), _BLANK, bytes(colour) if self.kind == "rgb" else b"")

    def put_hole(self, row: int, column: int, reason: str) -> None:
        """Keep that a tile could not be made. Its pixels are a black cross on grey (``dab``: no density).

        Raises:
            RestainError: if the system refuses to write.
        """
        self._append(self._index(row, column), _HOLE, reason.encode())

    def blank(self, row: int, column: int) -> tuple[int, int, int] | None:
        """The colour of a tile put as blank (``dab``: white), ``None`` for any other."""
        index = self._index(row, column)
        if self._what[index] != _BLANK:
            return None
        red, green, blue = self._payload(index) or b"\xff\xff\xff"
        return red, green, blue

    def read(self, row: int, column: int) -> NDArray[np.uint8] | NDArray[np.float32]:
        """The pixels of a tile as they were kept, cut to :meth:`extent`: ``uint8`` RGB or ``float32`` density.

        Raises:
            RestainError: if the tile is not there or its record has been damaged.
        """
        height, width = self.extent(row, column)
        data = self.encoded(row, column)
        if self.kind == "rgb" and self.quality is None:
            return lossless_tile(data, self.tile)[:height, :width]
        if self.kind == "rgb":
            return np.asarray(imagecodecs.jpeg8_decode(data))[:height, :width]
        flat = np.frombuffer(imagecodecs.zlib_decode(data), "<u2").reshape(self.tile, self.tile)
        counts = np.cumsum(flat, axis=1, dtype=np.uint16)
        return counts[:height, :width].astype(np.float32) * np.float32(OD_PER_COUNT)

    def read_region(self, region: Region) -> NDArray[np.uint8] | NDArray[np.float32]:
        """The pixels of a region inside the slide, from the tiles that it meets.

        Raises:
            RestainError: if one of them is not there or damaged.
        """
        shape = (region.size.height, region.size.width)
        out = np.empty((*shape, 3), np.uint8) if self.kind == "rgb" else np.empty(shape, np.float32)
        for row in range(region.origin.y // self.tile, (region.bottom - 1) // self.tile + 1):
            for column in range(region.origin.x // self.tile, (region.right - 1) // self.tile + 1):
                paste(out, region, self.read(row, column), column * self.tile, row * self.tile)
        return out

    def encoded(self, row: int, column: int) -> bytes:
        """A tile as the bytes of a TIFF tile, at its full side (the border repeated beyond the slide).

        Raises:
            RestainError: if the tile is not there or its record has been damaged.
        """
        index = self._index(row, column)
        what, payload = self._what[index], self._payload(index)
        if what == _TILE:
            return payload
        key = payload if what == _BLANK else b"hole"
        patch = None
        if what == _BLANK and self.kind == "rgb" and self.pattern is not None:
            top, left = (self.tile * i % self.pattern.shape[0] for i in (row, column))
            key, patch = b"pattern %d %d" % (top, left), self.pattern[top : top + self.tile, left : left + self.tile]
        if key not in self._uniform:
            stand_in = self._stand_in(payload if what == _BLANK else None) if patch is None else patch
            self._uniform[key] = self._encode(stand_in)
        return self._uniform[key]

    def level(self, number: int, size: Size) -> TileStore:
        """A store inside this one's folder for the tiles of a reduced level; it goes with :meth:`discard`.

        It is begun anew when a tile was put into this store since.

        Raises:
            RestainError: as :meth:`open`.
        """
        with self._writing():
            (self.folder / _LEVELS).mkdir(exist_ok=True)
        identity = {**self.identity, "reduced level": str(number), "reduced from": self.stamp}
        return TileStore.open(self.folder / _LEVELS / str(number), identity, size, self.tile, self.kind, self.quality)

    def close(self) -> None:
        """Let go of the files; what was put stays in the folder."""
        self._file.close()

    def discard(self) -> None:
        """Close the store and remove its folder.

        Raises:
            RestainError: if the system refuses.
        """
        self.close()
        with self._writing():
            shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self, row: int, column: int) -> int:
        if not (0 <= row < self.grid[0] and 0 <= column < self.grid[1]):
            raise IndexError(f"no tile {row}, {column} in a grid of {self.grid[0]}x{self.grid[1]}")
        return row * self.grid[1] + column

    def _stand_in(self, colour: bytes | None) -> NDArray[np.uint8] | NDArray[np.float32]:
        if self.kind == "dab":
            return np.zeros((self.tile, self.tile), np.float32)
        if colour is not None:
            return np.full((self.tile, self.tile, 3), list(colour), np.uint8)
        rows, columns = np.indices((self.tile, self.tile))
        arm = max(2, self.tile // 64)
        cross = (np.abs(rows - columns) < arm) | (np.abs(rows + columns - self.tile + 1) < arm)
        return np.where(cross[..., None], np.uint8(0), np.uint8(128)).repeat(3, axis=2)

    def _encode(self, image: NDArray[np.uint8] | NDArray[np.float32]) -> bytes:
        beyond = [(0, self.tile - image.shape[0]), (0, self.tile - image.shape[1])]
        if self.kind == "rgb":
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"expected uint8 (h, w, 3), not {image.dtype} {image.shape}")
            rgb = np.ascontiguousarray(np.pad(image, [*beyond, (0, 0)], mode="edge"))
            if self.quality is None:
                rgb[:, 1:] = np.diff(rgb, axis=1)
                return bytes(imagecodecs.zlib_encode(rgb.tobytes(), level=6))
            return bytes(imagecodecs.jpeg8_encode(rgb, level=self.quality, subsampling="444"))
        if not np.issubdtype(image.dtype, np.floating) or image.ndim != 2:
            raise ValueError(f"expected optical density, float (h, w), not {image.dtype} {image.shape}")
        density = np.nan_to_num(np.asarray(image, np.float32), nan=0.0)
        counts = np.round(np.clip(density / OD_PER_COUNT, 0, 65535))
        padded = np.pad(counts.astype("<u2"), beyond, mode="edge")
        padded[:, 1:] = np.diff(padded, axis=1)
        return bytes(imagecodecs.zlib_encode(padded.tobytes(), level=6))

    def _payload(self, index: int) -> bytes:
        with self._lock:
            what, start, length = int(self._what[index]), int(self._start[index]), int(self._length[index])
            if what == _NOTHING:
                raise RestainError(f"{self.folder} has no tile {divmod(index, self.grid[1])} yet.")
            self._file.seek(start)
            body = self._file.read(length + _CRC.size)
        payload = body[:length]
        if len(body) < length + _CRC.size or _CRC.unpack(body[length:])[0] != _checksum(index, what, payload):
            raise RestainError(f"{self.folder / _RECORDS} is damaged: the checksum of a tile is wrong.")
        return payload

    def _append(self, index: int, what: int, payload: bytes) -> None:
        head = _HEAD.pack(index, what, len(payload))
        record = memoryview(head + payload + _CRC.pack(_checksum(index, what, payload)))
        with self._lock, self._writing():
            done = 0
            try:
                while done < len(record):
                    done += self._file.write(record[done:])
            except OSError:
                # Otherwise the next record would begin behind a torn one and be lost with it.
                self._file.truncate(self._end)
                raise
            self._note(index, what, len(payload))

    def _note(self, index: int, what: int, length: int) -> None:
        self._start[index], self._length[index] = self._end + _HEAD.size, length
        self._what[index] = what
        self._end += _HEAD.size + length + _CRC.size

    def _plan(self) -> dict[str, object]:
        return {
            "format": _FORMAT,
            "identity": self.identity,
            "size": [self.size.width, self.size.height],
            "tile": self.tile,
            "kind": self.kind,
            "quality": self.quality,
        }

    def _claim(self) -> None:
        if not lock(self._file):
            raise RestainError(f"{self.folder} is in use by another process.")

    def _resume(self) -> None:
        plan = self.folder / _PLAN
        try:
            same = json.loads(plan.read_bytes()) == self._plan()
        except (OSError, ValueError):
            same = False
        with self._writing():
            if same:
                for index, what, length in self._records():
                    self._note(index, what, length)
            else:
                shutil.rmtree(self.folder / _LEVELS, ignore_errors=True)
            # Records go before the plan changes: never may old tiles stand under a new plan.
            self._file.truncate(self._end)
        if not same:
            write_json(plan, self._plan())

    def _records(self) -> Iterator[tuple[int, int, int]]:
        """``(index, what, payload bytes)`` of the whole records, up to the first that is torn or damaged."""
        # Over the same descriptor: closing a second one would drop the process's lock on the file.
        file = io.BufferedReader(self._file, 1 << 20)
        try:
            left = file.seek(0, os.SEEK_END)
            file.seek(0)
            while left >= _HEAD.size + _CRC.size:
                index, what, length = _HEAD.unpack(file.read(_HEAD.size))
                left -= _HEAD.size + length + _CRC.size
                if left < 0 or index >= self._what.size or what not in (_TILE, _BLANK, _HOLE):
                    return
                payload = file.read(length)
                if _CRC.unpack(file.read(_CRC.size))[0] != _checksum(index, what, payload):
                    return
                yield index, what, length
        finally:
            file.detach()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the system refuses becomes one sentence."""
        try:
            yield
        except OSError as fault:
            kept = " (finished tiles are kept)" if (self.folder / _RECORDS).exists() else ""
            raise RestainError(f"{self.folder} cannot be written: {fault.strerror or fault}{kept}.") from None


def lossless_tile(data: bytes, side: int) -> NDArray[np.uint8]:
    """The pixels ``(side, side, 3)`` of a lossless RGB tile, which is deflate with horizontal differencing."""
    flat = np.frombuffer(imagecodecs.zlib_decode(data), np.uint8).reshape(side, side, 3)
    return np.cumsum(flat, axis=1, dtype=np.uint8)


def _checksum(index: int, what: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_HEAD.pack(index, what, len(payload))))
