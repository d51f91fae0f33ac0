"""Elastic refinement, coarse to fine: block matching, and a smooth field through the shifts that agree.

Each resolution has passes of larger and then smaller blocks. A pass counts only if there is something to follow: where the
transform so far lays the blocks must stand out of their search. Where a finer resolution shows nothing that both sections
share, as in sections some way apart, which have no cell in common, refinement ends.

A pass that still moves what stands out well is repeated: blocks that were bent out of likeness, or out of reach, are found
once their neighbours have drawn the field. Where the sections show the very same cells, two more passes look at finer detail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restain.register.field import smooth_field
from restain.register.level import PRIOR, Progress, Raster, Section, Shifts, measure_shifts
from restain.register.structure import SMOOTHING_PX
from restain.register.transform import Lattice, Transform

STIFFNESS = 0.3
"""Weight of the bending energy against the squared correlations of the blocks."""
DOUBTFUL, STIFFER = (1.5, 1.25), 10.0
"""Between these two values of the last pass's mean standing its field becomes so many times stiffer: the shifts of blocks that
share little are far less precise."""
FIT_PX = 3.0
"""Distance in px of the resolution beyond which a block's shift is mistrusted."""
LEAST_STANDING = 0.5
"""Least mean standing of the blocks (see ``level.Shifts``) for a pass to count; by chance it is below 0.3."""
FIRST = ((192, 16, 24), (128, 12, 24), (96, 10, 16), (64, 8, 12))
LATER = ((96, 12, 24), (64, 8, 16))
"""Block, reach and stride in px of the passes at the first resolution and at each finer one."""
SHARP = ((48, 8, 10, 1.0), (48, 8, 10, 0.5))
"""The same and the smoothing of the passes for the very same cells, at the finest resolution."""
SHARP_STANDING = 2.0
"""Mean standing in the pass before from which these are made: neighbouring sections reach 1.5, one section stained twice 2.2."""
MOST_ROUNDS = 4
SETTLED_PX = 1.0
"""A pass is repeated while it moves one block in twenty by more than this, in its own px,"""
SURE_STANDING = 1.0
"""and the blocks' mean standing is at least this: what stands out less is followed once, not chased."""
LEAST_BLOCKS = 6
MOST_BLOCKS = 60_000
"""Blocks per pass; on larger slides they stand farther apart."""


@dataclass(frozen=True)
class Pass:
    """One pass: where it looked, what remained, and whether it counted."""

    raster: Raster
    shifts: Shifts
    misfit: NDArray[np.float64]
    """``(n,)``: distance of each block's shift from the fitted field, in px of the fixed slide's level 0."""

    @property
    def standing(self) -> float:
        return float(self.shifts.standing.mean())

    @property
    def accepted(self) -> bool:
        return self.standing >= LEAST_STANDING


def refine_elastic(
    fixed: Section,
    moving: Section,
    transform: Transform,
    rasters: list[Raster],
    weights: NDArray[np.float64] = PRIOR,
    progress: Progress | None = None,
) -> tuple[Transform, list[Pass]]:
    """``transform`` with a displacement that follows the sections' structures; the passes that were made.

    Both slides and the transform have an mpp. ``progress(done, total)`` counts thousandths.
    """
    work = [_work(fixed, raster) for raster in rasters]
    passes: list[Pass] = []
    laid = transform
    for number, raster in enumerate(rasters):
        if raster.smoothing < SMOOTHING_PX and (not passes or passes[-1].standing < SHARP_STANDING):
            break
        for turn in range(MOST_ROUNDS):
            shifts = measure_shifts(fixed, moving, transform, raster, weights, _part(progress, work, number, turn))
            if len(shifts.points) < LEAST_BLOCKS:
                break
            refined, one = _fitted(transform, shifts, raster, fixed.slide.mpp, STIFFNESS)
            passes.append(one)
            if not one.accepted:
                break
            moved = np.hypot(*(refined.forward(shifts.points) - transform.forward(shifts.points)).T)
            laid, transform, weights = transform, refined, shifts.weights()
            settled = np.percentile(moved, 95) * fixed.slide.mpp < SETTLED_PX * raster.mpp
            if settled or one.standing < SURE_STANDING:
                break
        if passes and not passes[-1].accepted:
            break
    counted = [one for one in passes if one.accepted]
    if counted and (stiffness := _stiffness(counted[-1].standing)) > STIFFNESS:
        transform, _ = _fitted(laid, counted[-1].shifts, counted[-1].raster, fixed.slide.mpp, stiffness)
    if progress is not None:
        progress(1000, 1000)
    return transform, passes


def plan(fixed: Section, coarsest: float, finest: float) -> list[Raster]:
    """The passes: from ``coarsest`` micrometres per pixel, halved as often as ``finest`` allows, and the sharp ones."""
    least_um = math.sqrt(max(fixed.tissue.area_um2, 1.0) / MOST_BLOCKS)
    rasters: list[Raster] = []
    mpp = coarsest
    while True:
        least = math.ceil(least_um / mpp)
        for block, reach, stride in LATER if rasters else FIRST:
            rasters.append(Raster(mpp, block, reach, max(stride, least)))
        if mpp <= finest * 1.4:
            return rasters + [
                Raster(mpp, block, reach, max(stride, least), sharp) for block, reach, stride, sharp in SHARP
            ]
        mpp = max(mpp / 2, finest)


def _part(progress: Progress | None, work: list[float], number: int, turn: int) -> Progress:
    """Progress of one round of a pass, in thousandths of all; rounds that are not needed are leapt over."""
    share = work[number] / MOST_ROUNDS
    start = sum(work[:number]) + turn * share

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(round(1000 * (start + share * done / max(total, 1)) / sum(work)), 1000)

    return tell


def _work(fixed: Section, raster: Raster) -> float:
    blocks = fixed.tissue.area_um2 / (raster.stride * raster.mpp) ** 2
    return float((blocks + 1) * (raster.block + 2 * raster.reach) ** 2)


def _stiffness(standing: float) -> float:
    sure, doubtful = DOUBTFUL
    return float(STIFFNESS * STIFFER ** np.clip((sure - standing) / (sure - doubtful), 0, 1))


def _fitted(
    transform: Transform, shifts: Shifts, raster: Raster, fixed_mpp: float, stiffness: float
) -> tuple[Transform, Pass]:
    px = raster.mpp / fixed_mpp
    start = np.zeros_like(shifts.points) if transform.lattice is None else transform.lattice.at(shifts.points)
    target = start + shifts.shifts
    weight = np.maximum(shifts.match.correlation, 0.0) ** 2 * ~shifts.match.edge + 1e-6
    field, misfit = smooth_field(shifts.shape, shifts.places, target / px, weight, stiffness, FIT_PX)
    first = (raster.stride // 2) * px
    lattice = Lattice((field * px).astype(np.float32), raster.stride * px, (first, first))
    return replace(transform, lattice=lattice), Pass(raster, shifts, misfit * px)
