"""Scanner files through OpenSlide: SVS, NDPI, MRXS, SCN, BIF, Philips and Trestle TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import tifffile

from restain.geometry import Point, Region, Size
from restain.images import TIFF_MAGIC, Rgb
from restain.images.scale import positive_number
from restain.slides.source import Source, damaged, levels_of, paste
from restain.slides.source_tiff import broken_chain, lost_tiles

_GRID = 512


def detect(path: Path) -> str | None:
    """OpenSlide's name of the format, or None where it knows none and for DICOM, which wsidicom reads more fully."""
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return None if vendor == "dicom" else vendor


class OpenSlideSource(Source):
    """A slide read by OpenSlide, which is thread-safe."""

    def __init__(self, path: Path, vendor: str) -> None:
        try:
            self._slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as fault:
            raise damaged(path, f"OpenSlide says '{fault}'") from None
        facts = self._slide.properties
        super().__init__(
            path,
            vendor,
            levels_of([Size(*size) for size in self._slide.level_dimensions]),
            vendor=facts.get(openslide.PROPERTY_NAME_VENDOR),
            mpp=positive_number(facts.get(openslide.PROPERTY_NAME_MPP_X, "")),
            mpp_y=positive_number(facts.get(openslide.PROPERTY_NAME_MPP_Y, "")),
            objective=positive_number(facts.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER, "")),
            faults=_cut(path, vendor),
        )
        try:
            self.icc = self._slide.color_profile.tobytes() if self._slide.color_profile else None
            self.associated = {name: Size(*image.size) for name, image in self._slide.associated_images.items()}
        except openslide.OpenSlideError as fault:
            self.faults.append(f"{path}: an associated image or the colour profile is damaged ({fault}).")
            self._slide.close()
            self._slide = openslide.OpenSlide(path)

    def read(self, level: int, region: Region) -> Rgb:
        if self._slide.level_downsamples[level] == int(self._slide.level_downsamples[level]):
            return self._piece(level, region)
        # OpenSlide takes positions in whole level-0 px and shifts by fractions of a level's px to meet them, so
        # only pieces on a fixed grid are the same for everyone.
        of = self.levels[level].size
        out = np.empty((region.size.height, region.size.width, 3), np.uint8)
        for y in range(region.origin.y // _GRID * _GRID, region.bottom, _GRID):
            for x in range(region.origin.x // _GRID * _GRID, region.right, _GRID):
                size = Size(min(_GRID, of.width - x), min(_GRID, of.height - y))
                paste(out, region, self._piece(level, Region(Point(x, y), size)), x, y)
        return out

    def _piece(self, level: int, region: Region) -> Rgb:
        step = self._slide.level_downsamples[level]
        at = round(region.origin.x * step), round(region.origin.y * step)
        try:
            rgba = np.asarray(self._slide.read_region(at, level, (region.size.width, region.size.height)))
        except openslide.OpenSlideError as fault:
            raise damaged(self.path, f"OpenSlide says '{fault}'") from None
        rgb, alpha = rgba[..., :3], rgba[..., 3:]
        if alpha.min() < 255:
            share = alpha.astype(np.float32) / 255
            rgb = np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)
        return np.ascontiguousarray(rgb)

    def read_associated(self, name: str) -> Rgb:
        if name not in self.associated:
            return super().read_associated(name)
        try:
            return np.asarray(self._slide.associated_images[name].convert("RGB"))
        except openslide.OpenSlideError as fault:
            raise damaged(self.path, f"OpenSlide says '{fault}'") from None

    def close(self) -> None:
        self._slide.close()


def _cut(path: Path, vendor: str) -> list[str]:
    """A TIFF-based slide whose tiles lie beyond the end of its file: OpenSlide finds out only when it reads them."""
    with open(path, "rb") as file:
        if file.read(4) not in TIFF_MAGIC:
            return []
    try:
        with tifffile.TiffFile(path) as tiff:
            lost = lost_tiles(path, [page.aspage() for page in tiff.pages], tiff.filehandle.size, strict=False)
    except Exception:
        return [f"{path} is truncated or damaged: its TIFF directories cannot all be read."]
    # NDPI keeps 64-bit offsets in a classic TIFF.
    return (broken_chain(path) if vendor != "hamamatsu" else []) or lost
