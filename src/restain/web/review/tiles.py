"""Tiles of a study's images that differ only in their pixels: cropped to one size, decoded and encoded anew."""

from __future__ import annotations

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
from restain.web.caches import ByteCache, HandleCache
from restain.web.errors import RequestError
from restain.web.grid import Grid
from restain.web.library import file_stamp
from restain.web.review.studies import reader_errors
from restain.web.tiles import encode_jpeg, open_bounded

_log = logging.getLogger("restain.web.review")


class StudyTiles:
    """Reads the images of studies by a reader's tokens, with memory bounded as in :class:`restain.web.tiles.Tiles`."""

    def __init__(self) -> None:
        self._slides: HandleCache[Slide] = HandleCache()
        self._cache = ByteCache()
        self._slots = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))
        self._reported: set[Path] = set()

    def tile(self, study: Study, reader: str, token: str, level: int, column: int, row: int) -> bytes:
        """A tile of the image behind a token, as JPEG without comment; levels as in :class:`restain.web.grid.Grid`.

        Raises:
            RequestError: as :func:`reader_errors`; 404 if there is no such tile; 422, without a name, if the pixels
                cannot be read or the image changed since the study was made.
        """
        with reader_errors():
            path, region = study.view(reader, token)
        grid = Grid(study.size, 1.0)
        wanted = grid.region(level, column, row)
        with self._readable(path):
            key = (path, file_stamp(path), region, level, column, row)
            if (data := self._cache.get(key)) is not None:
                return data
            with self._slides.lease(f"{path} {key[1]}", lambda: open_bounded(path)) as slide, self._slots:
                if _centre(slide.size, study.size) != region:
                    raise RestainError(f"{path} has another size than when the study was made.")
                data = encode_jpeg(_crop(slide, region.origin, wanted, grid.reduction(level)), virtual=False)
        self._cache.put(key, data)
        return data

    def close(self) -> None:
        self._slides.close()

    @contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Log the reason once per image; the reader only learns that the image cannot be shown."""
        try:
            yield
        except Exception as error:
            if path not in self._reported:
                self._reported.add(path)
                why = str(error) if isinstance(error, RestainError) else type(error).__name__
                _log.warning("%s: an image of a study cannot be shown to its readers (%s)", path, why)
            raise RequestError(422, "review.error_image") from None


def _centre(size: Size, common: Size) -> Region:
    return Region(Point((size.width - common.width) // 2, (size.height - common.height) // 2), common)


def _crop(slide: Slide, corner: Point, wanted: Region, reduction: int) -> Rgb:
    """``wanted`` of the part that begins at ``corner`` (px of level 0); the last row and column repeat where sides were rounded up."""
    shown = slide.taken_at(1.0)
    extent = shown.size_at(reduction)
    # An error of at most half a px of the level is invisible, and lets the levels of the file be used.
    left, top = round(corner.x / reduction) + wanted.origin.x, round(corner.y / reduction) + wanted.origin.y
    left, top = min(left, extent.width - 1), min(top, extent.height - 1)
    width = min(wanted.size.width, extent.width - left)
    height = min(wanted.size.height, extent.height - top)
    rgb = shown.read(Region(Point(left, top), Size(width, height)), reduction)
    missing = wanted.size.height - height, wanted.size.width - width
    return np.pad(rgb, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else rgb
