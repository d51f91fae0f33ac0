"""One door to whole slides: any file, any region, at any mpp."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import numpy as np

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import TIFF_MAGIC, Rgb
from restain.slides.resample import axis_taps, resample
from restain.slides.source import Level, Source

# Source pixels that one step of a reading may hold: a thumbnail of a slide without a pyramid stays in bounded memory.
_BLOCK = 1 << 22


class Slide:
    """An open slide; a context manager. All facts are of level 0 where not said otherwise."""

    def __init__(self, source: Source, mpp: float | None = None) -> None:
        self._source = source
        self._mpp = source.mpp if mpp is None else mpp
        self.path: Path = source.path
        self.format: str = source.format
        self.vendor: str | None = source.vendor
        self.objective: float | None = source.objective
        self.icc: bytes | None = source.icc
        self.levels: tuple[Level, ...] = source.levels
        self.size: Size = source.levels[0].size
        self.associated: dict[str, Size] = source.associated
        self.faults: list[str] = source.faults

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

    @property
    def is_picture(self) -> bool:
        """Whether it is one image of one level, not from a scanner, that can be held in memory."""
        scanned = self.vendor not in (None, "generic-tiff") or self.path.is_dir()
        return len(self.levels) == 1 and not scanned and self.size.width * self.size.height <= 64_000_000

    def taken_at(self, mpp: float) -> Slide:
        """The same open slide, taken as being at ``mpp`` micrometres per pixel."""
        return Slide(self._source, mpp)

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

    def describe(self) -> str:
        """What the file says of itself, a line for each fact; its ``faults`` stand apart."""
        lines = [
            ("format", self.format),
            ("vendor", self.vendor or "unknown"),
            ("size", _sides(self.size)),
            ("mpp", f"{self.mpp:g} µm per px" if self.has_mpp else "unknown; give it with --mpp"),
            ("objective", f"{self.objective:g}x" if self.objective else "unknown"),
            ("ICC profile", f"{len(self.icc)} bytes" if self.icc else "none"),
        ]
        for number, level in enumerate(self.levels):
            lines.append((f"level {number}", f"{_sides(level.size)}, {level.downsample:g} times smaller"))
        lines += [(name, f"{_sides(size)} (associated)") for name, size in self.associated.items()]
        return "\n".join(f"{name:<12} {value}" for name, value in lines)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _sides(size: Size) -> str:
    return f"{size.width} x {size.height} px"


def open_slide(path: str | Path, mpp: float | None = None, *, override_mpp: bool = False) -> Slide:
    """Open a slide of any kind, recognised by content.

    Args:
        path: a file, or the folder of a DICOM series or an OME-Zarr.
        mpp: micrometres per pixel of level 0, in place of what the file says.

    Raises:
        RestainError: if there is nothing at ``path``, no reader knows it, or it is truncated or damaged.
    """
    path = Path(path)
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise RestainError(f"{path}: --mpp must be a positive number of micrometres per pixel, not {mpp}.")
    return Slide(_source(path), mpp)


def _source(path: Path) -> Source:
    # Each reader is imported where it is needed: they take a second to load, and zarr is an extra.
    from restain.slides.source_openslide import OpenSlideSource, detect

    if path.is_dir():
        if any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup")):
            from restain.slides.source_zarr import ZarrSource

            return ZarrSource(path)
        from restain.slides.source_dicom import DicomSource

        return DicomSource(path)
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except FileNotFoundError:
        raise RestainError(f"{path} does not exist.") from None
    except OSError as fault:
        raise RestainError(f"{path} cannot be read ({fault.strerror}).") from None
    if not head:
        raise RestainError(f"{path} is empty (0 bytes).")
    vendor = detect(path)
    if head.startswith(TIFF_MAGIC) and vendor in (None, "generic-tiff"):
        from restain.slides.source_tiff import TiffSource

        return TiffSource(path)
    if vendor is not None:
        return OpenSlideSource(path, vendor)
    if head[128:132] == b"DICM":
        from restain.slides.source_dicom import DicomSource

        return DicomSource(path)
    from restain.slides.source_picture import PictureSource

    return PictureSource(path)
