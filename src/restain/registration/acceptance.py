"""The verdict on a registration, and its error at each block.

Registration always finds a transform. The prominence of that transform tells whether the sections show the same tissue. It is
compared with the limits below, for which docs/register.md names the pairs on which they were set and tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.errors import RestainError
from restain.registration.affine import InitialAlignment, mean_z
from restain.registration.block_matching import BlockGrid, Section, Shifts, neighbourhood_median

ACCEPTED_FROM = {True: 2.25, False: 3.1}
"""Least score of accepted patches, and of other accepted sections, whose outlines may fit by chance; see
:attr:`~restain.registration.affine.InitialAlignment.score`."""
DOUBTFUL_FROM = 1.6
"""Least score of doubtful pairs."""
LEAST_BLOCKS = 6
"""With fewer blocks inside the tissue, those at its border count as well."""
INSIDE = 0.9
"""Least share of tissue in a block that is inside."""


class Verdict(StrEnum):
    """What registration says about a pair."""

    ACCEPTED = "accepted"
    DOUBTFUL = "doubtful"
    """The sections may show different tissue: the result is to be judged by eye."""
    REFUSED = "refused"


class PairRefusedError(RestainError):
    """Two sections do not show the same tissue."""


def judge(initial: InitialAlignment) -> Verdict:
    """The verdict on two sections whose best affine transform is ``initial``."""
    if initial.score >= ACCEPTED_FROM[initial.patch]:
        return Verdict.ACCEPTED
    return Verdict.DOUBTFUL if initial.score >= DOUBTFUL_FROM else Verdict.REFUSED


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


def _inside(fixed: Section, shifts: Shifts, grid: BlockGrid) -> NDArray[np.bool_]:
    side = max(1, round(grid.block * grid.mpp / fixed.tissue.mpp))
    # A patch's border is no border of the tissue.
    share = ndimage.uniform_filter(fixed.tissue.mask.astype(np.float32), side, mode="nearest")
    return fixed.on_tissue(shifts.points, share >= INSIDE)
