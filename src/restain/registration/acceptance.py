"""Whether two slides show the same tissue, and the error of the registration at each block.

Block matching always finds something. In a true pair, the place that the transform gives a block has a high z-score among
all places that were tried nearby. In a wrong pair it is one place like any other, whatever the outlines of the tissue, as
long as only blocks inside the tissue are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.registration.affine import InitialAlignment, is_patch, mean_z
from restain.registration.block_matching import BlockGrid, Section, Shifts, neighbourhood_median

LEAST_AGREEMENT = 0.8
"""Pairs whose agreement is below this are refused. docs/register.md names the pairs on which it was set and tested."""
LEAST_AGREEMENT_UNROTATED = 0.5
"""The same for unrotated patches: they were matched before, and the best of all orientations and shifts needs more evidence than
the expected one."""
LEAST_BLOCKS = 6
"""With fewer blocks inside the tissue, those at its border count as well."""
INSIDE = 0.9
"""Least share of tissue in a block that is inside."""


@dataclass(frozen=True)
class Quality:
    """The estimated error that remains, at the blocks of the finest resolution that was accepted.

    ``error`` ``(n,)`` is the median distance, in µm (px for plain pictures), between the shifts of neighbouring blocks and the
    transform; ``correlation`` ``(n,)`` that of the block under the transform. ``places`` ``(n, 2)`` are rows and columns of
    the blocks in a lattice of ``shape``, whose ``spacing`` is in px of the fixed slide's level 0.
    """

    places: NDArray[np.int64]
    shape: tuple[int, int]
    spacing: float
    error: NDArray[np.float64]
    correlation: NDArray[np.float64]

    @classmethod
    def of(cls, shifts: Shifts, unit: float, spacing: float) -> Quality:
        """The quality of the transform under which ``shifts`` were measured; ``unit`` is the fixed slide's mpp."""
        error = neighbourhood_median(shifts.shape, shifts.places, np.hypot(*shifts.shifts.T) * unit)
        return cls(shifts.places, shifts.shape, spacing, error, shifts.unshifted)


def agreement(fixed: Section, shifts: Shifts, grid: BlockGrid) -> float:
    """The mean z-score of the blocks inside the tissue."""
    inside = _inside(fixed, shifts, grid)
    if np.count_nonzero(inside) < LEAST_BLOCKS:
        return mean_z(shifts)
    return float(shifts.z_score[inside].mean())


def least_agreement(fixed: Section, alignment: InitialAlignment) -> float:
    """The agreement below which a pair is refused."""
    return LEAST_AGREEMENT_UNROTATED if is_patch(fixed) and alignment.unrotated else LEAST_AGREEMENT


def _inside(fixed: Section, shifts: Shifts, grid: BlockGrid) -> NDArray[np.bool_]:
    side = max(1, round(grid.block * grid.mpp / fixed.tissue.mpp))
    # A patch's border is no border of the tissue.
    share = ndimage.uniform_filter(fixed.tissue.mask.astype(np.float32), side, mode="nearest")
    x, y = (shifts.points * fixed.slide.mpp / fixed.tissue.mpp).astype(int).T
    height, width = share.shape
    return share[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] >= INSIDE
