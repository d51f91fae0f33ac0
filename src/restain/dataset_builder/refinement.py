"""Refinement of the registration for one patch: an affine correction by its blocks.

A registration of whole slides is smooth over hundreds of micrometres, and an external one may be a single matrix. A patch is
corrected by block matching of the two stain-independent channels: first one shift for all blocks together, with a large
reach, then an affine map through the shifts of single blocks. A correction counts only if it raises the blocks' correlation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size
from restain.registration import Lattice, Transform
from restain.registration.block_matching import (
    PRIOR,
    BlockGrid,
    Section,
    best_shifts,
    correlation_surfaces,
    neighbourhood_median,
)
from restain.registration.features import MARGIN_PX, Floats
from restain.registration.transform import Matrix, Points, apply_matrix, invert

WORK_UM = 1.0
"""Resolution of block matching in µm per px; nuclei are clear, and coarser slides stay as they are."""
BLOCK_PX, STRIDE_PX, REACH_PX = 64, 32, 10
"""Side, distance and search range of the blocks, in px at :data:`WORK_UM`."""
COARSER = 2.0
"""The common shift is searched at a resolution so many times coarser, and so with a larger reach."""
LEAST_GAIN = 0.01
"""Least gain in the blocks' mean correlation of a correction."""
LEAST_SHIFT_BLOCKS, LEAST_AFFINE_BLOCKS = 4, 16
"""Least number of matched blocks for a shift, and for an affine map."""
FIT_PX = 3.0
"""Distance of a block's shift from the fit, in px at :data:`WORK_UM`, at which it has half the weight."""
MOST_UM = 40.0
"""Largest accepted move of any corner of the patch."""
NODE_UM = 8.0
"""Spacing of the lattice of a patch's transform."""
LEAST_TISSUE = 0.5
"""Least share of tissue of a block."""

Correction = Literal["none", "shift", "affine"]


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
        scale = mpp / slide_mpp
        sides = region.origin.x * scale, region.origin.y * scale, region.right * scale, region.bottom * scale
        return cls(*sides, slide_mpp)

    @property
    def middle(self) -> Points:
        """``(1, 2)``."""
        return np.array([[(self.left + self.right) / 2, (self.top + self.bottom) / 2]])

    @property
    def corners(self) -> Points:
        return np.array([[x, y] for x in (self.left, self.right) for y in (self.top, self.bottom)])

    def grid(self, mpp: float) -> Points:
        """Points ``(n, 2)`` all over the box, about ``mpp`` apart, in px of level 0."""
        columns = max(4, math.ceil((self.right - self.left) * self.mpp / mpp))
        rows = max(4, math.ceil((self.bottom - self.top) * self.mpp / mpp))
        x = self.left + (np.arange(columns) + 0.5) / columns * (self.right - self.left)
        y = self.top + (np.arange(rows) + 0.5) / rows * (self.bottom - self.top)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Blocks:
    """The blocks of a patch on tissue, and how they match under a transform.

    ``places`` ``(n, 2)`` are rows and columns in a lattice of ``shape``, ``centres`` ``(n, 2)`` (x, y) in px of the fixed
    slide's level 0. ``correlation`` ``(n,)`` is that at zero shift, in [-1, 1]. ``shift`` ``(n, 2)`` in µm and ``best`` ``(n,)``
    are the best shift and its correlation; ``edge`` ``(n,)`` marks shifts at the border of the search.
    """

    places: NDArray[np.int64]
    shape: tuple[int, int]
    centres: Points
    correlation: NDArray[np.float64]
    shift: NDArray[np.float64]
    best: NDArray[np.float64]
    edge: NDArray[np.bool_]

    @property
    def mean(self) -> float:
        """Mean correlation at zero shift; 0 without blocks."""
        return float(self.correlation.mean()) if len(self.correlation) else 0.0

    def misplacement(self) -> NDArray[np.float64]:
        """``(n,)``: length in µm of the median shift (of each axis) of a block and its neighbours."""
        return np.asarray(np.hypot(*(neighbourhood_median(self.shape, self.places, axis) for axis in self.shift.T)))


@dataclass(frozen=True)
class RefinedPatch:
    """A patch's own transform, valid in and about the patch only, and how its blocks match under it."""

    transform: Transform
    correction: Correction
    matrix: Matrix
    """``(3, 3)``: applied to px of the fixed slide's level 0 before the slides' own transform."""
    moved_um: float
    """Distance by which it moves the patch's middle."""
    blocks: Blocks


def refine_patch(he: Section, ihc: Section, transform: Transform, region: Region, mpp: float) -> RefinedPatch:
    """Correct ``transform`` (from ``he`` to ``ihc``, with the mpp of both) for ``region``, a patch in px of ``he`` at ``mpp``.

    Raises:
        RestainError: if pixels cannot be decoded.
    """
    matcher = _Matcher(he, ihc, transform, Box.of(region, mpp, he.slide.mpp), max(WORK_UM, he.slide.mpp, ihc.slide.mpp))
    found = matcher.under(np.eye(3), "none")
    if len(found.blocks.correlation) >= LEAST_SHIFT_BLOCKS:
        found = matcher.better(found, matcher.common_shift(found.transform))
        found = matcher.better(found, matcher.fit(found.blocks))
    return found


