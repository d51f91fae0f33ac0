"""Finished tiles of a slide on disk, in any order; a killed job resumes from them.

Tiles lie in neither SQLite nor zarr. A SQLite file that is cut anywhere loses all its tiles; here only the torn record is lost.
zarr keeps decoded arrays, not the bytes of a TIFF tile, and one file per tile.
"""

from __future__ import annotations

import io
import json
import shutil
import threading
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
from restain.slides.records import BLANK, HOLE, MISSING, TILE, RecordIndex, record_of
from restain.slides.source import paste

Kind = Literal["rgb", "dab"]
Pixels = NDArray[np.uint8] | NDArray[np.float32]

PLAN = "plan.json"
RECORDS = "records.bin"
_FORMAT = 1
_LEVELS = "levels"


class TileGrid:
    """Square tiles that cover an image: ``size`` and ``tile`` in px, ``grid`` in (rows, columns)."""

    def __init__(self, size: Size, tile: int) -> None:
        self.size, self.tile = size, tile
        self.grid = (-(-size.height // tile), -(-size.width // tile))

    def cells(self) -> Iterator[tuple[int, int]]:
        """``(row, column)`` of all tiles, row by row."""
        return ((int(row), int(column)) for row, column in np.ndindex(self.grid))

    def extent(self, row: int, column: int) -> tuple[int, int]:
        """``(height, width)`` in px of the part of a tile that lies on the image."""
        self.index(row, column)
        rest = self.size.height - row * self.tile, self.size.width - column * self.tile
        return min(self.tile, rest[0]), min(self.tile, rest[1])

    def index(self, row: int, column: int) -> int:
        """Number of a tile, row by row. Raises IndexError if the grid has no such tile."""
        if not (0 <= row < self.grid[0] and 0 <= column < self.grid[1]):
            raise IndexError(f"no tile {row}, {column} in a grid of {self.grid[0]}x{self.grid[1]}")
        return row * self.grid[1] + column


class TileStore(TileGrid):
    """A folder ``NAME.part`` of encoded tiles: ``plan.json`` identifies the job, ``records.bin`` grows by tiles.

    Whole records survive the death of the process; a torn one is cut at the next opening. The later of two records of
    a tile is valid. ``rgb`` tiles are JPEG without chroma subsampling, or deflate with horizontal differencing if
    ``quality`` is None. ``dab`` tiles are 16-bit counts of 1e-4 OD (0 to 6.5535), deflate. All are valid TIFF tiles,
    which :meth:`encoded` returns unchanged.

    Made by :meth:`open`; a context manager. All methods are thread-safe.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, str], size: Size, tile: int, kind: Kind, quality: int | None
    ):
        super().__init__(size, tile)
        self.folder = folder
        self.identity = dict(identity)
        self.kind: Kind = kind
        self.quality = quality
        self.pattern: NDArray[np.uint8] | None = None
        """``(p, p, 3)``, ``p`` a multiple of ``tile``: pixels of blank ``rgb`` tiles, repeated from the slide's corner.
        It is not stored: set it after each opening."""
        self._records = RecordIndex(self.grid[0] * self.grid[1])
        self._lock = threading.Lock()
        self._uniform: dict[bytes, bytes] = {}
        self._file: io.FileIO

    @classmethod
    def open(
        cls, folder: Path, identity: Mapping[str, str], size: Size, tile: int, kind: Kind, quality: int | None = 90
    ) -> TileStore:
        """Open the store in ``folder``, or begin one.

        Args:
            folder: made if missing; its parent must exist.
            identity: all inputs of the tiles (slide, bundle, options). A store of another identity or geometry is
                removed and begun anew.
            size: level 0 in px.
            tile: side of a tile in px, a multiple of 16 (TIFF).
            kind: ``"rgb"`` or ``"dab"``.
            quality: JPEG quality, 1 to 100; None for lossless tiles. Not used by ``dab``.

        Raises RestainError if the folder cannot be written or another process has the store open; ValueError if
        ``tile`` is not a positive multiple of 16.
        """
        if tile <= 0 or tile % 16:
            raise ValueError(f"the side of a tile must be a positive multiple of 16, not {tile}")
        store = cls(folder, identity, size, tile, kind, quality)
        with store._writing():
            folder.mkdir(exist_ok=True)
            # Unbuffered: what write() has taken survives the death of the process.
            store._file = io.FileIO(folder / RECORDS, "a+")
        try:
            if not lock(store._file):
                raise RestainError(f"{folder} is in use by another process.")
            store._resume()
        except BaseException:
            store.close()
            raise
        return store

    def has(self, row: int, column: int) -> bool:
        """Whether the tile is stored: as pixels, blank, or a hole."""
        return bool(self._records.content[self.index(row, column)] != MISSING)

    @property
    def missing(self) -> int:
        """Number of tiles that are not stored yet."""
        return int(np.count_nonzero(self._records.content == MISSING))

    @property
    def holes(self) -> list[tuple[int, int, str]]:
        """``(row, column, reason)`` of every hole, row by row."""
        found = np.flatnonzero(self._records.content == HOLE).tolist()
        return [(*divmod(index, self.grid[1]), self._payload(index).decode()) for index in found]

    @property
    def stamp(self) -> str:
        """Text that changes with every stored tile."""
        return str(self._records.end)

    def put(self, row: int, column: int, image: Pixels) -> None:
        """Store the pixels of a tile.

        Args:
            row: of the grid.
            column: of the grid.
            image: ``uint8`` ``(h, w, 3)`` for ``rgb``; ``float`` ``(h, w)`` optical density for ``dab``. Size of the
                whole tile or of its :meth:`extent`.

        Raises RestainError if the system refuses to write; earlier tiles are kept; ValueError if shape or type are
        wrong.
        """
        height, width = self.extent(row, column)
        if image.shape[:2] not in {(height, width), (self.tile, self.tile)}:
            raise ValueError(f"tile {row}, {column} is {height}x{width} px, not {image.shape}")
        self._append(row, column, TILE, self._encode(image[:height, :width]))

    def put_blank(self, row: int, column: int, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
        """Store a tile of glass in a few bytes: ``colour`` for ``rgb``, no density for ``dab``.

        Raises RestainError if the system refuses to write.
        """
        self._append(row, column, BLANK, bytes(colour) if self.kind == "rgb" else b"")

    def put_hole(self, row: int, column: int, reason: str) -> None:
        """Store that a tile could not be made. Its pixels are a black cross on grey (``dab``: no density).

        Raises RestainError if the system refuses to write.
        """
        self._append(row, column, HOLE, reason.encode())

    def blank(self, row: int, column: int) -> tuple[int, int, int] | None:
        """Colour of a blank tile (``dab``: white); ``None`` for any other."""
        index = self.index(row, column)
        if self._records.content[index] != BLANK:
            return None
        red, green, blue = self._payload(index) or b"\xff\xff\xff"
        return red, green, blue

    def read(self, row: int, column: int) -> Pixels:
        """Pixels of a tile, cut to :meth:`extent`: ``uint8`` RGB or ``float32`` density.

        Raises RestainError if the tile is missing or damaged.
        """
        height, width = self.extent(row, column)
        data = self.encoded(row, column)
        if self.kind == "rgb" and self.quality is not None:
            return np.asarray(imagecodecs.jpeg8_decode(data))[:height, :width]
        if self.kind == "rgb":
            return lossless_tile(data, self.tile)[:height, :width]
        flat = np.frombuffer(imagecodecs.zlib_decode(data), "<u2").reshape(self.tile, self.tile)
        counts = np.cumsum(flat, axis=1, dtype=np.uint16)
        return counts[:height, :width].astype(np.float32) * np.float32(OD_PER_COUNT)

    def read_region(self, region: Region) -> Pixels:
        """Pixels of a region inside the slide. Raises RestainError if one of its tiles is missing or damaged."""
        shape = (region.size.height, region.size.width)
        out = np.empty((*shape, 3), np.uint8) if self.kind == "rgb" else np.empty(shape, np.float32)
        for row in range(region.origin.y // self.tile, (region.bottom - 1) // self.tile + 1):
            for column in range(region.origin.x // self.tile, (region.right - 1) // self.tile + 1):
                paste(out, region, self.read(row, column), column * self.tile, row * self.tile)
        return out

    def encoded(self, row: int, column: int) -> bytes:
        """A tile as the bytes of a TIFF tile, at its full side (the border repeated beyond the slide).

        Raises RestainError if the tile is missing or damaged.
        """
        index = self.index(row, column)
        payload, content = self._payload(index), self._records.content[index]
        if content == TILE:
            return payload
        key, pixels = b"hole", None
        if content == BLANK:
            key = payload
            if self.kind == "rgb" and self.pattern is not None:
                top, left = (self.tile * i % self.pattern.shape[0] for i in (row, column))
                key, pixels = b"pattern %d %d" % (top, left), self.pattern[top:, left:][: self.tile, : self.tile]
        if key not in self._uniform:
            if self.kind == "dab":
                self._uniform[key] = self._encode(np.zeros((self.tile, self.tile), np.float32))
            else:
                stand_in = uniform_tile(self.tile, payload if content == BLANK else None)
                self._uniform[key] = self._encode(stand_in if pixels is None else pixels)
        return self._uniform[key]

    def level(self, number: int, size: Size) -> TileStore:
        """A store inside this folder for the tiles of a reduced level; begun anew if this store has changed since.

        Raises RestainError as :meth:`open`.
        """
        with self._writing():
            (self.folder / _LEVELS).mkdir(exist_ok=True)
        identity = {**self.identity, "reduced level": str(number), "reduced from": self.stamp}
        return TileStore.open(self.folder / _LEVELS / str(number), identity, size, self.tile, self.kind, self.quality)

    def close(self) -> None:
        """Close the files; stored tiles stay in the folder."""
        self._file.close()

    def discard(self) -> None:
        """Close the store and remove its folder. Raises RestainError if the system refuses."""
        self.close()
        with self._writing():
            shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
            place = self._records.place(index)
            if place[0] == MISSING:
                raise RestainError(f"{self.folder} has no tile {divmod(index, self.grid[1])} yet.")
            payload = RecordIndex.payload(self._file, index, place)
        if payload is None:
            raise RestainError(f"{self.folder / RECORDS} is damaged: the checksum of a tile is wrong.")
        return payload

    def _append(self, row: int, column: int, content: int, payload: bytes) -> None:
        index = self.index(row, column)
        record = memoryview(record_of(index, content, payload))
        with self._lock, self._writing():
            done = 0
            try:
                while done < len(record):
                    done += self._file.write(record[done:])
            except OSError:
                # Otherwise the next record would follow a torn one and be lost with it.
                self._file.truncate(self._records.end)
                raise
            self._records.add(index, content, len(payload))

    def _resume(self) -> None:
        plan = {
            "format": _FORMAT,
            "identity": self.identity,
            "size": [self.size.width, self.size.height],
            "tile": self.tile,
            "kind": self.kind,
            "quality": self.quality,
        }
        try:
            same = json.loads((self.folder / PLAN).read_bytes()) == plan
        except (OSError, ValueError):
            same = False
        with self._writing():
            if same:
                # Detached, since closing the buffer would close the file.
                buffer = io.BufferedReader(self._file, 1 << 20)
                self._records.scan(buffer, check=True)
                buffer.detach()
            else:
                shutil.rmtree(self.folder / _LEVELS, ignore_errors=True)
            # Records go before the plan changes: old tiles must never stand under a new plan.
            self._file.truncate(self._records.end)
        if not same:
            write_json(self.folder / PLAN, plan)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            kept = " (finished tiles are kept)" if (self.folder / RECORDS).exists() else ""
            raise RestainError(f"{self.folder} cannot be written: {fault.strerror or fault}{kept}.") from None


def lossless_tile(data: bytes, side: int) -> NDArray[np.uint8]:
    """Pixels ``(side, side, 3)`` of a lossless RGB tile (deflate with horizontal differencing)."""
    flat = np.frombuffer(imagecodecs.zlib_decode(data), np.uint8).reshape(side, side, 3)
    return np.cumsum(flat, axis=1, dtype=np.uint8)


def uniform_tile(side: int, colour: bytes | None) -> NDArray[np.uint8]:
    """RGB pixels ``(side, side, 3)`` of a blank tile, or of a hole where ``colour`` is None: a black cross on grey."""
    if colour is not None:
        return np.full((side, side, 3), list(colour or b"\xff\xff\xff"), np.uint8)
    rows, columns = np.indices((side, side))
    arm = max(2, side // 64)
    cross = (np.abs(rows - columns) < arm) | (np.abs(rows + columns - side + 1) < arm)
    return np.where(cross[..., None], np.uint8(0), np.uint8(128)).repeat(3, axis=2)
