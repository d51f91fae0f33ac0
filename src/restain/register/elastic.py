"""Elastic refinement, coarse to fine: block matching, and a smooth field through the shifts that agree.

Each resolution has passes of larger and then smaller blocks. A pass counts only if there is something to follow: where the
transform so far lays the blocks must stand out of their search. Where a finer resolution shows nothing that both sections
share, as in sections some way apart, which have no cell in common, refinement ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restain.register.field import smooth_field
from restain.register.level import PRIOR, Progress, Raster, Section, Shifts, measure_shifts
from restain.register.transform import Lattice, Transform

STIFFNESS = 0.3
"""Weight of the bending energy against the squared correlations of the blocks."""
FIT_PX = 3.0
"""Distance in px of the resolution beyond which a block's shift is mistrusted."""
LEAST_STANDING = 0.5
"""Least mean standing of the blocks (see ``level.Shifts``) for a pass to count; by chance it is below 0.3."""
FIRST = ((192, 16, 24), (128, 12, 24), (96, 10, 16), (64, 8, 12))
LATER = ((96, 12, 24), (64, 8, 16))
"""Block, reach and stride in px of the passes at the first resolution and at each finer one."""
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
    for number, raster in enumerate(rasters):
        before = sum(work[:number])

        def tell(done: int, total: int, start: float = before, share: float = work[number]) -> None:
            if progress is not None:
                progress(round(1000 * (start + share * done / max(total, 1)) / sum(work)), 1000)

        shifts = measure_shifts(fixed, moving, transform, raster, weights, tell)
        if len(shifts.points) < 6:
            continue
        refined, one = _fitted(transform, shifts, raster, fixed.slide.mpp)
        passes.append(one)
        if not one.accepted:
            break
        transform, weights = refined, shifts.weights()
    if progress is not None:
        progress(1000, 1000)
    return transform, passes


def plan(fixed: Section, coarsest: float, finest: float) -> list[Raster]:
    """The passes: from ``coarsest`` micrometres per pixel, halved as often as ``finest`` allows."""
    tissue = max(fixed.tissue.area_um2, 1.0)
    rasters: list[Raster] = []
    mpp = coarsest
    while True:
        for block, reach, stride in LATER if rasters else FIRST:
            apart = max(stride, math.ceil(math.sqrt(tissue / MOST_BLOCKS) / mpp))
            rasters.append(Raster(mpp, block, reach, apart))
        if mpp <= finest * 1.4:
            return rasters
        mpp = max(mpp / 2, finest)


def _work(fixed: Section, raster: Raster) -> float:
    blocks = fixed.tissue.area_um2 / (raster.stride * raster.mpp) ** 2
    return float((blocks + 1) * (raster.block + 2 * raster.reach) ** 2)


def _fitted(transform: Transform, shifts: Shifts, raster: Raster, fixed_mpp: float) -> tuple[Transform, Pass]:
    px = raster.mpp / fixed_mpp
    start = np.zeros_like(shifts.points) if transform.lattice is None else transform.lattice.at(shifts.points)
    target = start + shifts.shifts
    weight = np.maximum(shifts.match.correlation, 0.0) ** 2 * ~shifts.match.edge + 1e-6
    field, misfit = smooth_field(shifts.shape, shifts.places, target / px, weight, STIFFNESS, FIT_PX)
    first = (raster.stride // 2) * px
    lattice = Lattice((field * px).astype(np.float32), raster.stride * px, (first, first))
    return replace(transform, lattice=lattice), Pass(raster, shifts, misfit * px)
