"""The last step of registration, patch by patch: an affine correction by the blocks of one patch.

A registration of whole slides is smooth over hundreds of micrometres, and one that was given from outside may be a single matrix.
What a patch needs beyond it is found as registration found the rest, by blocks of the two channels that the stains share
(:mod:`restain.register.structure`): first one shift for all blocks together, which reaches far, then an affine map through the
shifts of single blocks. A correction counts only if the blocks correlate better with it than without.
(:func:`restain.register.refine_patch` finds one shift of two pictures; here a patch may be turned and stretched as well, glass has no say,
and how each block matches is what the patch is judged by.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.geometry import Point, Region, Size
from restain.register import Lattice, Transform, warp_region
from restain.register.blocks import best_shifts, correlations
from restain.register.level import PRIOR, Section
from restain.register.structure import MARGIN_PX, channels
from restain.register.warp import read_mirrored

WORK_UM = 1.0
"""Resolution in µm per px at which blocks are matched; nuclei are clear, and slides that are coarser stay as they are."""
BLOCK_PX, STRIDE_PX, REACH_PX = 64, 32, 10
"""Blocks, their distance, and how far each is looked for, in px at :data:`WORK_UM`."""
FAR = 2.0
"""The first look, for one shift of all, is so many times coarser, and so reaches so many times farther."""
LEAST_GAIN = 0.01
"""A correction counts if the mean correlation of the blocks grows by this at least."""
LEAST_SHIFT_BLOCKS, LEAST_AFFINE_BLOCKS = 4, 16
"""Fewer matched blocks give no correction; fewer than the second, a shift alone."""
FIT_PX = 3.0
"""A block's shift that is this far from the fit, in px at :data:`WORK_UM`, has half the weight."""
MOST_UM = 40.0
"""A correction that moves any corner of the patch farther is not believed."""
NODE_UM = 8.0
"""Spacing of the lattice on which a patch's transform is kept."""
LEAST_TISSUE = 0.5
"""Blocks with less tissue are not asked."""

