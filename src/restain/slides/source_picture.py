"""Pictures as slides of one level: PNG, JPEG and WebP files, and arrays."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from restain.geometry import Region, Size
from restain.images import Rgb, decode_picture, picture_facts
from restain.slides.source import SlideImage, Source, choose_image, levels_of


class PictureSource(Source):
    """A picture, decoded whole when it is loaded or first read, and held in memory."""

    def __init__(self, path: Path, image: int | None = None) -> None:
        facts = picture_facts(path)
        choose_image(path, [SlideImage("picture", facts.size)], image)
        mpp, mpp_y = facts.scale or (None, None)
        super().__init__(
            path,
            "picture",
            levels_of([facts.size]),
            mpp=mpp,
            mpp_y=mpp_y,
            icc=facts.icc,
            orientation=facts.orientation,
            decoded_at_once=facts.size.width * facts.size.height,
            pictorial=True,
        )
        self._pixels: Rgb | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        with self._lock:
            if self._pixels is None:
                self._pixels = decode_picture(self.path)

    def read(self, level: int, region: Region) -> Rgb:
        self.load()
        assert self._pixels is not None
        return np.ascontiguousarray(self._pixels[region.slices])


class ArraySource(Source):
    """Pixels in memory, ``(H, W, 3)`` ``uint8`` RGB; ``name`` stands for their path in messages."""

    def __init__(self, rgb: Rgb, mpp: float | None = None, name: Path = Path("array")) -> None:
        size = Size(rgb.shape[1], rgb.shape[0])
        super().__init__(name, "array", levels_of([size]), mpp=mpp, pictorial=True)
        self.rgb = rgb

    def read(self, level: int, region: Region) -> Rgb:
        return np.ascontiguousarray(self.rgb[region.slices])
