"""Block matching: the shift of each block of one section in another, by normalised cross-correlation.

:func:`match_blocks` matches all blocks of tissue at one resolution and reads the slides in pieces, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import convolve1d

from restain.geometry import Point, Region, Size
from restain.progress import Progress
from restain.registration.features import MARGIN_PX, SMOOTHING_PX, Floats, StainStrength, feature_channels
from restain.registration.transform import Points, Transform
from restain.registration.warp import read_mirrored, warp_region
from restain.slides import Slide
from restain.slides.mask import Mask, TissueMask

VARIANCE_FLOOR = 0.02
"""Added to variances of blocks (of locally normalised channels), so that empty blocks do not correlate by noise."""
BATCH = 16
"""Blocks that are transformed at once."""
PRIOR = np.array([0.8, 0.2])
"""Prior weights of the channels, tissue density and hematoxylin. Lumens of one section are lumens of its neighbours, while
hematoxylin is weak in many counterstains and hard to unmix beside strong DAB."""
PIECE_PX = 768
"""Side of the pieces, without their margins, that are in memory at once."""


@dataclass(frozen=True)
class Section:
    """A slide to be registered, its tissue, and the strength of its stain."""

    slide: Slide
    tissue: TissueMask
    stain: StainStrength

    def on_tissue(self, points: Points, mask: Mask | None = None) -> NDArray[np.bool_]:
        """``(n,)``: whether points, ``(n, 2)`` in px of level 0, are on the tissue (or another ``mask`` on its grid)."""
        mask = self.tissue.mask if mask is None else mask
        columns, rows = np.floor(points * (self.slide.mpp / self.tissue.mpp)).astype(int).T
        height, width = mask.shape
        inside = (rows >= 0) & (columns >= 0) & (rows < height) & (columns < width)
        return np.asarray(inside & mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)])


@dataclass(frozen=True)
class BlockGrid:
    """Blocks every ``stride`` px at ``mpp``; side ``block``, search range ``reach`` and ``smoothing`` of the channels in px at ``mpp``."""

    mpp: float
    block: int
    reach: int
    stride: int
    smoothing: float = SMOOTHING_PX


@dataclass(frozen=True)
class Match:
    """One shift per block: ``shift`` ``(n, 2)`` (x, y) in px, and the ``correlation`` ``(n,)`` at it, in [-1, 1].

    ``edge`` ``(n,)`` marks blocks whose best shift is at the border of the search, so that the true one may lie beyond.
    """

    shift: NDArray[np.float64]
    correlation: NDArray[np.float64]
    edge: NDArray[np.bool_]


@dataclass(frozen=True)
class Shifts:
    """Result of block matching at one resolution.

    ``places`` ``(n, 2)`` are rows and columns of the blocks in a lattice of ``shape``. ``points`` are their centres and
    ``shifts`` their distances from where the transform took them, both ``(n, 2)`` (x, y) in px of the fixed slide's level 0.
    """

    shape: tuple[int, int]
    places: NDArray[np.int64]
    points: Points
    shifts: Points
    match: Match
    unshifted: NDArray[np.float64]
    """``(n,)``: the correlation at zero shift."""
    z_score: NDArray[np.float64]
    """``(n,)``: z-score of the correlation at zero shift among all correlations of the block's search."""
    evidence: NDArray[np.float64]
    """``(C,)``: mean z-score over all blocks, for each channel by itself."""

    def weights(self) -> NDArray[np.float64]:
        """Weights ``(C,)`` of the channels, with sum 1: the square of a channel's evidence times the prior."""
        square = PRIOR * np.maximum(self.evidence, 0.05) ** 2
        return np.asarray(square / square.sum())