def local_transform(transform: Transform, box: Box, matrix: Matrix, margin_um: float = MOST_UM) -> Transform:
    """``transform`` after ``matrix``, with a displacement over ``box`` and ``margin_um`` about it only."""
    spacing, margin = NODE_UM / box.mpp, margin_um / box.mpp
    left, top = box.left - margin, box.top - margin
    columns = math.ceil((box.right + margin - left) / spacing) + 1
    rows = math.ceil((box.bottom + margin - top) / spacing) + 1
    x, y = left + spacing * np.arange(columns), top + spacing * np.arange(rows)
    nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    moved = apply_matrix(invert(transform.matrix), transform.forward(apply_matrix(matrix, nodes)))
    displacement = (moved - nodes).reshape(rows, columns, 2).astype(np.float32)
    return replace(transform, lattice=Lattice(displacement, spacing, (left, top)))


@dataclass(frozen=True)
class _Matcher:
    """Block matching in one patch; ``work`` is its resolution in µm per px."""

    he: Section
    ihc: Section
    start: Transform
    box: Box
    work: float

    def under(self, matrix: Matrix, correction: Correction) -> RefinedPatch:
        """The patch with ``matrix`` before the slides' transform."""
        margin_um = COARSER * self.work * (BLOCK_PX // 2 + REACH_PX + MARGIN_PX + 2)
        transform = local_transform(self.start, self.box, matrix, margin_um)
        moved = apply_matrix(matrix, self.box.middle) - self.box.middle
        return RefinedPatch(
            transform, correction, matrix, float(np.hypot(*moved[0])) * self.box.mpp, self.matched(transform)
        )

    def better(self, found: RefinedPatch, step: tuple[Matrix, Correction] | None) -> RefinedPatch:
        """``found`` with one more correction, if that raises the blocks' correlation."""
        if step is None:
            return found
        matrix = found.matrix @ step[0]
        moves = np.hypot(*(apply_matrix(matrix, self.box.corners) - self.box.corners).T).max() * self.box.mpp
        if moves > MOST_UM:
            return found
        tried = self.under(matrix, step[1])
        return tried if tried.blocks.mean >= found.blocks.mean + LEAST_GAIN else found

    def matched(self, transform: Transform) -> Blocks:
        places, shape, centres = self.blocks(self.work)
        surfaces = self.surfaces(transform, centres, self.work)
        match = best_shifts(surfaces)
        return Blocks(
            places,
            shape,
            centres.astype(np.float64) * (self.work / self.box.mpp),
            surfaces[:, REACH_PX, REACH_PX].astype(np.float64),
            np.asarray(match.shift * self.work, dtype=np.float64),
            match.correlation,
            match.edge,
        )

    def common_shift(self, transform: Transform) -> tuple[Matrix, Correction] | None:
        """The best shift of all blocks together, unless it is near 0 or at the border of the search."""
        mpp = COARSER * self.work
        centres = self.blocks(mpp)[2]
        if not len(centres):
            return None
        match = best_shifts(self.surfaces(transform, centres, mpp).mean(axis=0, keepdims=True))
        if match.edge[0] or np.hypot(*match.shift[0]) < 0.5:
            return None
        step = np.eye(3)
        step[:2, 2] = match.shift[0] * mpp / self.box.mpp
        return step, "shift"

    def fit(self, blocks: Blocks) -> tuple[Matrix, Correction] | None:
        """The affine map (with few blocks the shift) through the blocks' own shifts, by reweighted least squares."""
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
        fitted = np.zeros((design.shape[1], 2))
        fitted[0] = np.average(target, axis=0, weights=weight)
        for _ in range(8):
            misfit = np.hypot(*(target - design @ fitted).T)
            root = np.sqrt(weight / (1 + (misfit / near) ** 2))[:, None]
            fitted = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        step = np.eye(3)
        if affine:
            step[:2, :2] += fitted[1:].T / spread
        step[:2, 2] = fitted[0] + middle - step[:2, :2] @ middle
        return step, "affine" if affine else "shift"

    def blocks(self, mpp: float) -> tuple[NDArray[np.int64], tuple[int, int], NDArray[np.int64]]:
        """The blocks on tissue: places, shape of the lattice, and centres ``(n, 2)`` in px at ``mpp``, even about the middle."""
        scale = self.box.mpp / mpp
        sides = []
        for low, high in ((self.box.left, self.box.right), (self.box.top, self.box.bottom)):
            low, high = low * scale, high * scale
            count = max(1, int((high - low) // STRIDE_PX))
            sides.append(np.rint((low + high) / 2 + (np.arange(count) - (count - 1) / 2) * STRIDE_PX).astype(np.int64))
        shape = len(sides[1]), len(sides[0])
        centres = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
        size = Size(BLOCK_PX, BLOCK_PX)
        regions = (Region(Point(int(x) - BLOCK_PX // 2, int(y) - BLOCK_PX // 2), size) for x, y in centres)
        tissue = np.array([self.he.tissue.covers(region, mpp) >= LEAST_TISSUE for region in regions], bool)
        return np.argwhere(np.ones(shape, bool))[tissue], shape, centres[tissue]

    def surfaces(self, transform: Transform, centres: NDArray[np.int64], mpp: float) -> Floats:
        """``(n, side, side)``: correlations of blocks at ``mpp``, both channels together."""
        if not len(centres):
            return np.zeros((0, 2 * REACH_PX + 1, 2 * REACH_PX + 1), np.float32)
        grid = BlockGrid(mpp, BLOCK_PX, REACH_PX, STRIDE_PX)
        each = correlation_surfaces(self.he, self.ihc, transform, grid, centres)
        return np.tensordot(each, PRIOR.astype(np.float32), axes=(1, 0))
