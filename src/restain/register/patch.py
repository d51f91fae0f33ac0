"""The last correction: how far two patches that should match are still shifted, and how well they match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restain.images import Rgb
from restain.register.blocks import best_shifts, correlations, standing
from restain.register.level import PRIOR
from restain.register.structure import Look, channels, look_of

REACH_PX = 12
"""Largest shift that is sought, in px."""
LEAST_SIDE_PX = 4 * REACH_PX


@dataclass(frozen=True)
class PatchMatch:
    """``shift`` (x, y) in px: what lies at ``p`` in the fixed patch lies at ``p + shift`` in the moving one.

    ``correlation`` is that of the patches after the shift, in [-1, 1]; ``contrast`` by how many standard deviations it
    stands out of all shifts tried; ``before`` the correlation without a shift, ``standing`` how far that stands out. ``certain`` is
    False where the best shift is at the border of the search.
    """

    shift: tuple[float, float]
    correlation: float
    contrast: float
    before: float
    standing: float
    certain: bool


def refine_patch(fixed: Rgb, moving: Rgb, looks: tuple[Look, Look] | None = None) -> PatchMatch:
    """The shift between two patches that a registration laid on each other.

    Args:
        fixed: ``(H, W, 3)`` ``uint8``.
        moving: the same size, read with ``warp_region``.
        looks: of the two slides, where known (``Registration.looks``); a patch alone may show no glass to measure.

    Raises:
        ValueError: if the sizes differ or a side is shorter than :data:`LEAST_SIDE_PX`.
    """
    if fixed.shape != moving.shape or min(fixed.shape[:2]) < LEAST_SIDE_PX:
        raise ValueError(
            f"patches must be of one size of at least {LEAST_SIDE_PX} px, not {fixed.shape} and {moving.shape}"
        )
    one, two = looks or (look_of(fixed), look_of(moving))
    height, width = fixed.shape[:2]
    block = min(height, width) - 2 * REACH_PX - 2
    centre = np.array([[width // 2, height // 2]])
    surface = np.tensordot(
        correlations(channels(fixed, one), channels(moving, two), centre, block, REACH_PX),
        PRIOR.astype(np.float32),
        axes=(1, 0),
    )
    match = best_shifts(surface)
    return PatchMatch(
        (float(match.shift[0, 0]), float(match.shift[0, 1])),
        float(match.correlation[0]),
        float(match.contrast[0]),
        float(surface[0, REACH_PX, REACH_PX]),
        float(standing(surface)[0]),
        not bool(match.edge[0]),
    )
