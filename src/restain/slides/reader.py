"""One door to whole slides: any file, any region, at any mpp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from restain.errors import RestainError
from restain.geometry import Point, Region, Size, same_mpp
from restain.images import TIFF_MAGIC, Rgb, file_head, no_image, picture_kind
from restain.slides.companions import check_companions
from restain.slides.find import ZARR_METADATA, split_number
from restain.slides.orientation import upright
from restain.slides.resample import axis_taps, resample
from restain.slides.source import Level, SlideImage, Source, choose_image
from restain.slides.source_picture import PictureSource

# Source pixels that one step of a reading may hold: a thumbnail of a slide without a pyramid stays in bounded memory.
_BLOCK = 1 << 22

LARGEST_PICTURE = 64_000_000
"""An image of one level and at most as many px is a picture; a result of more is not held in memory."""

_LARGEST_WHOLE = 400_000_000


class Slide:
    """An open slide; a context manager. All facts are of level 0 where not said otherwise."""

    def __init__(self, source: Source, mpp: float | None = None, refusals: Sequence[str] = ()) -> None:
        self._source = source
        self._mpp = source.mpp if mpp is None else mpp
        self.path: Path = source.path
        """The file or folder, with ``#N`` where the number of an image in it was given."""
        self.format: str = source.format
        self.vendor: str | None = source.vendor
        self.objective: float | None = source.objective
        self.icc: bytes | None = source.icc
        self.levels: tuple[Level, ...] = source.levels
        self.size: Size = source.levels[0].size
        self.images: tuple[SlideImage, ...] = source.images
        """Where the file holds several images of slide size: all of them, in the order of their numbers."""
        self.associated: dict[str, Size] = source.associated
        self.orientation: int = source.orientation
        """As EXIF counts it, 1 to 8: how the file says that its pixels are to be turned, which reading has done."""
        self.faults: list[str] = [*source.faults, *refusals]

    @property
    def is_picture(self) -> bool:
        """Whether it is handled as a picture, not as a slide: one level, not from a scanner, at most 64 Mpx."""
        return (
            self._source.pictorial
            and self.vendor is None
            and len(self.levels) == 1
            and self.size.width * self.size.height <= LARGEST_PICTURE
        )

    @property
    def decoded_at_once(self) -> int:
        """How many px have to be decoded together, at most: a whole picture, a TIFF's tile or strip; 0 where unknown."""
        return self._source.decoded_at_once

    def load(self) -> None:
        """Decode now what can only be decoded whole (a picture).

        Raises:
            RestainError: if it cannot be decoded.
        """
        self._source.load()

    def whole(self) -> Rgb:
        """All pixels of level 0, ``(H, W, 3)`` ``uint8``; the mpp need not be known.

        Raises:
            RestainError: if pixels are missing or cannot be decoded, or there are more than 400 million.
        """
        if self.size.width * self.size.height > _LARGEST_WHOLE:
            raise RestainError(
                f"{self.path} is {_sides(self.size)}, too large to be read whole; it is a slide, not a picture."
            )
        if lost := [one for one in self.faults if "truncated" in one]:
            raise RestainError(lost[0])
        return self._source.read(0, Region(Point(0, 0), self.size))

    @property
    def has_mpp(self) -> bool:
        return self._mpp is not None

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of level 0.

        Raises:
            RestainError: if the file does not say and none was given.
        """
        if self._mpp is None:
            raise RestainError(f"{self.path} does not say its micrometres per pixel; give them with --mpp.")
        return self._mpp

    def taken_at(self, mpp: float) -> Slide:
        """The same open slide, taken as being at ``mpp`` micrometres per pixel."""
        other = Slide(self._source, mpp)
        other.path = self.path
        return other

    def size_at(self, mpp: float) -> Size:
        """The size of the whole slide resampled to ``mpp``, in px.

        Raises:
            RestainError: if the slide's own mpp is unknown.
        """
        return self.size.to_um(self.mpp).to_px(mpp)

    def read(self, region: Region, mpp: float) -> Rgb:
        """A region, in px of the slide at ``mpp``, as ``(h, w, 3)`` ``uint8``; white (255) beyond the border.

        Read from the nearest finer level and averaged over each pixel's area (linear interpolation where even level 0
        is coarser). Two halves are the whole, bit for bit. May be called from several threads at once.

        Raises:
            RestainError: if the mpp is unknown or the pixels cannot be decoded.
        """
        extent = self.size_at(mpp)
        out = np.full((region.size.height, region.size.width, 3), 255, np.uint8)
        left, top = max(region.origin.x, 0), max(region.origin.y, 0)
        right, bottom = min(region.right, extent.width), min(region.bottom, extent.height)
        if left >= right or top >= bottom:
            return out
        ratio = mpp / self.mpp
        level = max(
            (i for i, one in enumerate(self.levels) if i == 0 or one.downsample <= ratio * (1 + 1e-6)),
            key=lambda i: self.levels[i].downsample,
        )
        scale = ratio / self.levels[level].downsample
        side = max(1, int(math.sqrt(_BLOCK) / scale))
        for y in range(top, bottom, side):
            for x in range(left, right, side):
                size = Size(min(side, right - x), min(side, bottom - y))
                at_x, at_y = x - region.origin.x, y - region.origin.y
                out[at_y : at_y + size.height, at_x : at_x + size.width] = self._block(x, y, size, level, scale)
        return out

    def _block(self, x: int, y: int, size: Size, level: int, scale: float) -> Rgb:
        of = self.levels[level].size
        rows = axis_taps(y, size.height, scale, of.height)
        columns = axis_taps(x, size.width, scale, of.width)
        top, left = int(rows.index.min()), int(columns.index.min())
        needed = Size(int(columns.index.max()) + 1 - left, int(rows.index.max()) + 1 - top)
        pixels = self._source.read(level, Region(Point(left, top), needed))
        plain = rows.index.shape[1] == columns.index.shape[1] == 1 and pixels.shape[:2] == (size.height, size.width)
        return pixels if plain else resample(pixels, (top, left), rows, columns)

    def thumbnail(self, max_side: int) -> tuple[Rgb, float]:
        """The whole slide with its longer side at most ``max_side`` px, and the mpp of that picture.

        Without a known mpp the second value is in level-0 pixels per pixel.
        """
        own = 1.0 if self._mpp is None else self._mpp
        ratio = max(1.0, max(self.size.width, self.size.height) / max_side)
        view = self.taken_at(own)
        return view.read(Region(Point(0, 0), view.size_at(own * ratio)), own * ratio), own * ratio

    def read_associated(self, name: str) -> Rgb:
        """Pixels ``(H, W, 3)`` ``uint8`` of one of the ``associated`` images.

        Raises:
            RestainError: if there is no such image, or its format does not give the pixels.
        """
        return self._source.read_associated(name)

    def describe(self) -> str:
        """What the file says of itself, a line for each fact; its ``faults`` stand apart."""
        lines = [
            ("format", self.format),
            ("vendor", self.vendor or "unknown"),
            ("size", _sides(self.size)),
            ("mpp", self._describe_mpp()),
            ("objective", f"{self.objective:g}x" if self.objective else "unknown"),
            ("ICC profile", f"{len(self.icc)} bytes" if self.icc else "none"),
        ]
        if self.orientation != 1:
            lines.append(("orientation", f"{self.orientation} in the file; turned on reading"))
        for number, level in enumerate(self.levels):
            lines.append((f"level {number}", f"{_sides(level.size)}, {level.downsample:g} times smaller"))
        for number, image in enumerate(self.images):
            scale = "" if image.mpp is None else f", {_pixel(*image.mpp)}"
            lines.append((f"image #{number}", f"{image.name}, {_sides(image.size)}{scale}"))
        lines += [(name, f"{_sides(size)} (associated)") for name, size in self.associated.items()]
        return "\n".join(f"{name:<12} {value}" for name, value in lines)

    def _describe_mpp(self) -> str:
        stated, used = self._source.mpp, self._mpp
        if used is None:
            return "unknown; give it with --mpp"
        if stated is None:
            return f"{used:g} µm per px, given with --mpp"
        said = _pixel(stated, self._source.mpp_y)
        return said if used == stated else f"{used:g} µm per px, given with --override-mpp; the file states {said}"

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _sides(size: Size) -> str:
    return f"{size.width} x {size.height} px"


def _pixel(width: float, height: float | None) -> str:
    if height is None or same_mpp(width, height):
        return f"{width:g} µm per px"
    return f"{width:g} by {height:g} µm per px (not square)"


def open_slide(
    path: str | Path,
    mpp: float | None = None,
    *,
    override_mpp: bool = False,
    image: int | None = None,
    inspect: bool = False,
) -> Slide:
    """Open an image of any kind, recognised by content: slide, TIFF, PNG, JPEG, WebP, DICOM or OME-Zarr folder.

    Args:
        path: a file or folder; ``#N`` at its end is the number of one of several images in it, as ``restain info`` lists them.
        mpp: micrometres per pixel of level 0, for an image that states none.
        override_mpp: take ``mpp`` also where the file states another.
        image: the number of the image, in place of ``#N``.
        inspect: open also what cannot be used as it is (none of several images is chosen, pixels are not square); the
            reasons are then among the slide's ``faults``.

    Raises:
        RestainError: if there is nothing at ``path``, no reader knows it, it is truncated or damaged, it states another mpp
            than ``mpp``, or it cannot be used as it is.

    Example:
        >>> with open_slide("three-fields.tif#1", mpp=0.5) as slide:  # doctest: +SKIP
        ...     slide.read(Region(Point(0, 0), Size(512, 512)), mpp=1.0)
    """
    slide = open_header(path, mpp, override_mpp=override_mpp, image=image, inspect=inspect)
    try:
        slide.load()
    except BaseException:
        slide.close()
        raise
    return slide


def open_header(
    path: str | Path,
    mpp: float | None = None,
    *,
    override_mpp: bool = False,
    image: int | None = None,
    inspect: bool = False,
) -> Slide:
    """As :func:`open_slide`, but a picture's pixels are decoded when they are first read: for its facts alone."""
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise RestainError(f"{path}: --mpp must be a positive number of micrometres per pixel, not {mpp}.")
    file, number = split_number(path)
    if image is not None and number not in (None, image):
        raise RestainError(f"{path} names image {number}, but image {image} is asked for.")
    number = number if image is None else image
    source = upright(_source(file, number))
    try:
        refusals = source.refusals + _scale_refusals(source, mpp, override_mpp)
        if refusals and not inspect:
            raise RestainError(refusals[0])
        slide = Slide(source, mpp if source.mpp is None or override_mpp else None, refusals)
        if number is not None:
            slide.path = file.with_name(f"{file.name}#{number}")
        return slide
    except BaseException:
        source.close()
        raise


