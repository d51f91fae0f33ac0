"""A DAB pyramid read back: 16-bit counts of optical density, any region, without the whole slide in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import OD_PER_COUNT
from restain.slides.source_tiff import TiffTiles, broken_chain, lost_tiles

Density = NDArray[np.float32]


class DensitySlide:
    """The pyramid that :func:`restain.slides.write_ome_tiff` makes of a ``dab`` store; a context manager.

    ``levels`` are the sizes in px, finest first; ``mpp`` is of level 0. May be read from several threads at once.
    Raises RestainError if the file is not there, truncated, damaged, or no such pyramid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tiles = TiffTiles(path)
        with self._tiles.directory() as tiff:
            first: Any = tiff.pages[0].aspage()
            self._pages = [first, *(page.aspage() for page in first.pages or ())]
            if any(page.dtype != np.uint16 or page.axes != "YX" or not page.is_tiled for page in self._pages):
                raise RestainError(f"{path} is no pyramid of DAB densities (tiled, 16 bit, one channel).")
            if faults := broken_chain(path) + lost_tiles(path, self._pages, tiff.filehandle.size, strict=True):
                raise RestainError(faults[0])
            self.mpp = 1e4 / float(np.divide(*first.tags["XResolution"].value))
        self.levels = tuple(Size(int(page.imagewidth), int(page.imagelength)) for page in self._pages)

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
        out = np.zeros((region.size.height, region.size.width, 1), np.uint16)
        of = self.levels[level]
        if region.origin.x < of.width and region.origin.y < of.height and region.right > 0 and region.bottom > 0:
            inside = region.common(Region(Point(0, 0), of))
            self._tiles.read([(self._pages[level], 0)], inside, out[inside.within(region)])
        return out[..., 0].astype(np.float32) * np.float32(OD_PER_COUNT)

    def overview(self, least_side: int) -> Density:
        """The coarsest level whose longer side is at least ``least_side`` px (else level 0), whole."""
        found = [n for n, size in enumerate(self.levels) if max(size.width, size.height) >= least_side]
        level = found[-1] if found else 0
        return self.read(Region(Point(0, 0), self.levels[level]), level)

    def close(self) -> None:
        self._tiles.tiff.close()

    def __enter__(self) -> DensitySlide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
