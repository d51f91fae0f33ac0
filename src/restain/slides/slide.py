"""Opens images of all formats and reads any region at any mpp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from restain.errors import RestainError
from restain.geometry import Point, Region, Size, same_mpp
from restain.images import TIFF_MAGIC, Rgb, file_head, no_image, picture_kind
from restain.slides.find import ZARR_METADATA, check_companions, split_number
from restain.slides.orientation import upright
from restain.slides.resample import resample
from restain.slides.source import Level, SlideImage, Source, choose_image
from restain.slides.source_picture import PictureSource

# Source pixels decoded per step, so that a thumbnail of a slide without a pyramid needs bounded memory.
_BLOCK = 1 << 22

LARGEST_PICTURE = 64_000_000
"""Largest image of one level, in px, that is handled as a picture and stained in memory."""

_LARGEST_WHOLE = 400_000_000


class Slide:
    """An open slide; use it as a context manager. Facts are those of level 0."""

    def __init__(self, source: Source, mpp: float | None = None, refusals: Sequence[str] = ()) -> None:
        self._source = source
        self._mpp = source.mpp if mpp is None else mpp
        self.path: Path = source.path
        """File or folder, with ``#N`` if an image in it was chosen by its number."""
        self.format: str = source.format
        self.vendor: str | None = source.vendor
        self.objective: float | None = source.objective
        self.icc: bytes | None = source.icc
        self.levels: tuple[Level, ...] = source.levels
        self.size: Size = source.levels[0].size
        self.images: tuple[SlideImage, ...] = source.images
        """All images of slide size, by number, if the file holds several."""
        self.associated: dict[str, Size] = source.associated
        self.orientation: int = source.orientation
        """EXIF orientation of the file, 1 to 8; pixels are read upright."""
        self.faults: list[str] = [*source.faults, *refusals]

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture: one level, no scanner, at most 64 Mpx."""
        return (
            self._source.pictorial
            and self.vendor is None
            and len(self.levels) == 1
            and self.size.width * self.size.height <= LARGEST_PICTURE
        )

    @property
    def decoded_at_once(self) -> int:
        """Largest unit of decoding in px (picture, tile or strip); 0 if unknown."""
        return self._source.decoded_at_once

    def load(self) -> None:
        """Decode a picture, which can only be decoded whole. Raises RestainError if it cannot be decoded."""
        self._source.load()

    def read_all(self) -> Rgb:
        """All pixels of level 0, ``(H, W, 3)`` ``uint8``.

        Raises RestainError if pixels are missing or damaged, or there are more than 400 million.
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
        """Micrometres per pixel of level 0. Raises RestainError if neither the file nor the caller gave it."""
        if self._mpp is None:
            raise RestainError(f"{self.path} does not say its micrometres per pixel; give them with --mpp.")
        return self._mpp

    def taken_at(self, mpp: float) -> Slide:
        """The same open slide with another ``mpp`` of level 0."""
        other = Slide(self._source, mpp)
        other.path = self.path
        return other

    def size_at(self, mpp: float) -> Size:
        """Size of the whole slide at ``mpp``, in px. Raises RestainError if the slide's own mpp is unknown."""
        return self.size.to_um(self.mpp).to_px(mpp)

    def read(self, region: Region | tuple[int, int, int, int], mpp: float | None = None) -> Rgb:
        """Read a region at any scale as ``(h, w, 3)`` ``uint8``; pixels beyond the border are white (255).

        Reads the nearest finer level and averages over each pixel's area; interpolates linearly if level 0 is coarser.
        Two halves equal the whole, bit for bit. Thread-safe.

        Args:
            region: ``(x, y, width, height)`` in px of level 0, or a :class:`~restain.geometry.Region` in px at ``mpp``.
            mpp: µm per px of the result; None for that of level 0.

        Raises RestainError if ``mpp`` is given and the slide's own is unknown, or pixels cannot be decoded.

        Example:
            >>> with open_slide("field.png") as slide:  # 400 x 300 px at 0.5 µm per px
            ...     tile = slide.read((100, 50, 80, 60))
            ...     coarse = slide.read((100, 50, 80, 60), mpp=1.0)
            >>> tile.shape, coarse.shape
            ((60, 80, 3), (30, 40, 3))
        """
        own = 1.0 if mpp is None and self._mpp is None else self.mpp
        mpp = own if mpp is None else mpp
        if isinstance(region, tuple):
            x, y, width, height = (value * own / mpp for value in region)
            region = Region(Point(round(x), round(y)), Size(max(1, round(width)), max(1, round(height))))
        extent = self.size.to_um(own).to_px(mpp)
        out = np.full((region.size.height, region.size.width, 3), 255, np.uint8)
        left, top = max(region.origin.x, 0), max(region.origin.y, 0)
        right, bottom = min(region.right, extent.width), min(region.bottom, extent.height)
        if left >= right or top >= bottom:
            return out
        ratio = mpp / own
        level = max(
            (i for i, one in enumerate(self.levels) if i == 0 or one.downsample <= ratio * (1 + 1e-6)),
            key=lambda i: self.levels[i].downsample,
        )
        scale = ratio / self.levels[level].downsample
        side = max(1, int(math.sqrt(_BLOCK) / scale))
        read = partial(self._source.read, level)
        for y in range(top, bottom, side):
            for x in range(left, right, side):
                block = Region(Point(x, y), Size(min(side, right - x), min(side, bottom - y)))
                out[block.within(region)] = resample(read, block, scale, self.levels[level].size)
        return out

    def thumbnail(self, max_side: int) -> tuple[Rgb, float]:
        """The whole slide with its longer side at most ``max_side`` px, and its mpp.

        If the slide's mpp is unknown, the second value is in px of level 0 per px.
        """
        own = 1.0 if self._mpp is None else self._mpp
        ratio = max(1.0, max(self.size.width, self.size.height) / max_side)
        view = self.taken_at(own)
        return view.read(Region(Point(0, 0), view.size_at(own * ratio)), own * ratio), own * ratio

    def read_associated(self, name: str) -> Rgb:
        """Pixels ``(H, W, 3)`` ``uint8`` of one of the ``associated`` images.

        Raises RestainError if there is no such image, or its format does not give the pixels.
        """
        return self._source.read_associated(name)

    def describe(self) -> str:
        """Facts of the file, one per line, without its ``faults``."""
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
        text = _pixel(stated, self._source.mpp_y)
        return text if used == stated else f"{used:g} µm per px, given with --override-mpp; the file states {text}"

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
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
    header_only: bool = False,
) -> Slide:
    """Open an image, recognised by content: slide, TIFF, PNG, JPEG, WebP, DICOM or OME-Zarr folder.

    Args:
        path: a file or folder; ``#N`` at the end chooses one of several images, as ``restain info`` numbers them.
        mpp: micrometres per pixel of level 0, for an image that states none.
        override_mpp: use ``mpp`` even if the file states another.
        image: the number of the image, instead of ``#N``.
        inspect: open also unusable images (none of several chosen, pixels not square); ``faults`` then says why.
        header_only: for facts, not pixels: a picture is not decoded, and the levels of a TIFF are not compared.

    Raises RestainError if ``path`` is missing, damaged or of an unknown format, states another mpp than ``mpp``, or is
    not usable.

    Example:
        >>> with open_slide("field.png") as slide:
        ...     slide.size, slide.mpp
        (Size(width=400, height=300), 0.5)
    """
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise RestainError(f"{path}: --mpp must be a positive number of micrometres per pixel, not {mpp}.")
    file, number = split_number(path)
    if image is not None and number not in (None, image):
        raise RestainError(f"{path} names image {number}, but image {image} was chosen.")
    number = number if image is None else image
    source = upright(_source(file, number, header_only))
    try:
        refusals = source.refusals + _scale_refusals(source, mpp, override_mpp)
        if refusals and not inspect:
            raise RestainError(refusals[0])
        slide = Slide(source, mpp if source.mpp is None or override_mpp else None, refusals)
        if number is not None:
            slide.path = file.with_name(f"{file.name}#{number}")
        if not header_only:
            slide.load()
        return slide
    except BaseException:
        source.close()
        raise