def _scale_refusals(source: Source, mpp: float | None, override_mpp: bool) -> list[str]:
    """Why the scale that a file states cannot be used: another one is given, or its pixels are not square.

    Raises:
        RestainError: if the file states another mpp than ``mpp``.
    """
    stated, stated_y = source.mpp, source.mpp_y
    if stated is None or (mpp is not None and override_mpp):
        return []
    if mpp is not None and not same_mpp(stated, mpp):
        raise RestainError(
            f"{source.path} states {stated:.6g} µm per px, but --mpp gives {mpp:.6g}; leave --mpp out, or add"
            " --override-mpp if the file is wrong."
        )
    if stated_y is None or same_mpp(stated, stated_y):
        return []
    return [
        f"{source.path} states pixels that are not square, {stated:.6g} by {stated_y:.6g} µm; restain reads square ones."
        " Resample it, or give the true mpp with --mpp and --override-mpp if the file is wrong."
    ]


def read_image(
    path: str | Path, mpp: float | None = None, *, override_mpp: bool = False, image: int | None = None
) -> Rgb:
    """The whole of an image's level 0 as ``(H, W, 3)`` ``uint8`` RGB, upright, whatever kind of file it is in.

    Args:
        path: as :func:`open_slide` takes it.
        mpp: as :func:`open_slide` takes it; checked against the file.
        override_mpp: as :func:`open_slide` takes it.
        image: as :func:`open_slide` takes it.

    Raises:
        RestainError: as :func:`open_slide`; if pixels are missing or cannot be decoded, or there are more than 400 million.
    """
    with open_slide(path, mpp, override_mpp=override_mpp, image=image) as slide:
        return slide.whole()


def _source(path: Path, image: int | None) -> Source:
    # Each reader is imported where it is needed: they take a second to load, and zarr is an extra.
    if path.is_dir():
        if any((path / name).is_file() for name in ZARR_METADATA):
            from restain.slides.source_zarr import ZarrSource

            return ZarrSource(path, image)
        from restain.slides.source_dicom import DicomSource

        return DicomSource(path, image)
    head = file_head(path)
    check_companions(path)
    if picture_kind(head) is not None:
        return PictureSource(path, image)
    from restain.slides.source_openslide import OpenSlideSource, detect

    vendor = detect(path)
    if head.startswith(TIFF_MAGIC) and vendor in (None, "generic-tiff"):
        from restain.slides.source_tiff import TiffSource

        return TiffSource(path, image)
    if head[128:132] == b"DICM":
        from restain.slides.source_dicom import DicomSource

        return DicomSource(path, image)
    if vendor is not None:
        choose_image(path, [SlideImage(vendor, Size(1, 1))], image)
        return OpenSlideSource(path, vendor)
    raise no_image(path)
