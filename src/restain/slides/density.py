"""A DAB pyramid read back: 16-bit counts of optical density, any region, without the whole slide in memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import OD_PER_COUNT
from restain.slides.source import damaged, paste
from restain.slides.source_tiff import broken_chain, lost_tiles

Density = NDArray[np.float32]


class DensitySlide:
    """The pyramid that :func:`restain.slides.write_ome_tiff` makes of a ``dab`` store; a context manager.

    ``levels`` are the sizes in px, finest first; ``mpp`` is of level 0. May be read from several threads at once.
    Raises RestainError if the file is not there, truncated, damaged, or no such pyramid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tiff = tifffile.TiffFile(path)
        except FileNotFoundError:
            raise RestainError(f"{path} does not exist.") from None
        except Exception:
            raise damaged(path, "its TIFF directory cannot be read") from None
        try:
            first: Any = self._tiff.pages[0].aspage()
            self._pages = [first, *(page.aspage() for page in first.pages or ())]
            if any(page.dtype != np.uint16 or page.axes != "YX" or not page.is_tiled for page in self._pages):
                raise RestainError(f"{path} is no pyramid of DAB densities (tiled, 16 bit, one channel).")
            if faults := broken_chain(path) + lost_tiles(path, self._pages, self._tiff.filehandle.size, strict=True):
                raise RestainError(faults[0])
            per_cm = float(np.divide(*first.tags["XResolution"].value))
        except RestainError:
            self._tiff.close()
            raise
        except Exception:
            self._tiff.close()
            raise damaged(path, "its TIFF directory cannot be read") from None
        self.mpp = 1e4 / per_cm
        self.levels = tuple(Size(int(page.imagewidth), int(page.imagelength)) for page in self._pages)
        self._lock = threading.Lock()

    @property
    def size(self) -> Size:
        return self.levels[0]

    @property
    def decoded_at_once(self) -> int:
        """How many px of a tile have to be decoded together, at most."""
        return max(page.tilelength * page.tilewidth for page in self._pages)

    def read(self, region: Region, level: int = 0) -> Density:
        """A region, in px of ``level``, as ``(h, w)`` ``float32`` optical density; 0 beyond the border.

        Raises RestainError if a tile cannot be decoded.
        """
        page, of = self._pages[level], self.levels[level]
        out = np.zeros((region.size.height, region.size.width), np.uint16)
        inside = region.origin.x < of.width and region.origin.y < of.height and region.right > 0 and region.bottom > 0
        if not inside:
            return out.astype(np.float32)
        height, width, across = page.tilelength, page.tilewidth, -(-of.width // page.tilewidth)
        for row in range(max(region.origin.y, 0) // height, -(-min(region.bottom, of.height) // height)):
            for column in range(max(region.origin.x, 0) // width, -(-min(region.right, of.width) // width)):
                piece = self._tile(page, row * across + column)
                x, y = column * width, row * height
                paste(out, region, piece[: of.height - y, : of.width - x], x, y)
        return out.astype(np.float32) * np.float32(OD_PER_COUNT)

    def overview(self, least_side: int) -> Density:
        """The coarsest level whose longer side is at least ``least_side`` px (else level 0), whole."""
        found = [n for n, size in enumerate(self.levels) if max(size.width, size.height) >= least_side]
        level = found[-1] if found else 0
        return self.read(Region(Point(0, 0), self.levels[level]), level)

    def close(self) -> None:
        self._tiff.close()

    def __enter__(self) -> DensitySlide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tile(self, page: Any, index: int) -> NDArray[np.uint16]:
        with self._lock:
            handle = self._tiff.filehandle
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
        try:
            return np.asarray(page.decode(data, index)[0]).reshape(page.tilelength, page.tilewidth)
        except Exception:
            raise damaged(self.path, f"tile {index} cannot be decoded") from None