def _scale_refusals(source: Source, mpp: float | None, override_mpp: bool) -> list[str]:
    """Why the scale that a file states cannot be used: its pixels are not square.

    Raises RestainError if the file states another mpp than ``mpp``.
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


def read_image(path: str | Path) -> Rgb:
    """All pixels of an image's level 0, upright, as ``(H, W, 3)`` ``uint8`` RGB.

    Raises RestainError as :func:`open_slide` and :meth:`Slide.read_all`.

    Example:
        >>> read_image("field.png").shape
        (300, 400, 3)
    """
    with open_slide(path) as slide:
        return slide.read_all()


def _source(path: Path, image: int | None, header_only: bool) -> Source:
    # Imported here because they take a second to load, and zarr is an extra.
    if path.is_dir():
        if any((path / name).is_file() for name in ZARR_METADATA):
            from restain.slides.source_zarr import ZarrSource

            return ZarrSource(path, image)
        return _dicom(path, image)
    head = file_head(path)
    check_companions(path)
    if picture_kind(head) is not None:
        return PictureSource(path, image)
    from restain.slides.source_openslide import OpenSlideSource, detect

    vendor = detect(path)
    if head.startswith(TIFF_MAGIC) and vendor in (None, "generic-tiff"):
        from restain.slides.source_tiff import TiffSource

        return TiffSource(path, image, header_only=header_only)
    if head[128:132] == b"DICM":
        return _dicom(path, image)
    if vendor is not None:
        choose_image(path, [SlideImage(vendor, Size(1, 1))], image)
        return OpenSlideSource(path, vendor)
    raise no_image(path)


def _dicom(path: Path, image: int | None) -> Source:
    from restain.slides.source_dicom import DicomSource

    return DicomSource(path, image)
