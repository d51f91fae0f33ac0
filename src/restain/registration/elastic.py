"""Elastic refinement from coarse to fine: block matching, and a smooth field through the shifts that agree.

Each resolution has passes of larger, then smaller blocks. A pass is accepted only if the mean z-score of its blocks is high
enough. Where a finer resolution shows nothing that both sections share, as in distant sections, refinement ends.

A pass that still moves blocks of high z-score is repeated: blocks that were distorted or out of reach are found once their
neighbours have moved the field. Where both sections show the same cells, two more passes use finer detail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restain.progress import Progress, part
from restain.registration.block_matching import PRIOR, BlockGrid, Section, Shifts, match_blocks
from restain.registration.features import SMOOTHING_PX
from restain.registration.fitting import smooth_field
from restain.registration.transform import Lattice, Transform

STIFFNESS = 0.3
"""Weight of the bending energy against the squared correlations of the blocks."""
STIFFER_BETWEEN, STIFFER = (1.5, 1.25), 10.0
"""Between these two mean z-scores of the last pass its field becomes up to :data:`STIFFER` times stiffer: the shifts of blocks that
share little are far less precise."""
FIT_PX = 3.0
"""Distance in px of the resolution beyond which a block's shift counts as an outlier."""
LEAST_Z = 0.5
"""Least mean z-score of the blocks of an accepted pass; by chance it is below 0.3."""
FIRST = ((192, 16, 24), (128, 12, 24), (96, 10, 16), (64, 8, 12))
LATER = ((96, 12, 24), (64, 8, 16))
"""Block, reach and stride in px of the passes at the first resolution and at each finer one."""
FINE = ((48, 8, 10, 1.0), (48, 8, 10, 0.5))
"""The same and the smoothing of the passes for sections that show the same cells, at the finest resolution."""
FINE_Z = 2.0
"""Mean z-score of the pass before from which these are made: neighbouring sections reach 1.5, one section stained twice 2.2."""
MOST_ROUNDS = 4
SETTLED_PX = 1.0
"""A pass is repeated while it moves one block in twenty by more than this, in its own px,"""
REPEAT_Z = 1.0
"""and the blocks' mean z-score is at least this: weaker matches are followed once only."""
LEAST_BLOCKS = 6
MOST_BLOCKS = 60_000
"""Blocks per pass; on larger slides their stride grows."""


@dataclass(frozen=True)
class Pass:
    """One pass: its blocks and their shifts."""

    grid: BlockGrid
    shifts: Shifts

    @property
    def z_score(self) -> float:
        """The blocks' mean."""
        return float(self.shifts.z_score.mean())

    @property
    def accepted(self) -> bool:
        return self.z_score >= LEAST_Z


def refine_elastic(
    fixed: Section,
    moving: Section,
    transform: Transform,
    grids: list[BlockGrid],
    weights: NDArray[np.float64] = PRIOR,
    progress: Progress | None = None,
) -> tuple[Transform, list[Pass]]:
    """Add a displacement to ``transform`` that follows the sections' structures; also returns the passes that were made.

    Both slides and the transform have an mpp. ``progress(done, total)`` counts thousandths.
    """
    work = np.array([_work(fixed, grid) for grid in grids])
    ends = np.append(0, np.cumsum(work)) / work.sum() * 1000
    passes: list[Pass] = []
    before = transform
    for number, grid in enumerate(grids):
        if grid.smoothing < SMOOTHING_PX and (not passes or passes[-1].z_score < FINE_Z):
            break
        rounds = np.rint(np.linspace(ends[number], ends[number + 1], MOST_ROUNDS + 1)).astype(int)
        for turn in range(MOST_ROUNDS):
            tell = part(progress, int(rounds[turn]), int(rounds[turn + 1]))
            shifts = match_blocks(fixed, moving, transform, grid, weights, tell)
            if len(shifts.points) < LEAST_BLOCKS:
                break
            passes.append(Pass(grid, shifts))
            if not passes[-1].accepted:
                break
            refined = _fit(transform, passes[-1], fixed.slide.mpp, STIFFNESS)
            moved = np.hypot(*(refined.forward(shifts.points) - transform.forward(shifts.points)).T)
            before, transform, weights = transform, refined, shifts.weights()
            settled = np.percentile(moved, 95) * fixed.slide.mpp < SETTLED_PX * grid.mpp
            if settled or passes[-1].z_score < REPEAT_Z:
                break
        if passes and not passes[-1].accepted:
            break
    accepted = [one for one in passes if one.accepted]
    if accepted and (stiffness := _stiffness(accepted[-1].z_score)) > STIFFNESS:
        transform = _fit(before, accepted[-1], fixed.slide.mpp, stiffness)
    part(progress, 0, 1000)(1, 1)
    return transform, passes


def plan_passes(fixed: Section, coarsest: float, finest: float) -> list[BlockGrid]:
    """The passes from ``coarsest`` micrometres per pixel, halved as often as ``finest`` allows, then the fine ones."""
    least_um = math.sqrt(max(fixed.tissue.area_um2, 1.0) / MOST_BLOCKS)
    grids: list[BlockGrid] = []
    mpp = coarsest
    while True:
        least = math.ceil(least_um / mpp)
        sizes = LATER if grids else FIRST
        grids += [BlockGrid(mpp, block, reach, max(stride, least)) for block, reach, stride in sizes]
        if mpp <= finest * 1.4:
            fine = [BlockGrid(mpp, block, reach, max(stride, least), sigma) for block, reach, stride, sigma in FINE]
            return grids + fine
        mpp = max(mpp / 2, finest)


def _work(fixed: Section, grid: BlockGrid) -> float:
    blocks = fixed.tissue.area_um2 / (grid.stride * grid.mpp) ** 2
    return float((blocks + 1) * (grid.block + 2 * grid.reach) ** 2)


def _stiffness(z_score: float) -> float:
    high, low = STIFFER_BETWEEN
    return float(STIFFNESS * STIFFER ** np.clip((high - z_score) / (high - low), 0, 1))


def _fit(transform: Transform, one: Pass, fixed_mpp: float, stiffness: float) -> Transform:
    """``transform`` with the smooth field through its own displacement plus the shifts of a pass."""
    shifts, grid = one.shifts, one.grid
    px = grid.mpp / fixed_mpp
    start = np.zeros_like(shifts.points) if transform.lattice is None else transform.lattice.at(shifts.points)
    weight = np.maximum(shifts.match.correlation, 0.0) ** 2 * ~shifts.match.edge + 1e-6
    field, _ = smooth_field(shifts.shape, shifts.places, (start + shifts.shifts) / px, weight, stiffness, FIT_PX)
    first = (grid.stride // 2) * px
    return replace(transform, lattice=Lattice((field * px).astype(np.float32), grid.stride * px, (first, first)))
