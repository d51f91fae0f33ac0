"""Where a slide is out of distribution: a score for each tile, kept as the tiles come, and outlines."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.files import read_bytes
from restain.geometry import Size
from restain.images import Rgb
from restain.ood.detector import OodDetector
from restain.ood.features import GLASS_OD
from restain.ood.features import TILE as SEEN
from restain.optics import optical_density
from restain.slides import Polygon, to_polygons

LEAST_TISSUE = 0.25
"""Share of tissue below which a piece is not judged."""

NAME = "Unlike the training images"
COLOUR = (230, 120, 0)

_FINER = 8


@dataclass(frozen=True)
class OodTiles:
    """``judged`` tiles of tissue, those ``above`` the limit of the training images, ``median`` score (None without any)."""

    judged: int
    above: int
    median: float | None


class TileScores:
    """Scores of a slide's tiles (see :mod:`restain.ood.detector`; above 1 is unlike), as lines of the growing file
    ``path``.

    The piece of 256 px of each tile with most tissue is scored. Lines written before a kill are read again; safe from
    many threads. ``grid`` is rows and columns of tiles. Raises RestainError if the file cannot be read or written.
    """

    def __init__(self, path: Path, grid: tuple[int, int], ood: OodDetector) -> None:
        self.path, self.ood = path, ood
        self.scores = np.full(grid, np.nan, np.float32)
        self._lock = threading.Lock()
        for line in read_bytes(path).split(b"\n") if path.exists() else ():
            try:
                row, column, score = json.loads(line)
                self.scores[row, column] = score
            except (ValueError, TypeError, IndexError):
                # The last line of a process that was killed while it wrote.
                continue

    def score(self, row: int, column: int, he: Rgb, tissue: NDArray[np.float32]) -> None:
        """Judge a tile: ``(h, w, 3)`` H&E at the model's mpp, and ``(h, w)`` how much of each pixel is tissue.

        Raises RestainError if the line cannot be written.
        """
        if not np.isnan(self.scores[row, column]) or (piece := fullest(tissue)) is None:
            return
        if (optical_density(he[piece]).mean(axis=2) >= GLASS_OD).mean() < LEAST_TISSUE:
            # The margin round tissue counts as tissue, but glass with a rim of tissue is like no training image.
            return
        # Rounded as in the file, so that it does not matter which tiles were judged before a kill.
        score = round(self.ood.judge(he[piece]).score, 4)
        with self._lock:
            self.scores[row, column] = score
            try:
                with open(self.path, "a", encoding="ascii") as file:
                    # A line end before as well: what stands there may have been torn.
                    file.write(f"\n[{row}, {column}, {score}]\n")
            except OSError as fault:
                raise RestainError(f"{self.path} cannot be written ({fault.strerror}).") from None

    def figures(self) -> OodTiles:
        """How many tiles were judged, and how."""
        judged = self.scores[~np.isnan(self.scores)]
        return OodTiles(int(judged.size), int((judged > 1).sum()), float(np.median(judged)) if judged.size else None)

    def outlines(self, tile: int, size: Size, mpp: float, slide_mpp: float) -> list[Polygon]:
        """Outlines of the tiles above the limit, in px of the slide's level 0 at ``slide_mpp``.

        ``tile`` and ``size``, at which outlines end, are px of the result at ``mpp``.
        """
        border = np.array([size.width, size.height], np.float64) * mpp / slide_mpp
        # An outline cuts the corners of a mask's pixels, which in whole tiles would show.
        fine = np.kron(self.scores > 1, np.ones((_FINER, _FINER), bool))
        found = to_polygons(fine, tile * mpp / _FINER, slide_mpp)
        return [shapely.transform(one, lambda points: np.minimum(points, border)) for one in found]


def fullest(tissue: NDArray[np.float32]) -> tuple[slice, slice] | None:
    """The piece of 256 px, or what there is, with most tissue, the middle one first; None if it holds hardly any.

    Args:
        tissue: ``(h, w)`` in [0, 1].
    """
    height, width = tissue.shape
    if min(height, width) < SEEN // 2:
        return None
    tops, lefts = ({length // 2, 0, length} for length in (max(0, height - SEEN), max(0, width - SEEN)))
    middle = max(0, height - SEEN) // 2, max(0, width - SEEN) // 2
    places = sorted({(top, left) for top in tops for left in lefts}, key=lambda place: place != middle)
    pieces = [(slice(top, top + SEEN), slice(left, left + SEEN)) for top, left in places]
    best = max(pieces, key=lambda piece: float(tissue[piece].mean()))
    return best if tissue[best].mean() >= LEAST_TISSUE else None
