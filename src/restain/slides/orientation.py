"""Orientation: what a file stores turned or mirrored is read upright."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.slides.source import Source

_MIRRORED_Y, _MIRRORED_X = {3, 4, 7, 8}, {2, 3, 6, 7}


def is_turned(orientation: int) -> bool:
    """Whether an orientation exchanges width and height."""
    return orientation >= 5


def upright_size(size: Size, orientation: int) -> Size:
    """The size of an image after it is turned as its ``orientation`` says."""
    return Size(size.height, size.width) if is_turned(orientation) else size


def upright(source: Source) -> Source:
    """A source whose pixels, sizes and scale are turned as its ``orientation`` (EXIF, 1 to 8) says."""
    return source if source.orientation == 1 else UprightSource(source)


class UprightSource(Source):
    """Another source, turned: transposed for the orientations 5 to 8, then mirrored in y, in x or in both."""

    def __init__(self, source: Source) -> None:
        facts = {one.name: getattr(source, one.name) for one in fields(Source)}
        turned = is_turned(source.orientation)
        if turned and source.mpp is not None and source.mpp_y is not None:
            facts |= {"mpp": source.mpp_y, "mpp_y": source.mpp}
        facts["levels"] = tuple(replace(one, size=upright_size(one.size, source.orientation)) for one in source.levels)
        super().__init__(**facts)
        self._source = source
        self._transposed = turned
        self._mirrored_y, self._mirrored_x = source.orientation in _MIRRORED_Y, source.orientation in _MIRRORED_X

    def read(self, level: int, region: Region) -> Rgb:
        of = self.levels[level].size
        x = of.width - region.right if self._mirrored_x else region.origin.x
        y = of.height - region.bottom if self._mirrored_y else region.origin.y
        stored = Region(Point(x, y), region.size)
        if self._transposed:
            stored = Region(Point(y, x), Size(region.size.height, region.size.width))
        pixels = self._source.read(level, stored)
        if self._transposed:
            pixels = pixels.transpose(1, 0, 2)
        if self._mirrored_y:
            pixels = pixels[::-1]
        if self._mirrored_x:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)

    def load(self) -> None:
        self._source.load()

    def read_associated(self, name: str) -> Rgb:
        return self._source.read_associated(name)

    def close(self) -> None:
        self._source.close()
