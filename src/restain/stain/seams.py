"""Seams of a result: the gradient across borders of tiles or windows against the gradient beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size

STRETCH = 256
"""px along a border that are measured at a time."""
LEAST_BLOCK = 160
"""px between borders below which there are too few other lines to compare with."""
RANDOM = 6
"""Lines without a border that are drawn for every stretch of border."""
BESIDE = 8
"""px from a border to the lines beside it: one JPEG block, since borders of tiles are borders of such blocks."""


@dataclass(frozen=True)
class Seams:
    """``at_borders``: mean gradient across borders over the mean gradient 8 px beside them.
    ``at_random``: the same at other lines. ``ratio``: the first over the second; 1 is no seam.
    ``low``, ``high``: its 95 % interval, by resampling whole border lines. ``stretches``: pieces of border measured.
    """

    at_borders: float
    at_random: float
    low: float
    high: float
    stretches: int

    @property
    def ratio(self) -> float:
        return self.at_borders / self.at_random


def measure_seams(
    read: Callable[[Region], NDArray[np.uint8] | NDArray[np.float32]],
    size: Size,
    block: int,
    shown: Callable[[Region], bool],
    *,
    scale: float = 1.0,
    most: int = 512,
    seed: int = 0,
) -> Seams | None:
    """Measure seams on a sample of a slide's borders; None where none lies in tissue, or nothing but flat colour does.

    A gradient is the mean absolute difference of neighbouring pixels over a stretch of 256 px; figures are ratios of
    means over all stretches. The lines without a border are borders of JPEG blocks too, and have the same position
    relative to the pixels of the source, since resampling smooths by that position.

    Args:
        read: pixels ``(h, w, 3)`` of a region.
        block: px from one border to the next; with less than 160 no figure is given.
        shown: whether a region shows stained tissue; others are left out.
        scale: px of the source per px of the slide.
        most: stretches at most, drawn from all.
    """
    if block < LEAST_BLOCK:
        return None
    rng = np.random.default_rng(seed)
    equivalent = _equivalent(block, scale)
    places = [
        (vertical, line, along)
        for vertical, (across, length) in ((True, (size.width, size.height)), (False, (size.height, size.width)))
        for line in range(block, across - 2 * BESIDE, block)
        for along in range(0, length - STRETCH + 1, STRETCH)
    ]
    stretches: list[list[float]] = []
    lines: list[tuple[bool, int]] = []
    for place in rng.permutation(len(places)):
        if len(stretches) == most:
            break
        vertical, line, along = places[place]
        away = rng.choice(equivalent, RANDOM, replace=False)
        strips = [_strip(vertical, int(at), along) for at in (line, *(line - away))]
        if all(shown(strip) for strip in strips):
            here, *others = (_gradients(read(strip), vertical) for strip in strips)
            stretches.append([*here, *np.mean(others, axis=0)])
            lines.append((vertical, line))
    values = np.array(stretches)
    if not stretches or not values.mean(axis=0).all():
        return None  # Flat colour has no gradients to compare.
    sums = np.array([values[[one == line for one in lines]].sum(axis=0) for line in sorted(set(lines))])
    drawn = sums[rng.integers(0, len(sums), (1000, len(sums)))].sum(axis=1)
    drawn = drawn[drawn.all(axis=1)]
    if not len(drawn):
        return None
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1] / (drawn[:, 2] / drawn[:, 3]), [2.5, 97.5])
    mean = values.mean(axis=0)
    return Seams(float(mean[0] / mean[1]), float(mean[2] / mean[3]), float(low), float(high), len(values))


def _equivalent(block: int, scale: float) -> list[int]:
    """Distances from a border at which lines are equivalent to it, within a block; some more than are drawn."""
    away = np.arange(3 * BESIDE, block - 2 * BESIDE, BESIDE)
    offset = np.abs(away * scale - np.rint(away * scale))
    return [int(d) for d in away[offset <= max(np.sort(offset)[: 2 * RANDOM][-1], 0.02)]]


def _strip(vertical: bool, line: int, along: int) -> Region:
    """A stretch of a line with what lies beside it, one px more on either side than the lines compared with."""
    if vertical:
        return Region(Point(line - BESIDE - 1, along), Size(2 * BESIDE + 2, STRETCH))
    return Region(Point(along, line - BESIDE - 1), Size(STRETCH, 2 * BESIDE + 2))


def _gradients(image: NDArray[np.uint8] | NDArray[np.float32], vertical: bool) -> tuple[float, float]:
    """Across the line in the middle of a strip, and the mean of those beside it."""
    lines = np.asarray(image, np.float32) if vertical else np.asarray(image, np.float32).swapaxes(0, 1)
    steps = np.abs(np.diff(lines, axis=1)).mean(axis=(0, 2))
    return float(steps[BESIDE]), float((steps[0] + steps[2 * BESIDE]) / 2)
