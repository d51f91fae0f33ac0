"""Heterogeneity of HER2: Rao's quadratic entropy of the levels, split exactly into parts within and between blocks.

``Q = sum_ij |i - j| p_i p_j`` over the levels 0 to 3+ with area shares ``p`` (Rao, *Theor Popul Biol* 21:24, 1982): the
expected level difference of two random places. It is 0 if all tissue has one level, and at most 1.5, with half the tissue at 0
and half at 3+. As ``|i - j|`` is of negative type, Q is concave: the area-weighted mean of the blocks' Q is the part within
blocks and never exceeds the Q of all tissue; the rest is the part between (ibid., section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.her2 import Her2Level

MOST = 1.5
"""Greatest value of the index."""

_DISTANCE = np.abs(np.subtract.outer(np.arange(len(Her2Level)), np.arange(len(Her2Level)))).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """In levels, 0 to ``MOST``; ``within + between == total``."""

    within: float
    between: float

    @property
    def total(self) -> float:
        return self.within + self.between


def quadratic_entropy(areas: ArrayLike) -> float:
    """Rao's Q of the areas at each level, ``(4,)``, not negative; 0 without area."""
    area = np.asarray(areas, np.float64)
    total = area.sum()
    return float(area @ _DISTANCE @ area / total**2) if total > 0 else 0.0


def heterogeneity(areas: ArrayLike) -> Heterogeneity:
    """Heterogeneity from the area of each block at each level, ``(blocks, 4)``, not negative."""
    area: NDArray[np.float64] = np.asarray(areas, np.float64).reshape(-1, len(Her2Level))
    weight = area.sum(axis=1)
    if not weight.sum() > 0:
        return Heterogeneity(0.0, 0.0)
    within = float(weight @ [quadratic_entropy(block) for block in area] / weight.sum())
    # Rounding could bring it below 0.
    return Heterogeneity(within, max(0.0, quadratic_entropy(area.sum(axis=0)) - within))
