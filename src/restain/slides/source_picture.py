"""PNG, JPEG and WebP pictures as slides of one level."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from restain.geometry import Region, Size
from restain.images import Rgb, image_mpp, read_rgb
from restain.slides.source import Source, levels_of


class PictureSource(Source):
    """A picture, held decoded in memory; its mpp from the metadata where they say."""

    def __init__(self, path: Path) -> None:
        self._pixels = read_rgb(path)
        height, width = self._pixels.shape[:2]
        super().__init__(path, "picture", levels_of([Size(width, height)]), mpp=image_mpp(path))

    def read(self, level: int, region: Region) -> Rgb:
        return np.ascontiguousarray(self._pixels[region.slices])