def match_blocks(
    fixed: Section,
    moving: Section,
    transform: Transform,
    grid: BlockGrid,
    weights: NDArray[np.float64] = PRIOR,
    progress: Progress | None = None,
) -> Shifts:
    """Match the blocks of the fixed section's tissue with the moving section under ``transform``.

    Both slides and the transform have an mpp. ``weights`` ``(C,)`` are those of the channels; ``progress(done, total)``
    counts blocks.
    """
    size = fixed.slide.size_at(grid.mpp)
    shape = tuple(max(1, -(-(side - grid.stride // 2) // grid.stride)) for side in (size.height, size.width))
    places = np.argwhere(_on_tissue(fixed.tissue, shape, grid))
    centres = places[:, ::-1] * grid.stride + grid.stride // 2
    count = len(places)
    shift, edge = np.zeros((count, 2)), np.zeros(count, bool)
    correlation, unshifted, z = np.zeros(count), np.zeros(count), np.zeros(count)
    evidence: list[NDArray[np.float64]] = []
    done = 0
    for piece in _pieces(centres, grid.stride):
        surfaces = correlation_surfaces(fixed, moving, transform, grid, centres[piece])
        combined = np.tensordot(surfaces, weights.astype(np.float32), axes=(1, 0))
        best = best_shifts(combined)
        shift[piece], correlation[piece], edge[piece] = best.shift, best.correlation, best.edge
        unshifted[piece] = combined[:, grid.reach, grid.reach]
        z[piece] = z_scores(combined)
        evidence.append(z_scores(surfaces))
        done += len(piece)
        if progress is not None:
            progress(done, count)
    scale = grid.mpp / fixed.slide.mpp
    return Shifts(
        (shape[0], shape[1]),
        places,
        np.asarray(centres * scale, dtype=np.float64),
        shift * scale,
        Match(shift, correlation, edge),
        unshifted,
        z,
        np.concatenate(evidence).mean(axis=0) if evidence else np.zeros(len(weights)),
    )


def correlation_surfaces(
    fixed: Section, moving: Section, transform: Transform, grid: BlockGrid, centres: NDArray[np.int64]
) -> Floats:
    """:func:`correlations` ``(n, C, side, side)`` of neighbouring blocks, read from the slides; ``centres`` in px at ``grid.mpp``."""
    margin = grid.block // 2 + grid.reach + MARGIN_PX + 1
    left, top = (int(v) - margin for v in centres.min(axis=0))
    right, bottom = (int(v) + margin for v in centres.max(axis=0))
    region = Region(Point(left, top), Size(right - left, bottom - top))
    one = feature_channels(read_mirrored(fixed.slide, region, grid.mpp), fixed.stain, grid.smoothing)
    warped = warp_region(moving.slide, transform, region, grid.mpp, outside=None)
    other = feature_channels(warped, moving.stain, grid.smoothing)
    return correlations(one, other, centres - (left, top), grid.block, grid.reach)


def correlations(fixed: Floats, moving: Floats, centres: NDArray[np.int64], block: int, reach: int) -> Floats:
    """Normalised cross-correlation of blocks of ``fixed`` with ``moving``, each channel by itself.

    Args:
        fixed: ``(C, H, W)`` channels.
        moving: the same, on the same grid.
        centres: ``(n, 2)`` centres (x, y) of the blocks; each block with its search must lie inside.
        block: side of the blocks in px; they are weighted by a Hann window.
        reach: largest shift in px along each axis.

    Returns:
        ``(n, C, 2 * reach + 1, 2 * reach + 1)`` ``float32``: [row, column] is the correlation with shift
        ``(column - reach, row - reach)``.
    """
    side = 2 * reach + 1
    length = fft.next_fast_len(block + 2 * reach, real=True)
    hann = np.hanning(block + 2)[1:-1].astype(np.float32)
    hann /= hann.sum()
    window = np.outer(hann, hann)
    mean = _window_mean(moving, hann)
    variance = _window_mean(moving * moving, hann) - mean * mean
    deviation = np.sqrt(np.maximum(variance, 0) + VARIANCE_FLOOR)
    out = np.empty((len(centres), len(fixed), side, side), np.float32)
    # Many small transforms at once cost less than one by one.
    for first in range(0, len(centres), BATCH):
        batch = centres[first : first + BATCH]
        one = _squares(fixed, batch - block // 2, block)
        one = one - (window * one).sum(axis=(2, 3), keepdims=True)
        weighted = window * one
        own = np.sqrt((weighted * one).sum(axis=(2, 3), keepdims=True) + VARIANCE_FLOOR)
        other = _squares(moving, batch - block // 2 - reach, block + 2 * reach)
        # The weighted block has mean 0, so the mean of the other one drops out of the product.
        spectrum = fft.rfft2(other, (length, length)) * np.conj(fft.rfft2(weighted, (length, length)))
        product = fft.irfft2(spectrum, (length, length))[..., :side, :side]
        out[first : first + BATCH] = product / (own * _squares(deviation, batch - reach, side))
    return out


def _window_mean(channels: Floats, window: Floats) -> Floats:
    """Means of ``(C, H, W)`` under a separable window, beyond the edge of zeros."""
    # A window of even length begins half its length before its centre, as the blocks do.
    origin = len(window) % 2 - 1
    down: Floats = convolve1d(channels, window, axis=1, mode="constant", origin=origin)
    both: Floats = convolve1d(down, window, axis=2, mode="constant", origin=origin)
    return both


def best_shifts(surfaces: Floats) -> Match:
    """The maximum of each surface ``(n, side, side)`` of correlations, to a fraction of a px by a parabola."""
    count, side, _ = surfaces.shape
    if count == 0:
        return Match(np.zeros((0, 2)), np.zeros(0), np.zeros(0, bool))
    flat = surfaces.reshape(count, -1)
    row, column = np.divmod(flat.argmax(axis=1), side)
    edge = (row == 0) | (row == side - 1) | (column == 0) | (column == side - 1)
    y, x, n = np.clip(row, 1, side - 2), np.clip(column, 1, side - 2), np.arange(count)
    dx = _vertex(surfaces[n, y, x - 1], surfaces[n, y, x], surfaces[n, y, x + 1])
    dy = _vertex(surfaces[n, y - 1, x], surfaces[n, y, x], surfaces[n, y + 1, x])
    shift = np.stack([column + np.where(edge, 0, dx), row + np.where(edge, 0, dy)], axis=1) - side // 2
    return Match(shift, flat.max(axis=1).astype(np.float64), edge)


def z_scores(surfaces: Floats) -> NDArray[np.float64]:
    """Z-score of the middle of each surface (no shift) among all its values; the last two axes go."""
    middle = surfaces.shape[-1] // 2
    unshifted = surfaces[..., middle, middle].astype(np.float64)
    return np.asarray((unshifted - surfaces.mean(axis=(-2, -1))) / (surfaces.std(axis=(-2, -1)) + 1e-6))


def neighbourhood_median(
    shape: tuple[int, int], places: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``(n,)``: the median over each block and its eight neighbours in a lattice of ``shape``; a single block's value is noisy."""
    plane = np.full((shape[0] + 2, shape[1] + 2), np.nan)
    rows, columns = places.T
    plane[rows + 1, columns + 1] = values
    neighbours = [plane[rows + i, columns + j] for i in range(3) for j in range(3)]
    return np.asarray(np.nanmedian(neighbours, axis=0))


def _on_tissue(tissue: TissueMask, shape: tuple[int, ...], grid: BlockGrid) -> NDArray[np.bool_]:
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * grid.stride * grid.mpp / tissue.mpp).astype(int), side - 1)
        for n, side in zip(shape, tissue.mask.shape, strict=True)
    )
    return tissue.mask[np.ix_(rows, columns)]


def _pieces(centres: NDArray[np.int64], stride: int) -> Iterator[NDArray[np.int64]]:
    """Indices of the blocks of each piece of the slide that has any."""
    piece = centres // max(PIECE_PX, stride)
    key = piece[:, 1] * (int(piece[:, 0].max(initial=0)) + 1) + piece[:, 0]
    order = np.argsort(key, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if len(members):
            yield members


def _squares(planes: Floats, corners: NDArray[np.int64], side: int) -> Floats:
    return np.stack([planes[:, top : top + side, left : left + side] for left, top in corners])


def _vertex(before: Floats, here: Floats, after: Floats) -> NDArray[np.float64]:
    curvature = before - 2 * here + after
    concave = curvature < -1e-6
    safe = np.where(concave, curvature, -1.0)
    return np.where(concave, np.clip(0.5 * (before - after) / safe, -0.5, 0.5), 0.0).astype(np.float64)
