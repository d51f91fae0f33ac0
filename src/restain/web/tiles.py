"""Pixels for the browser: tiles, DAB overlays and thumbnails, straight from the slide file."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from restain import NOTICE
from restain.errors import RestainError
from restain.files import make_folder, whole_file
from restain.geometry import Point, Region, Size
from restain.her2 import FAINT_OD, INTENSE_OD, MODERATE_OD, WEAK_OD
from restain.images import Rgb
from restain.register import read_transform, warp_region
from restain.register.transform import Transform
from restain.register.warp import in_pixels
from restain.slides import DensitySlide, Slide, open_slide
from restain.web.faults import Fault
from restain.web.grid import Grid
from restain.web.library import Library
from restain.web.links import Image
from restain.web.opened import ByteCache, Opened
from restain.web.origin import Kind, Registered

MOST_PX = 64_000_000
"""A picture that has to be decoded whole, or a single tile of a TIFF, may have no more pixels."""
THUMBNAIL = 320
JPEG_QUALITY = 85
DAB_COLOURS = (
    (FAINT_OD, (86, 180, 233, 255)),
    (WEAK_OD, (240, 228, 66, 255)),
    (MODERATE_OD, (230, 120, 0, 255)),
    (INTENSE_OD, (170, 0, 40, 255)),
)
"""Least optical density and RGBA; the steps are those of the HER2 rule, so a colour means the same on every slide."""


@dataclass(frozen=True)
class View:
    """What a viewer has to know of an image; ``mpp`` None where the file does not say, and lengths are px then."""

    size: Size
    mpp: float | None
    format: str
    objective: float | None
    faults: tuple[str, ...]
    associated: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        return Grid(self.size, self.mpp or 1.0)


class Tiles:
    """Reads the images of a library. Few readings run at a time, so that memory is bounded whatever is asked."""

    def __init__(self, library: Library, state: Path) -> None:
        self.library = library
        self._thumbnails = state / "thumbnails"
        self._slides: Opened[Slide] = Opened()
        self._densities: Opened[DensitySlide] = Opened()
        self._cache = ByteCache()
        self._turns = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))
        self._transforms: dict[tuple[Path, int], Transform] = {}

    def view(self, image: Image) -> View:
        """The facts of an image.

        Raises:
            Fault: 422, if it cannot be read or is too large to be decoded.
        """
        with self._open(image) as slide:
            return View(
                slide.size,
                slide.mpp if slide.has_mpp else None,
                slide.format,
                slide.objective,
                tuple(without_path(image.path, one) for one in slide.faults),
                tuple(slide.associated),
            )

    def tile(self, image: Image, level: int, column: int, row: int, on: Image | None = None) -> bytes:
        """A tile as JPEG; with ``on``, of the image as it lies on that other one's grid.

        Raises:
            Fault: 404 if there is no such tile or ``on`` has no registration; 422 if the pixels cannot be read.
        """
        key = (image.id, image.stamp, level, column, row, on and (on.id, on.stamp))
        if (known := self._cache.get(key)) is not None:
            return known
        view = self.view(on or image)
        region = view.grid.region(level, column, row)
        mpp = view.grid.mpp * view.grid.reduction(level)
        data = as_jpeg(self.region(image, region, mpp, on), virtual=image.kind is Kind.VIRTUAL)
        self._cache.put(key, data)
        return data

    def region(self, image: Image, region: Region, mpp: float, on: Image | None = None) -> Rgb:
        """Pixels of a region at ``mpp`` (px of level 0 per px, where the slide has no mpp), of the image or as it lies on ``on``."""
        with self._open(image) as slide, self._turns:
            if on is None:
                shown = slide if slide.has_mpp else in_pixels(slide)
                return _read_to_edge(shown, region, mpp)
            registered = self._registered(image, on)
            if registered is None:
                shown = in_pixels(slide)
                with self._open(on) as fixed:
                    return _read_to_edge(shown, region, mpp / (fixed.mpp if fixed.has_mpp else 1.0))
            return warp_region(slide, self._transform(registered), region, mpp)

    def density(self, image: Image, level: int, column: int, row: int) -> bytes:
        """A tile of a DAB density as a PNG of fixed colours with transparency.

        Raises:
            Fault: as :meth:`tile`.
        """
        key = (image.id, image.stamp, "density", level, column, row)
        if (known := self._cache.get(key)) is not None:
            return known
        with self._open_density(image) as slide, self._turns:
            grid = Grid(slide.size, slide.mpp)
            region = grid.region(level, column, row)
            with readable(image.path):
                od = read_density(slide, region, grid.reduction(level))
        data = _encoded(PIL.Image.fromarray(dab_colours(od)), "PNG", compress_level=3)
        self._cache.put(key, data)
        return data

    def density_grid(self, image: Image) -> Grid:
        with self._open_density(image) as slide:
            return Grid(slide.size, slide.mpp)

    def thumbnail(self, image: Image) -> bytes:
        """The whole image as a small JPEG, kept on disk under the server's state.

        Raises:
            Fault: 422, if it cannot be read.
        """
        file = self._thumbnails / f"{image.id}-{image.stamp}.jpg"
        try:
            return file.read_bytes()
        except OSError:
            pass
        with self._open(image) as slide, self._turns, readable(image.path):
            rgb, _ = slide.thumbnail(THUMBNAIL)
        data = as_jpeg(rgb, virtual=image.kind is Kind.VIRTUAL)
        try:
            make_folder(self._thumbnails)
            for old in self._thumbnails.glob(f"{image.id}-*.jpg"):
                old.unlink(missing_ok=True)
            with whole_file(file) as partial:
                partial.write_bytes(data)
        except (OSError, RestainError):
            # A full disk costs time, not the picture.
            pass
        return data

    def close(self) -> None:
        self._slides.close()
        self._densities.close()

    def _registered(self, image: Image, on: Image) -> Registered | None:
        for other, registered in self.library.related(on).real:
            if other.id == image.id:
                return registered
        raise Fault(404, "fault.not_registered")

    def _transform(self, registered: Registered) -> Transform:
        if not all(self.library.holds(one) for one in registered.folder.glob("*.*") if one.suffix in (".json", ".npy")):
            raise Fault(404, "fault.not_registered")
        try:
            key = registered.folder, (registered.folder / "transform.json").stat().st_mtime_ns
            if key not in self._transforms:
                if len(self._transforms) > 32:
                    self._transforms.clear()
                self._transforms[key] = read_transform(registered.folder)
            return self._transforms[key]
        except (RestainError, OSError) as fault:
            raise Fault(422, "fault.unreadable", name=registered.folder.name, why=str(fault)) from None

    @contextmanager
    def _open(self, image: Image) -> Iterator[Slide]:
        if image.kind is Kind.DENSITY:
            raise Fault(404, "fault.no_image")

        with (
            readable(image.path),
            self._slides.lease(f"{image.id}-{image.stamp}", lambda: open_checked(image.path)) as slide,
        ):
            yield slide

    @contextmanager
    def _open_density(self, image: Image) -> Iterator[DensitySlide]:
        if image.kind is not Kind.DENSITY:
            raise Fault(404, "fault.no_image")

        def opener() -> tuple[DensitySlide, int]:
            slide = DensitySlide(image.path)
            check_size(slide)
            return slide, 1 << 20

        with readable(image.path), self._densities.lease(f"{image.id}-{image.stamp}", opener) as slide:
            yield slide


def check_size(slide: Slide | DensitySlide) -> None:
    """Refuse what cannot be read in bounded memory, by its header.

    Raises:
        Fault: 422, if a picture, or a single tile or strip of a TIFF, has more than :data:`MOST_PX` pixels.
    """
    if slide.decoded_at_once > MOST_PX:
        raise Fault(422, "fault.too_large", name=slide.path.name, most=MOST_PX // 1_000_000)


def open_checked(path: Path) -> tuple[Slide, int]:
    """A slide whose size was looked at (:func:`check_size`), and the bytes that it holds while it is open."""
    slide = open_slide(path, header_only=True)
    try:
        check_size(slide)
        slide.load()
    except BaseException:
        slide.close()
        raise
    return slide, slide.size.width * slide.size.height * 3 if slide.format == "picture" else 1 << 20


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What is wrong with a file is told in a sentence without its path."""
    try:
        yield
    except Fault:
        raise
    except RestainError as fault:
        why = without_path(path, str(fault))
        raise Fault(422, "fault.unreadable", name=path.name, why=why) from None
    except Exception as fault:
        # Decoders meet hostile files with errors of every kind, and one file must not close the library.
        raise Fault(422, "fault.unreadable", name=path.name, why=type(fault).__name__) from None


