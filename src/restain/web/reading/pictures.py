"""Tiles of a study's images that differ in their pixels alone: cut to one size, decoded and encoded anew, in the same way for all."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.review import Study
from restain.slides import Slide
from restain.slides.find import split_number
from restain.web.faults import Fault
from restain.web.grid import Grid
from restain.web.opened import ByteCache, Opened
from restain.web.reading.studies import told_to_readers
from restain.web.tiles import as_jpeg, open_checked

_log = logging.getLogger("restain.web.reading")


class Pictures:
    """Reads the images of studies, wherever they lie, through a reader's token only. Memory is bounded as in :class:`restain.web.tiles.Tiles`."""

    def __init__(self) -> None:
        self._slides: Opened[Slide] = Opened()
        self._cache = ByteCache()
        self._turns = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))
        self._reported: set[Path] = set()

    def tile(self, study: Study, reader: str, token: str, level: int, column: int, row: int) -> bytes:
        """A tile of the image behind a token, as JPEG without any comment; levels as in :class:`restain.web.grid.Grid`.

        Raises:
            Fault: 404 or 410 as :func:`told_to_readers` says, 404 if there is no such tile; 422, without a name, if the
                pixels cannot be read or are no longer those of the study.
        """
        with told_to_readers():
            path, region = study.view(reader, token)
        grid = Grid(study.size, 1.0)
        wanted = grid.region(level, column, row)
        reduction = grid.reduction(level)
        with self._readable(path):
            key = (path, _stamp(path), region, level, column, row)
            if (known := self._cache.get(key)) is not None:
                return known
            with self._slides.lease(f"{path} {key[1]}", lambda: open_checked(path)) as slide, self._turns:
                if _middle(slide.size, study.size) != region:
                    raise RestainError(f"{path} has another size than when the study was made.")
                data = as_jpeg(_cut(slide, region.origin, wanted, reduction), virtual=False)
        self._cache.put(key, data)
        return data

    def close(self) -> None:
        self._slides.close()

    @contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Whoever serves the study reads the reason, once; a reader that there is one."""
        try:
            yield
        except Exception as fault:
            if path not in self._reported:
                self._reported.add(path)
                why = str(fault) if isinstance(fault, RestainError) else type(fault).__name__
                _log.warning("%s: an image of a study cannot be shown to its readers (%s)", path, why)
            raise Fault(422, "review.fault_image") from None


def _middle(size: Size, common: Size) -> Region:
    return Region(Point((size.width - common.width) // 2, (size.height - common.height) // 2), common)


def _cut(slide: Slide, corner: Point, wanted: Region, reduction: int) -> Rgb:
    """``wanted`` of the part that begins at ``corner`` (px of level 0); the last row and column are repeated where sides were rounded up."""
    shown = slide.taken_at(1.0)
    extent = shown.size_at(reduction)
    # At most half a px of the level is lost, which no eye sees; the pyramid's own levels can then be used.
    left, top = round(corner.x / reduction) + wanted.origin.x, round(corner.y / reduction) + wanted.origin.y
    left, top = min(left, extent.width - 1), min(top, extent.height - 1)
    width = min(wanted.size.width, extent.width - left)
    height = min(wanted.size.height, extent.height - top)
    rgb = shown.read(Region(Point(left, top), Size(width, height)), reduction)
    missing = wanted.size.height - height, wanted.size.width - width
    return np.pad(rgb, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else rgb


def _stamp(path: Path) -> str:
    state = split_number(path)[0].stat()
    return hashlib.sha256(f"{state.st_mtime_ns} {state.st_size}".encode()).hexdigest()[:10]