Correction = Literal["none", "shift", "affine"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A patch in px of the fixed slide's level 0, whose micrometres per pixel are ``mpp``."""

    left: float
    top: float
    right: float
    bottom: float
    mpp: float

    @classmethod
    def of(cls, region: Region, mpp: float, slide_mpp: float) -> Box:
        """The box of a region given in px at ``mpp``."""
        x, y, scale = region.origin.x, region.origin.y, mpp / slide_mpp
        return cls(x * scale, y * scale, region.right * scale, region.bottom * scale, slide_mpp)

    @property
    def middle(self) -> NDArray[np.float64]:
        return np.array([(self.left + self.right) / 2, (self.top + self.bottom) / 2])

    @property
    def corners(self) -> NDArray[np.float64]:
        return np.array([[x, y] for x in (self.left, self.right) for y in (self.top, self.bottom)])


@dataclass(frozen=True)
class Blocks:
    """How the blocks of a patch match under a transform; those on tissue alone.

    ``places`` ``(n, 2)`` are rows and columns in a lattice of ``shape``, ``centres`` ``(n, 2)`` (x, y) in px of the fixed slide's
    level 0. ``correlation`` ``(n,)`` is without any shift, in [-1, 1]; ``shift`` ``(n, 2)`` in µm and ``best`` ``(n,)`` say where a
    block matches best, and how well; ``edge`` ``(n,)`` whether that is at the border of the search.
    """

    places: NDArray[np.int64]
    shape: tuple[int, int]
    centres: NDArray[np.float64]
    correlation: NDArray[np.float64]
    shift: NDArray[np.float64]
    best: NDArray[np.float64]
    edge: NDArray[np.bool_]

    @property
    def mean(self) -> float:
        """Mean correlation without any shift; 0 where no block could be asked."""
        return float(self.correlation.mean()) if len(self.correlation) else 0.0

    def misplacement(self) -> NDArray[np.float64]:
        """``(n,)`` µm: how far a block and its neighbours, in the median of each axis, lie from where they match best.

        One block's own place is noisy; where its neighbours agree that they lie elsewhere, the transform is off by that.
        """
        plane = np.full((*self.shape, 2), np.nan)
        plane[self.places[:, 0], self.places[:, 1]] = self.shift
        smooth = [ndimage.generic_filter(plane[..., i], _median, size=3, mode="constant", cval=np.nan) for i in (0, 1)]
        rows, columns = self.places.T
        return np.asarray(np.hypot(smooth[0][rows, columns], smooth[1][rows, columns]))


@dataclass(frozen=True)
class Refined:
    """A patch's own transform, true in and about the patch only, and how its blocks match under it."""

    transform: Transform
    correction: Correction
    matrix: Matrix
    """``(3, 3)``: applied to px of the fixed slide's level 0 before the slides' own transform."""
    moved_um: float
    """How far it moves the patch's middle."""
    blocks: Blocks


def refine_place(he: Section, ihc: Section, transform: Transform, region: Region, mpp: float) -> Refined:
    """Correct ``transform`` for one patch.

    Args:
        he: the fixed slide.
        ihc: the moving one.
        transform: from ``he`` to ``ihc``, with the mpp of both.
        region: the patch, in px of ``he`` at ``mpp``.
        mpp: micrometres per pixel of the patch.

    Raises:
        RestainError: if pixels cannot be decoded.
    """
    work = max(WORK_UM, he.slide.mpp, ihc.slide.mpp)
    patch = _Patch(he, ihc, transform, Box.of(region, mpp, he.slide.mpp), work)
    found = patch.under(np.eye(3), "none")
    if len(found.blocks.correlation) >= LEAST_SHIFT_BLOCKS:
        found = patch.better(found, patch.common_shift(found.transform))
        found = patch.better(found, patch.fitted(found.blocks))
    return found


def local_transform(transform: Transform, box: Box, matrix: Matrix, margin_um: float = MOST_UM) -> Transform:
    """``transform`` after ``matrix``, its displacement kept over ``box`` and ``margin_um`` about it only."""
    spacing, margin = NODE_UM / box.mpp, margin_um / box.mpp
    left, top = box.left - margin, box.top - margin
    columns = math.ceil((box.right + margin - left) / spacing) + 1
    rows = math.ceil((box.bottom + margin - top) / spacing) + 1
    x, y = left + spacing * np.arange(columns), top + spacing * np.arange(rows)
    at = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    there = transform.forward(_apply(matrix, at))
    back = np.asarray(np.linalg.inv(transform.matrix), dtype=np.float64)
    nodes = (_apply(back, there) - at).reshape(rows, columns, 2)
    return replace(transform, lattice=Lattice(nodes.astype(np.float32), spacing, (left, top)))


@dataclass(frozen=True)
class _Patch:
    he: Section
    ihc: Section
    start: Transform
    box: Box
    work: float

    def under(self, matrix: Matrix, correction: Correction) -> Refined:
        """The patch with ``matrix`` before the slides' transform, measured."""
        margin_um = FAR * self.work * (BLOCK_PX // 2 + REACH_PX + MARGIN_PX + 2)
        local = local_transform(self.start, self.box, matrix, margin_um)
        moved = _apply(matrix, self.box.middle[None])[0] - self.box.middle
        blocks = self.measured(local)
        return Refined(local, correction, matrix, float(np.hypot(*moved)) * self.box.mpp, blocks)

    def better(self, found: Refined, step: tuple[Matrix, Correction] | None) -> Refined:
        """``found`` with one more correction, if the blocks say that it is one."""
        if step is None:
            return found
        matrix = found.matrix @ step[0]
        moves = np.hypot(*(_apply(matrix, self.box.corners) - self.box.corners).T).max() * self.box.mpp
        if moves > MOST_UM:
            return found
        tried = self.under(matrix, step[1])
        return tried if tried.blocks.mean >= found.blocks.mean + LEAST_GAIN else found

    def measured(self, transform: Transform) -> Blocks:
        centres, shape = _centres(self.box, self.work)
        asked = _on_tissue(self.he, centres, self.work)
        places = np.argwhere(np.ones(shape, bool))[asked]
        if not asked.any():
            none, pairs = np.zeros(0), np.zeros((0, 2))
            return Blocks(places, shape, pairs, none, pairs, none, np.zeros(0, bool))
        surfaces = self.surfaces(transform, centres[asked], self.work)
        match = best_shifts(surfaces)
        still = surfaces[:, REACH_PX, REACH_PX].astype(np.float64)
        middles = centres[asked].astype(np.float64) * (self.work / self.box.mpp)
        shift = np.asarray(match.shift * self.work, dtype=np.float64)
        return Blocks(places, shape, middles, still, shift, match.correlation, match.edge)

    def common_shift(self, transform: Transform) -> tuple[Matrix, Correction] | None:
        """Where all blocks together match best, if it is another place and not at the border of the search."""
        mpp = FAR * self.work
        centres, _ = _centres(self.box, mpp)
        centres = centres[_on_tissue(self.he, centres, mpp)]
        if not len(centres):
            return None
        match = best_shifts(self.surfaces(transform, centres, mpp).mean(axis=0, keepdims=True))
        if match.edge[0] or np.hypot(*match.shift[0]) < 0.5:
            return None
        step = np.eye(3)
        step[:2, 2] = match.shift[0] * mpp / self.box.mpp
        return step, "shift"

    def fitted(self, blocks: Blocks) -> tuple[Matrix, Correction] | None:
        """The affine map (of few blocks the shift) through the blocks' own shifts, by reweighted least squares."""
        weight = np.maximum(blocks.best, 0.0) ** 2 * ~blocks.edge
        good = np.count_nonzero(weight > 0.01)
        if good < LEAST_SHIFT_BLOCKS:
            return None
        affine = good >= LEAST_AFFINE_BLOCKS
        middle = blocks.centres.mean(axis=0)
        away = blocks.centres - middle
        spread = max(float(np.abs(away).max()), 1.0)
        design = np.column_stack([np.ones(len(away)), *(away.T / spread if affine else ())])
        target, near = blocks.shift / self.box.mpp, FIT_PX * self.work / self.box.mpp
        answer = np.zeros((design.shape[1], 2))
        answer[0] = np.average(target, axis=0, weights=weight)
        for _ in range(8):
            misfit = np.hypot(*(target - design @ answer).T)
            each = np.sqrt(weight / (1 + (misfit / near) ** 2))[:, None]
            answer = np.linalg.lstsq(design * each, target * each, rcond=None)[0]
        step = np.eye(3)
        if affine:
            step[:2, :2] += answer[1:].T / spread
        step[:2, 2] = answer[0] + middle - step[:2, :2] @ middle
        return step, "affine" if affine else "shift"

    def surfaces(self, transform: Transform, centres: NDArray[np.int64], mpp: float) -> NDArray[np.float32]:
        """``(n, side, side)``: correlations of blocks at ``mpp``, both channels together."""
        margin = BLOCK_PX // 2 + REACH_PX + MARGIN_PX + 1
        left, top = (int(v) - margin for v in centres.min(axis=0))
        right, bottom = (int(v) + margin for v in centres.max(axis=0))
        region = Region(Point(left, top), Size(right - left, bottom - top))
        one = channels(read_mirrored(self.he.slide, region, mpp), self.he.look)
        other = channels(warp_region(self.ihc.slide, transform, region, mpp, outside=None), self.ihc.look)
        each = correlations(one, other, centres - (left, top), BLOCK_PX, REACH_PX)
        return np.tensordot(each, PRIOR.astype(np.float32), axes=(1, 0))


def _apply(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(moved[:, :2] / moved[:, 2:], dtype=np.float64)


def _centres(box: Box, mpp: float) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """``(rows * columns, 2)`` block centres (x, y) in px at ``mpp``, even about the patch's middle, and ``(rows, columns)``."""
    scale = box.mpp / mpp
    sides = []
    for low, high in ((box.left * scale, box.right * scale), (box.top * scale, box.bottom * scale)):
        count = max(1, int((high - low) // STRIDE_PX))
        sides.append(np.rint((low + high) / 2 + (np.arange(count) - (count - 1) / 2) * STRIDE_PX).astype(np.int64))
    across, down = np.meshgrid(*sides)
    return np.stack([across.ravel(), down.ravel()], axis=1), (len(sides[1]), len(sides[0]))


def _on_tissue(he: Section, centres: NDArray[np.int64], mpp: float) -> NDArray[np.bool_]:
    size = Size(BLOCK_PX, BLOCK_PX)
    regions = (Region(Point(int(x) - BLOCK_PX // 2, int(y) - BLOCK_PX // 2), size) for x, y in centres)
    return np.array([he.tissue.covers(region, mpp) >= LEAST_TISSUE for region in regions], bool)


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
