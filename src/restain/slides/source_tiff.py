"""OME-TIFF and plain TIFF, tiled or in strips, through tifffile; pyramids in SubIFDs or as smaller pages."""

from __future__ import annotations

import itertools
import math
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.images import Rgb, check_mode, tiff_form
from restain.slides.orientation import is_turned, upright_size
from restain.slides.same_picture import same_picture
from restain.slides.source import SlideImage, Source, choose_image, damaged, levels_of, paste
from restain.slides.tiff_images import Plane, TiffImage, keep_true_levels, of_slide_size, size_of, tiff_images


class TiffTiles:
    """An open TIFF whose tiles (or strips) are read and decoded one by one, from any thread; closed after a fault.

    Raises RestainError if the file cannot be opened, and where the block of :meth:`directory` fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self.tiff = tifffile.TiffFile(path)
        except FileNotFoundError:
            raise RestainError(f"{path} does not exist.") from None
        except Exception:
            raise damaged(path, "its TIFF directory cannot be read") from None

    @contextmanager
    def directory(self) -> Iterator[tifffile.TiffFile]:
        """The file, for a block that reads its directory."""
        try:
            yield self.tiff
        except BaseException as fault:
            self.tiff.close()
            if isinstance(fault, RestainError) or not isinstance(fault, Exception):
                raise
            raise damaged(self.path, "its TIFF directory cannot be read") from None

    def read(self, parts: Sequence[tuple[Any, int]], region: Region, out: NDArray[Any]) -> None:
        """Put the pixels of a region inside an image into ``out`` ``(h, w, channels)``.

        ``parts`` are a page with all channels, or one for each, and the number of the page's first tile that holds them.
        """
        page = parts[0][0]
        height, width = _piece(page)
        across = -(-page.imagewidth // width)
        for row in range(region.origin.y // height, -(-region.bottom // height)):
            for column in range(region.origin.x // width, -(-region.right // width)):
                for channel, (one, first) in enumerate(parts):
                    piece = self._tile(one, first + row * across + column)
                    if piece is not None:
                        to = out if len(parts) == 1 else out[..., channel : channel + 1]
                        paste(to, region, piece, column * width, row * height)

    def _tile(self, page: Any, index: int) -> NDArray[Any] | None:
        """A decoded tile ``(h, w, samples)``, or None for one that the file leaves out (glass)."""
        at, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        with self._lock:
            handle = self.tiff.filehandle
            handle.seek(at)
            data = handle.read(count)
        if len(data) < count:
            raise RestainError(f"{self.path} is truncated: a tile's data lie beyond its end.")
        try:
            return np.asarray(page.decode(data, index, jpegtables=page.jpegtables)[0][0])
        except Exception:
            raise damaged(self.path, f"tile {index} cannot be decoded") from None


class TiffSource(Source):
    """One image of a TIFF; with ``header_only`` its levels are those that the file lists, not compared with each other."""

    def __init__(self, path: Path, image: int | None = None, *, header_only: bool = False) -> None:
        self._tiles = TiffTiles(path)
        with self._tiles.directory() as tiff:
            self._open(path, tiff, image, header_only)

    def _open(self, path: Path, tiff: tifffile.TiffFile, image: int | None, header_only: bool) -> None:
        images = tiff_images(tiff, self._same)
        large, small = of_slide_size(images)
        listed = tuple(_described(one) for one in large)
        number, refusals = choose_image(path, listed, image)
        chosen = large[number]
        pages = [page for plane in chosen.levels for page in plane]
        if any(page.parent is not tiff for page in pages):
            raise RestainError(f"{path} keeps its pixels in other files; restain reads an OME-TIFF that is one file.")
        if all(one.form for one in large) and len(large) > 1:
            raise RestainError(f"{path} holds {len(large)} images, none of 8-bit RGB; the first is {large[0].form}.")
        faults = broken_chain(path) + lost_tiles(path, pages, tiff.filehandle.size, strict=True)
        if not refusals:
            if chosen.form and faults:
                # What a cut directory seems to say is not what the file holds.
                raise RestainError(faults[0])
            check_mode(path, chosen.form)
        for plane in chosen.levels:
            if not (size_of(plane).width and size_of(plane).height):
                raise damaged(path, "a directory gives no width or height")
        if not header_only:
            keep_true_levels(chosen, self._same)
        self._levels = chosen.levels
        mpp, mpp_y = chosen.scale or (None, None)
        super().__init__(
            path,
            "OME-TIFF" if tiff.is_ome else "TIFF",
            levels_of([size_of(plane) for plane in self._levels]),
            mpp=mpp,
            mpp_y=mpp_y,
            icc=self._levels[0][0].iccprofile,
            associated=_named(small, chosen.rejected),
            images=listed if len(listed) > 1 else (),
            faults=faults,
            refusals=refusals,
            orientation=chosen.orientation,
            decoded_at_once=max(math.prod(_piece(page)) for page in pages),
            pictorial=True,
        )

    def read(self, level: int, region: Region) -> Rgb:
        return self._read(self._levels[level], region)

    def _read(self, plane: Plane, region: Region) -> Rgb:
        page = plane[0]
        out = np.full((region.size.height, region.size.width, 3), 255, np.uint8)
        # One page with all colours in each piece, or with a set of pieces for each colour, or a page for each.
        parts = [(one, 0) for one in plane]
        if len(plane) == 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            height, width = _piece(page)
            count = -(-page.imagewidth // width) * -(-page.imagelength // height)
            parts = [(page, colour * count) for colour in range(3)]
        self._tiles.read(parts, region, out)
        return out

    def _same(self, fine: Plane, coarse: Plane) -> bool:
        if tiff_form(fine[0]) and len(fine) == 1:
            return True
        try:
            return same_picture(size_of(fine), partial(self._read, fine), size_of(coarse), partial(self._read, coarse))
        except RestainError:
            # Damage is reported on reading; the directory says that this is a level.
            return True

    def close(self) -> None:
        self._tiles.tiff.close()


def broken_chain(path: Path) -> list[str]:
    """The fault of a TIFF whose chain of directories does not come to its end."""
    return [] if _chain_ends(path) else [f"{path} is truncated or damaged: its chain of TIFF directories breaks off."]


def lost_tiles(path: Path, pages: Sequence[Any], end: int, *, strict: bool) -> list[str]:
    """The fault of a TIFF of ``end`` bytes whose tiles or strips lie beyond it.

    Raises ValueError if ``strict`` and a page has more offsets than byte counts, or the other way round.
    """
    ends = [at + count for page in pages for at, count in zip(page.dataoffsets, page.databytecounts, strict=strict)]
    lost = sum(one > end for one in ends)
    return [f"{path} is truncated: {lost} of {len(ends)} tiles lie beyond its end."] if lost else []


def _chain_ends(path: Path) -> bool:
    """Whether a TIFF's chain of directories comes to its end; tifffile silently ignores what follows a break."""
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        count_form, step, offset_form = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
        (at,) = struct.unpack_from(offset_form, head, 8 if big else 4)
        seen: set[int] = set()
        while at:
            if at >= end or at in seen:
                return False
            seen.add(at)
            file.seek(at)
            count = file.read(struct.calcsize(count_form))
            if len(count) < struct.calcsize(count_form):
                return False
            file.seek(struct.unpack(count_form, count)[0] * step, 1)
            following = file.read(struct.calcsize(offset_form))
            if len(following) < struct.calcsize(offset_form):
                return False
            (at,) = struct.unpack(offset_form, following)
    return True


def _piece(page: Any) -> tuple[int, int]:
    """Rows and columns of a page's tiles or strips."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _described(image: TiffImage) -> SlideImage:
    scale = image.scale[::-1] if image.scale and is_turned(image.orientation) else image.scale
    return SlideImage(image.name, upright_size(image.size, image.orientation), scale)


def _named(small: Sequence[TiffImage], rejected: Sequence[Plane]) -> dict[str, Size]:
    """Sizes of images that are not the slide, each under a name of its own."""
    found: dict[str, Size] = {}
    pairs = [(one.name, one.size) for one in small] + [("no level", size_of(plane)) for plane in rejected]
    for name, size in pairs:
        again = next(n for n in itertools.count(1) if (f"{name} {n}" if n > 1 else name) not in found)
        found[f"{name} {again}" if again > 1 else name] = size
    return found
