"""Pixels for the browser: tiles, DAB overlays, thumbnails and labels, read from the slide files."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from restain.registration import read_transform, warp_region
from restain.registration.transform import Transform
from restain.slides import DensitySlide, Slide, open_slide
from restain.web.caches import ByteCache, FactCache, HandleCache
from restain.web.errors import RequestError
from restain.web.grid import Grid
from restain.web.library import Library
from restain.web.links import Image
from restain.web.provenance import ImageKind, Registered

MAX_PX = 64_000_000
"""Largest picture, or single tile of a TIFF, that is decoded."""
THUMBNAIL, LABEL = 320, 1600
"""Longer sides in px."""
JPEG_QUALITY = 85
DAB_COLOURS = (
    (FAINT_OD, (86, 180, 233, 255)),
    (WEAK_OD, (240, 228, 66, 255)),
    (MODERATE_OD, (230, 120, 0, 255)),
    (INTENSE_OD, (170, 0, 40, 255)),
)
"""Lowest optical density and RGBA of each step; the steps are those of the HER2 rule, the same on every slide."""


@dataclass(frozen=True)
class ImageFacts:
    """Facts of an image; ``mpp`` is None if the file does not state it, and lengths are then in px."""

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
    """Reads the images of a library, a few at a time to bound memory.

    All methods raise RequestError 404 if there is no such tile or image, and 422 if pixels cannot be read.
    """

    def __init__(self, library: Library, state: Path) -> None:
        self.library = library
        self._thumbnails = state / "thumbnails"
        self._slides: HandleCache[Slide] = HandleCache()
        self._densities: HandleCache[DensitySlide] = HandleCache()
        self._cache = ByteCache()
        self._slots = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))
        self._facts: FactCache[ImageFacts] = FactCache(ImageFacts, state / "facts.json")
        self._refused: dict[str, tuple[str, RequestError]] = {}
        self._transforms: dict[tuple[Path, int], Transform] = {}

    def facts(self, image: Image) -> ImageFacts:
        """The facts of an image, from its header; read once for each file and stamp."""
        stamp, refused = self._refused.get(image.id, ("", None))
        if refused is not None and stamp == image.stamp:
            raise refused
        try:
            return self._facts.get(image.id, image.stamp, lambda: self._read_facts(image))
        except RequestError as refusal:
            if refusal.status != 404:
                self._refused[image.id] = image.stamp, refusal
            raise

    def _read_facts(self, image: Image) -> ImageFacts:
        if image.kind is ImageKind.DENSITY:
            raise RequestError(404, "error.no_image")
        with readable(image.path), open_slide(image.path, header_only=True) as slide:
            check_size(slide)
            if slide.format == "picture":
                # Only its pixels show whether it is whole.
                slide.load()
            return ImageFacts(
                slide.size,
                slide.mpp if slide.has_mpp else None,
                slide.format,
                slide.objective,
                tuple(without_folder(image.path, one) for one in slide.faults),
                tuple(slide.associated),
            )

    def tile(self, image: Image, level: int, column: int, row: int, fixed: Image | None = None) -> bytes:
        """A tile as JPEG; with ``fixed``, of the image aligned with that one, on the grid of that one."""
        key = (image.id, image.stamp, level, column, row, fixed and (fixed.id, fixed.stamp))
        if (data := self._cache.get(key)) is None:
            grid = self.facts(fixed or image).grid
            rgb = self.region(image, grid.region(level, column, row), grid.mpp * grid.reduction(level), fixed)
            data = encode_jpeg(rgb, virtual=image.kind is ImageKind.VIRTUAL)
            self._cache.put(key, data)
        return data

    def region(self, image: Image, region: Region, mpp: float, fixed: Image | None = None) -> Rgb:
        """Pixels of a region at ``mpp`` (px of level 0 per px without a known mpp), aligned with ``fixed`` if given."""
        with self._open(image) as slide, self._slots:
            if fixed is None:
                return _read_to_edge(slide if slide.has_mpp else slide.taken_at(1.0), region, mpp)
            registered = self._registered(image, fixed)
            if registered is not None:
                return warp_region(slide, self._transform(registered), region, mpp)
            with self._open(fixed) as other:
                return _read_to_edge(slide.taken_at(1.0), region, mpp / (other.mpp if other.has_mpp else 1.0))

    def density(self, image: Image, level: int, column: int, row: int) -> bytes:
        """A tile of a DAB density as PNG: fixed colours, transparent below the lowest step."""
        key = (image.id, image.stamp, "density", level, column, row)
        if (data := self._cache.get(key)) is None:
            with self.open_density(image) as slide, self._slots:
                grid = Grid(slide.size, slide.mpp)
                od = read_density(slide, grid.region(level, column, row), grid.reduction(level))
            data = _encode(PIL.Image.fromarray(dab_colours(od)), "PNG", compress_level=3)
            self._cache.put(key, data)
        return data

    def density_grid(self, image: Image) -> Grid:
        with self.open_density(image) as slide:
            return Grid(slide.size, slide.mpp)

    def thumbnail(self, image: Image) -> bytes:
        """The whole image as a small JPEG, kept in the state folder."""
        file = self._thumbnails / f"{image.id}-{image.stamp}.jpg"
        with suppress(OSError):
            return file.read_bytes()
        with self._open(image) as slide, self._slots:
            rgb, _ = slide.thumbnail(THUMBNAIL)
        data = encode_jpeg(rgb, virtual=image.kind is ImageKind.VIRTUAL)
        # A full disk costs time, not the picture.
        with suppress(OSError, RestainError):
            make_folder(self._thumbnails)
            for old in self._thumbnails.glob(f"{image.id}-*.jpg"):
                old.unlink(missing_ok=True)
            with whole_file(file) as partial:
                partial.write_bytes(data)
        return data

    def label(self, image: Image, name: str) -> bytes:
        """An associated image of a slide as JPEG, its longer side at most :data:`LABEL` px."""
        with self._open(image) as slide, self._slots:
            if name not in slide.associated:
                raise RequestError(404, "error.no_label")
            size = slide.associated[name]
            if size.width * size.height > MAX_PX:
                raise RequestError(422, "error.too_large", name=image.path.name, most=MAX_PX // 1_000_000)
            try:
                picture = PIL.Image.fromarray(slide.read_associated(name))
            except RestainError:
                raise RequestError(404, "error.no_label") from None
        picture.thumbnail((LABEL, LABEL))
        return encode_jpeg(np.asarray(picture), virtual=False)

    def close(self) -> None:
        self._slides.close()
        self._densities.close()
        self._facts.save({image.id for image in self.library.images()})

    def _registered(self, image: Image, fixed: Image) -> Registered | None:
        for one in self.library.related(fixed).chemical:
            if one.image.id == image.id:
                return one.registration
        raise RequestError(404, "error.not_registered")

    def _transform(self, registered: Registered) -> Transform:
        files = [one for one in registered.folder.glob("*.*") if one.suffix in (".json", ".npy")]
        if not all(self.library.contains(one) for one in files):
            raise RequestError(404, "error.not_registered")
        try:
            key = registered.folder, (registered.folder / "transform.json").stat().st_mtime_ns
            if key not in self._transforms:
                if len(self._transforms) > 32:
                    self._transforms.clear()
                self._transforms[key] = read_transform(registered.folder)
            return self._transforms[key]
        except (RestainError, OSError) as error:
            raise RequestError(422, "error.unreadable", name=registered.folder.name, why=str(error)) from None

    @contextmanager
    def _open(self, image: Image) -> Iterator[Slide]:
        if image.kind is ImageKind.DENSITY:
            raise RequestError(404, "error.no_image")
        key = f"{image.id}-{image.stamp}"
        with readable(image.path), self._slides.lease(key, lambda: open_bounded(image.path)) as slide:
            yield slide

    @contextmanager
    def open_density(self, image: Image) -> Iterator[DensitySlide]:
        if image.kind is not ImageKind.DENSITY:
            raise RequestError(404, "error.no_image")

        def opener() -> tuple[DensitySlide, int]:
            slide = DensitySlide(image.path)
            check_size(slide)
            return slide, 1 << 20

        with readable(image.path), self._densities.lease(f"{image.id}-{image.stamp}", opener) as slide:
            yield slide


def check_size(slide: Slide | DensitySlide) -> None:
    """Raise RequestError 422 if a picture, or a single tile or strip of a TIFF, has more than :data:`MAX_PX` px."""
    if slide.decoded_at_once > MAX_PX:
        raise RequestError(422, "error.too_large", name=slide.path.name, most=MAX_PX // 1_000_000)


def open_bounded(path: Path) -> tuple[Slide, int]:
    """A slide that passed :func:`check_size`, and the bytes that it holds while it is open."""
    with open_slide(path, header_only=True) as header:
        check_size(header)
    slide = open_slide(path)
    return slide, slide.size.width * slide.size.height * 3 if slide.format == "picture" else 1 << 20


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn any failure to read a file into RequestError 422, with a sentence without the path."""
    try:
        yield
    except RequestError:
        raise
    except RestainError as error:
        why = without_folder(path, str(error))
        raise RequestError(422, "error.unreadable", name=path.name, why=why) from None
    except Exception as error:
        # Decoders fail on hostile files in many ways; one file must not break the library.
        raise RequestError(422, "error.unreadable", name=path.name, why=type(error).__name__) from None


