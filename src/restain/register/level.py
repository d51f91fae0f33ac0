"""The shifts of all blocks of tissue at one resolution, read and matched piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size
from restain.register.blocks import Match, best_shifts, correlations, standing
from restain.register.structure import MARGIN_PX, SMOOTHING_PX, Look, channels
from restain.register.transform import Points, Transform
from restain.register.warp import read_mirrored, warp_region
from restain.slides.mask import TissueMask
from restain.slides.slide import Slide

Progress = Callable[[int, int], None]

PRIOR = np.array([0.8, 0.2])
"""Weights of the channels, *matter* and *hematoxylin*, before anything is known of the pair: what is empty in one section
is empty in its neighbours, while hematoxylin is weak in many counterstains and hard to unmix beside strong DAB."""
PIECE_PX = 768
"""Side of the pieces, without their margins, that are in memory at once."""


@dataclass(frozen=True)
class Section:
    """A slide to be registered: its pixels, where its tissue is, and how it is stained."""

    slide: Slide
    tissue: TissueMask
    look: Look


@dataclass(frozen=True)
class Raster:
    """Where blocks are matched: every ``stride`` px at ``mpp``, their side and search in px at ``mpp``.

    ``smoothing`` is that of their channels: the less, the finer the detail that decides.
    """

    mpp: float
    block: int
    reach: int
    stride: int
    smoothing: float = SMOOTHING_PX


@dataclass(frozen=True)
class Shifts:
    """What block matching at one resolution found.

    ``places`` ``(n, 2)`` are rows and columns of the blocks in a lattice of ``shape``; ``points`` their centres and
    ``shifts`` how far they are from where the transform took them, both ``(n, 2)`` (x, y) in px of the fixed slide's
    level 0.
    """

    shape: tuple[int, int]
    places: NDArray[np.int64]
    points: Points
    shifts: Points
    match: Match
    expected: NDArray[np.float64]
    """``(n,)``: the correlation without any shift."""
    standing: NDArray[np.float64]
    """``(n,)``: by how many standard deviations the correlation without any shift stands out of all of the block's."""
    evidence: NDArray[np.float64]
    """``(C,)``: the mean of the same over all blocks, for each channel by itself."""

    def weights(self) -> NDArray[np.float64]:
        """``(C,)``, their sum 1: how much each channel has to say, as the square of its evidence times the prior."""
        square = PRIOR * np.maximum(self.evidence, 0.05) ** 2
        return np.asarray(square / square.sum())


def lattice_shape(size: Size, stride: int) -> tuple[int, int]:
    """Rows and columns of block centres in a slide of ``size``, the first at half a stride."""
    return max(1, -(-(size.height - stride // 2) // stride)), max(1, -(-(size.width - stride // 2) // stride))


def measure_shifts(
    fixed: Section,
    moving: Section,
    transform: Transform,
    raster: Raster,
    weights: NDArray[np.float64] = PRIOR,
    progress: Progress | None = None,
) -> Shifts:
    """Match the blocks of the fixed section's tissue with the moving section, as ``transform`` lays it over the fixed one.

    Both slides and the transform have an mpp. ``weights`` ``(C,)`` are those of the channels' correlations;
    ``progress(done, total)`` counts blocks.
    """
    shape = lattice_shape(fixed.slide.size_at(raster.mpp), raster.stride)
    places = np.argwhere(_on_tissue(fixed.tissue, shape, raster))
    centres = places[:, ::-1] * raster.stride + raster.stride // 2
    found, order, stands, still, evidence = (
        [best_shifts(np.zeros((0, 3, 3), np.float32))],
        [np.zeros(0, np.int64)],
        [],
        [],
        [],
    )
    done = 0
    for chosen in _pieces(centres, raster.stride):
        each = _surfaces(fixed, moving, transform, raster, centres[chosen])
        surfaces = np.tensordot(each, weights.astype(np.float32), axes=(1, 0))
        found.append(best_shifts(surfaces))
        stands.append(standing(surfaces))
        still.append(surfaces[:, raster.reach, raster.reach].astype(np.float64))
        evidence.append(standing(each))
        order.append(chosen)
        done += len(chosen)
        if progress is not None:
            progress(done, len(places))
    back = np.argsort(np.concatenate(order))
    match = Match(*(np.concatenate([getattr(one, key) for one in found])[back] for key in Match.__dataclass_fields__))
    scale = raster.mpp / fixed.slide.mpp
    return Shifts(
        shape,
        places,
        np.asarray(centres * scale, dtype=np.float64),
        match.shift * scale,
        match,
        np.concatenate([np.zeros(0), *still])[back],
        np.concatenate([np.zeros(0), *stands])[back],
        np.concatenate(evidence).mean(axis=0).astype(np.float64) if evidence else np.zeros(len(weights)),
    )


def _on_tissue(tissue: TissueMask, shape: tuple[int, int], raster: Raster) -> NDArray[np.bool_]:
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * raster.stride * raster.mpp / tissue.mpp).astype(int), side - 1)
        for n, side in zip(shape, tissue.mask.shape, strict=True)
    )
    return tissue.mask[np.ix_(rows, columns)]


def _pieces(centres: NDArray[np.int64], stride: int) -> Iterator[NDArray[np.int64]]:
    """Indices of the blocks of each piece that holds any."""
    across = max(PIECE_PX, stride)
    piece = centres // across
    key = piece[:, 1] * (int(piece[:, 0].max(initial=0)) + 1) + piece[:, 0]
    order = np.argsort(key, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if len(chosen):
            yield chosen


def _surfaces(
    fixed: Section, moving: Section, transform: Transform, raster: Raster, centres: NDArray[np.int64]
) -> NDArray[np.float32]:
    """``(n, C, side, side)`` correlations of the blocks of one piece."""
    margin = raster.block // 2 + raster.reach + MARGIN_PX + 1
    left, top = (int(v) - margin for v in centres.min(axis=0))
    right, bottom = (int(v) + margin for v in centres.max(axis=0))
    region = Region(Point(left, top), Size(right - left, bottom - top))
    one = channels(read_mirrored(fixed.slide, region, raster.mpp), fixed.look, raster.smoothing)
    laid = warp_region(moving.slide, transform, region, raster.mpp, outside=None)
    other = channels(laid, moving.look, raster.smoothing)
    return correlations(one, other, centres - (left, top), raster.block, raster.reach)
