"""OME-TIFF and plain TIFF, tiled or in strips, through tifffile; pyramids in SubIFDs or as reduced pages."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.images import Rgb, check_mode, image_mpp, tiff_form
from restain.slides.source import Source, damaged, levels_of, paste

_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


class TiffSource(Source):
    """A TIFF whose tiles (or strips) are read and decoded one by one, from any thread."""

    def __init__(self, path: Path) -> None:
        try:
            self._tiff = tifffile.TiffFile(path)
        except Exception:
            raise damaged(path, "its TIFF directory cannot be read") from None
        try:
            self._pages = pyramid_pages(self._tiff)
            form = "OME-TIFF" if self._tiff.is_ome else "TIFF"
            xml = self._tiff.ome_metadata if self._tiff.is_ome else None
            super().__init__(
                path,
                form,
                levels_of([Size(int(page.imagewidth), int(page.imagelength)) for page in self._pages]),
                mpp=(_ome_mpp(xml) if xml else None) or image_mpp(path),
            )
            self.icc = self._pages[0].iccprofile
            for page in self._pages:
                check_mode(path, tiff_form(page))
                if page.axes != "YXS":
                    raise RestainError(f"{path} keeps its colours in separate planes; restain reads them interleaved.")
            self.faults += broken_chain(path) + lost_tiles(path, self._pages, self._tiff.filehandle.size, strict=True)
        except RestainError:
            self._tiff.close()
            raise
        except Exception:
            self._tiff.close()
            raise damaged(path, "its TIFF directory cannot be read") from None
        self._lock = threading.Lock()

    def read(self, level: int, region: Region) -> Rgb:
        page = self._pages[level]
        height = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        width = page.tilewidth if page.is_tiled else page.imagewidth
        across = -(-page.imagewidth // width)
        out = np.full((region.size.height, region.size.width, 3), 255, np.uint8)
        for row in range(region.origin.y // height, -(-region.bottom // height)):
            for column in range(region.origin.x // width, -(-region.right // width)):
                piece = self._tile(page, row * across + column)
                if piece is None:
                    continue
                paste(out, region, piece, column * width, row * height)
        return out

    def _tile(self, page: Any, index: int) -> Rgb | None:
        """A decoded tile, or None for one that the file leaves out (glass)."""
        at, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        with self._lock:
            handle = self._tiff.filehandle
            handle.seek(at)
            data = handle.read(count)
        if len(data) < count:
            raise RestainError(f"{self.path} is truncated: a tile's data lie beyond its end.")
        try:
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
            return np.asarray(decoded[0], np.uint8)
        except Exception:
            raise damaged(self.path, f"tile {index} cannot be decoded") from None

    def close(self) -> None:
        self._tiff.close()


def broken_chain(path: Path) -> list[str]:
    """The fault of a TIFF whose chain of directories does not come to its end."""
    return [] if _chain_ends(path) else [f"{path} is truncated or damaged: its chain of TIFF directories breaks off."]


def lost_tiles(path: Path, pages: Sequence[Any], end: int, *, strict: bool) -> list[str]:
    """The fault of a TIFF of ``end`` bytes whose tiles or strips lie beyond it.

    Raises:
        ValueError: if ``strict`` and a page has more offsets than byte counts, or the other way round.
    """
    ends = [at + count for page in pages for at, count in zip(page.dataoffsets, page.databytecounts, strict=strict)]
    lost = sum(one > end for one in ends)
    return [f"{path} is truncated: {lost} of {len(ends)} tiles lie beyond its end."] if lost else []


def _chain_ends(path: Path) -> bool:
    """Whether a TIFF's chain of directories comes to its end; tifffile drops what follows a break without a word."""
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


def pyramid_pages(tiff: tifffile.TiffFile) -> list[Any]:
    """Pages of the levels, finest first: the first page's SubIFDs, and reduced pages of its shape behind it."""
    first = tiff.pages[0].aspage()
    found = [first]
    others = [page.aspage() for page in first.pages] if first.pages is not None else []
    others += [page.aspage() for page in list(tiff.pages)[1:] if page.aspage().is_reduced]
    for page in sorted(others, key=lambda page: -int(page.imagewidth)):
        ratio_x, ratio_y = first.imagewidth / page.imagewidth, first.imagelength / page.imagelength
        # A label or macro image has another shape; a level's differs by the rounding of its sides.
        slack = max(1 / page.imagewidth, 1 / page.imagelength) + 0.005
        if page.imagewidth < found[-1].imagewidth and abs(ratio_x / ratio_y - 1) <= slack:
            found.append(page)
    return found


def _ome_mpp(xml: str) -> float | None:
    pixels = next((node for node in ElementTree.fromstring(xml).iter() if node.tag.endswith("}Pixels")), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    unit = _MICROMETRES.get(pixels.attrib.get("PhysicalSizeXUnit", "µm"))
    value = float(pixels.attrib["PhysicalSizeX"])
    return value * unit if unit and value > 0 else None