def without_path(path: Path, sentence: str) -> str:
    """A sentence about a file that names it without the folders of this machine."""
    return sentence.replace(f"{path.parent}{os.sep}", "")


def _read_to_edge(slide: Slide, region: Region, mpp: float) -> Rgb:
    """As ``slide.read``; where sides are rounded up, the last row and column are repeated instead of white."""
    extent = slide.size_at(mpp)
    width = min(region.size.width, max(1, extent.width - region.origin.x))
    height = min(region.size.height, max(1, extent.height - region.origin.y))
    rgb = slide.read(Region(region.origin, Size(width, height)), mpp)
    missing = region.size.height - height, region.size.width - width
    if 1 in missing and max(missing) == 1:
        return np.pad(rgb, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    return rgb if missing == (0, 0) else slide.read(region, mpp)


def read_density(slide: DensitySlide, region: Region, reduction: int) -> NDArray[np.float32]:
    """A region, in px ``reduction`` times as large as level 0's, from the coarsest level that is fine enough."""
    level = 0
    while level + 1 < len(slide.levels) and 1 << (level + 1) <= reduction:
        level += 1
    step = reduction >> level
    wide = Region(
        Point(region.origin.x * step, region.origin.y * step),
        Size(region.size.width * step, region.size.height * step),
    )
    if wide.size.width * wide.size.height > MOST_PX:
        raise Fault(422, "fault.too_large", name=slide.path.name, most=MOST_PX // 1_000_000)
    od = slide.read(wide, level)
    return od.reshape(region.size.height, step, region.size.width, step).mean(axis=(1, 3), dtype=np.float32)


def dab_colours(od: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``(h, w, 4)`` RGBA of a density ``(h, w)`` in OD units; nothing below the faintest step."""
    table = np.array([(0, 0, 0, 0), *(colour for _, colour in DAB_COLOURS)], np.uint8)
    return table[np.digitize(od, [least for least, _ in DAB_COLOURS])]


def as_jpeg(rgb: Rgb, *, virtual: bool) -> bytes:
    """The picture as JPEG; of a virtual stain, with the notice as its comment."""
    more = {"comment": NOTICE.encode()} if virtual else {}
    return _encoded(PIL.Image.fromarray(rgb), "JPEG", quality=JPEG_QUALITY, **more)


def _encoded(picture: PIL.Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