def without_folder(path: Path, sentence: str) -> str:
    """The sentence with the file named without the folders of this machine."""
    return sentence.replace(f"{path.parent}{os.sep}", "")


def _read_to_edge(slide: Slide, region: Region, mpp: float) -> Rgb:
    """As ``slide.read``, but where sides are rounded up, the last row and column are repeated instead of white."""
    extent = slide.size_at(mpp)
    width = min(region.size.width, max(1, extent.width - region.origin.x))
    height = min(region.size.height, max(1, extent.height - region.origin.y))
    missing = region.size.height - height, region.size.width - width
    if max(missing) != 1:
        return slide.read(region, mpp)
    rgb = slide.read(Region(region.origin, Size(width, height)), mpp)
    return np.pad(rgb, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def read_density(slide: DensitySlide, region: Region, reduction: int) -> NDArray[np.float32]:
    """OD of a region, in px ``reduction`` times as large as level 0's, from the coarsest level that is fine enough."""
    level = min(reduction.bit_length() - 1, len(slide.levels) - 1)
    step = reduction >> level
    fine = Region(
        Point(region.origin.x * step, region.origin.y * step),
        Size(region.size.width * step, region.size.height * step),
    )
    if fine.size.width * fine.size.height > MAX_PX:
        raise RequestError(422, "error.too_large", name=slide.path.name, most=MAX_PX // 1_000_000)
    od = slide.read(fine, level)
    return od.reshape(region.size.height, step, region.size.width, step).mean(axis=(1, 3), dtype=np.float32)


def dab_colours(od: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``(h, w, 4)`` RGBA of a density ``(h, w)`` in OD units; transparent below the lowest step."""
    table = np.array([(0, 0, 0, 0), *(colour for _, colour in DAB_COLOURS)], np.uint8)
    return table[np.digitize(od, [lowest for lowest, _ in DAB_COLOURS])]


def encode_jpeg(rgb: Rgb, *, virtual: bool) -> bytes:
    """The picture as JPEG; a virtual stain carries the notice as its comment."""
    options = {"comment": NOTICE.encode()} if virtual else {}
    return _encode(PIL.Image.fromarray(rgb), "JPEG", quality=JPEG_QUALITY, **options)


def _encode(picture: PIL.Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
