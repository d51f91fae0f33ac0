"""Finished tiles of a slide in a SQLite file, in any order; a killed job resumes from them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.files import locked_folder
from restain.geometry import Region, Size
from restain.images import OD_PER_COUNT
from restain.slides.source import paste

Kind = Literal["rgb", "dab"]
Pixels = NDArray[np.uint8] | NDArray[np.float32]

FILE = "tiles.sqlite"
TILE, BLANK, HOLE = "tile", "blank", "hole"
"""What a store holds of a tile."""
_FORMAT = 2
_LEVELS = "levels"
# No write-ahead log: its readers write files into the folder, which must be empty when it is removed, and network file
# systems do not support it. A tile costs the same either way, and neither a kill nor a power failure damages the file.
_SCHEMA = """
PRAGMA journal_mode = TRUNCATE;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS plan (text TEXT);
CREATE TABLE IF NOT EXISTS tile (number INTEGER PRIMARY KEY, content TEXT, payload BLOB, crc INTEGER);
"""


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
    """A folder ``NAME.part`` with a SQLite file of encoded tiles and the plan that identifies the job.

    Stored tiles survive the death of the process; those with a wrong checksum are dropped at the next opening. ``rgb``
    tiles are JPEG without chroma subsampling, or deflate with horizontal differencing if ``quality`` is None. ``dab``
    tiles are 16-bit counts of 1e-4 OD (0 to 6.5535), deflate. All are valid TIFF tiles, which :meth:`encoded` returns
    unchanged. Made by :meth:`open`; a context manager. All methods are thread-safe.
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
        self._lock = threading.Lock()
        self._uniform: dict[bytes, bytes] = {}
        self._open = ExitStack()
        self._db: sqlite3.Connection

    @classmethod
    def open(
        cls, folder: Path, identity: Mapping[str, str], size: Size, tile: int, kind: Kind, quality: int | None = 90
    ) -> TileStore:
        """Open the store in ``folder``, or begin one; the folder's parent must exist.

        Args:
            identity: all inputs of the tiles (slide, bundle, options). A store of another identity or geometry is begun anew.
            size: level 0 in px.
            tile: side of a tile in px, a multiple of 16 (TIFF).
            quality: JPEG quality, 1 to 100; None for lossless tiles. Not used by ``dab``.

        Raises RestainError if the folder cannot be written or another process has the store open; ValueError if
        ``tile`` is not a positive multiple of 16.
        """
        if tile <= 0 or tile % 16:
            raise ValueError(f"the side of a tile must be a positive multiple of 16, not {tile}")
        store = cls(folder, identity, size, tile, kind, quality)
        with store._writing():
            folder.mkdir(exist_ok=True)
        try:
            store._open.enter_context(locked_folder(folder, "lock"))
            store._resume()
        except BaseException:
            store.close()
            raise
        return store

    def has(self, row: int, column: int) -> bool:
        """Whether the tile is stored: as pixels, blank, or a hole."""
        return self._find("content", row, column) is not None

    @property
    def missing(self) -> int:
        """Number of tiles that are not stored yet."""
        ((stored,),) = self._select("SELECT count(*) FROM tile")
        return self.grid[0] * self.grid[1] - int(stored)

    @property
    def holes(self) -> list[tuple[int, int, str]]:
        """``(row, column, reason)`` of every hole, row by row."""
        found = self._select("SELECT number, payload FROM tile WHERE content = ? ORDER BY number", HOLE)
        return [(*divmod(number, self.grid[1]), reason.decode()) for number, reason in found]

    @property
    def stamp(self) -> str:
        """Text that changes with every stored tile."""
        return str(*self._select("SELECT count(*), sum(crc) FROM tile"))

    def put(self, row: int, column: int, image: Pixels) -> None:
        """Store the pixels of a whole tile or of its :meth:`extent`: ``uint8`` ``(h, w, 3)``, or optical density ``(h,
        w)``.

        Raises RestainError if the system refuses to write, and keeps earlier tiles; ValueError if shape or type are
        wrong.
        """
        height, width = self.extent(row, column)
        if image.shape[:2] not in {(height, width), (self.tile, self.tile)}:
            raise ValueError(f"tile {row}, {column} is {height}x{width} px, not {image.shape}")
        self._put(row, column, TILE, self._encode(image[:height, :width]))

    def put_blank(self, row: int, column: int, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
        """Store a tile of glass in a few bytes: ``colour`` for ``rgb``, no density for ``dab``.

        Raises RestainError if the system refuses to write.
        """
        self._put(row, column, BLANK, bytes(colour) if self.kind == "rgb" else b"")

    def put_hole(self, row: int, column: int, reason: str) -> None:
        """Store that a tile could not be made. Its pixels are a black cross on grey (``dab``: no density).

        Raises RestainError if the system refuses to write.
        """
        self._put(row, column, HOLE, reason.encode())

    def blank(self, row: int, column: int) -> tuple[int, int, int] | None:
        """Colour of a blank tile (``dab``: white); None for any other."""
        content, payload = self._payload(row, column)
        if content != BLANK:
            return None
        red, green, blue = payload or b"\xff\xff\xff"
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
        content, payload = self._payload(row, column)
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
        self._open.close()

    def discard(self) -> None:
        """Close the store and remove its folder. Raises RestainError if the system refuses."""
        self.close()
        with self._writing():
            shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as fault:
            raise RestainError(f"{self.folder / FILE} is damaged: {fault}.") from None

    def _find(self, columns: str, row: int, column: int) -> tuple[Any, ...] | None:
        return next(iter(self._select(f"SELECT {columns} FROM tile WHERE number = ?", self.index(row, column))), None)

    def _payload(self, row: int, column: int) -> tuple[str, bytes]:
        found = self._find("content, payload, crc", row, column)
        if found is None:
            raise RestainError(f"{self.folder} has no tile {(row, column)} yet.")
        if not is_intact(self.index(row, column), *found):
            raise RestainError(f"{self.folder / FILE} is damaged: the checksum of a tile is wrong.")
        return found[:2]

    def _put(self, row: int, column: int, content: str, payload: bytes) -> None:
        number = self.index(row, column)
        values = number, content, payload, checksum(number, content, payload)
        with self._lock, self._writing():
            self._db.execute("INSERT OR REPLACE INTO tile VALUES (?, ?, ?, ?)", values)

    def _resume(self) -> None:
        facts = self.identity, [self.size.width, self.size.height], self.tile, self.kind, self.quality
        plan = json.dumps(
            dict(zip(("identity", "size", "tile", "kind", "quality"), facts, strict=True), format=_FORMAT)
        )
        with self._writing():
            try:
                self._connect()
                if self._db.execute("SELECT text FROM plan").fetchone() == (plan,):
                    every = self._db.execute("SELECT number, content, payload, crc FROM tile")
                    damaged = [(found[0],) for found in every if not is_intact(*found)]
                    self._db.executemany("DELETE FROM tile WHERE number = ?", damaged)
                    return
                self._db.close()
            except sqlite3.DatabaseError:
                pass
            shutil.rmtree(self.folder / _LEVELS, ignore_errors=True)
            for file in self.folder.glob(f"{FILE}*"):
                file.unlink()
            self._connect()
            self._db.execute("INSERT INTO plan VALUES (?)", (plan,))

    def _connect(self) -> None:
        self._db = sqlite3.connect(self.folder / FILE, isolation_level=None, check_same_thread=False)
        self._open.callback(self._db.close)
        self._db.executescript(_SCHEMA)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as fault:
            kept = " (finished tiles are kept)" if (self.folder / FILE).exists() else ""
            reason = getattr(fault, "strerror", None) or fault
            raise RestainError(f"{self.folder} cannot be written: {reason}{kept}.") from None


def checksum(number: int, content: str, payload: bytes) -> int:
    """CRC-32 of a tile and its number."""
    return zlib.crc32(payload, zlib.crc32(f"{number} {content}".encode()))


def is_intact(number: int, content: str, payload: bytes, crc: int) -> bool:
    """Whether a row of the file is what was stored."""
    return checksum(number, content, payload) == crc


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
