"""Do the two slides show the same tissue, and how far is the registration to be believed, place by place?

Block matching always finds something. What tells a true pair is that the place that the transform gives a block stands
out of all places that were tried nearby: in a wrong pair it is one place like any other, whatever the outlines of the
tissue look like, as long as only blocks from inside the tissue are asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.register.coarse import Coarse, is_patch
from restain.register.level import Raster, Section, Shifts
from restain.register.transform import Transform

LEAST_AGREEMENT = 0.8
"""Pairs whose agreement is below this are refused. See docs/register.md for the pairs it was set on, and those it was tried on."""
LEAST_AS_THEY_LIE = 0.5
"""The same for patches that lie on each other about as they come: someone has matched them, and the best of all orientations and
shifts needs more to be believed than the one that was expected."""
LEAST_BLOCKS = 6
"""With fewer blocks inside the tissue, those at its border are asked as well."""
INSIDE = 0.9
"""Share of tissue in a block that lies inside."""


@dataclass(frozen=True)
class Quality:
    """The error that remains, estimated where blocks were matched at the finest resolution that counted.

    All are ``(n,)`` but ``points`` ``(n, 2)``, in px of the fixed slide's level 0. ``error`` is the median distance, in µm (px
    for plain pictures), between the shifts that the neighbouring blocks found and the transform; ``correlation`` that of
    the block as the transform lays it.
    """

    points: NDArray[np.float64]
    places: NDArray[np.int64]
    shape: tuple[int, int]
    error: NDArray[np.float64]
    correlation: NDArray[np.float64]
    spacing: float
    """Distance of neighbouring blocks in px of the fixed slide's level 0."""


def agreement(fixed: Section, shifts: Shifts, raster: Raster) -> float:
    """The mean, over blocks inside the tissue, of how far the transform's place stands out of the search, in deviations."""
    if len(shifts.points) == 0:
        return 0.0
    inside = _inside(fixed, shifts, raster)
    if np.count_nonzero(inside) < LEAST_BLOCKS:
        inside[:] = True
    return float(shifts.standing[inside].mean())


def _inside(fixed: Section, shifts: Shifts, raster: Raster) -> NDArray[np.bool_]:
    side = max(1, round(raster.block * raster.mpp / fixed.tissue.mpp))
    # Beyond the picture the tissue is taken to go on: a patch's border is no border of the tissue.
    share = ndimage.uniform_filter(fixed.tissue.mask.astype(np.float32), side, mode="nearest")
    at = (shifts.points * fixed.slide.mpp / fixed.tissue.mpp).astype(int)
    height, width = share.shape
    return share[np.clip(at[:, 1], 0, height - 1), np.clip(at[:, 0], 0, width - 1)] >= INSIDE


def least_agreement(fixed: Section, coarse: Coarse) -> float:
    """The agreement below which a pair is refused."""
    return LEAST_AS_THEY_LIE if is_patch(fixed) and coarse.as_they_lie else LEAST_AGREEMENT


def quality(shifts: Shifts, transform: Transform, unit: float, spacing: float) -> Quality:
    """The quality of ``transform``, under which ``shifts`` were measured; ``unit`` is the fixed slide's mpp."""
    rows, columns = shifts.shape
    length = np.hypot(*shifts.shifts.T) * unit
    plane = np.full((rows, columns), np.nan)
    plane[shifts.places[:, 0], shifts.places[:, 1]] = length
    # A block's own shift is noisy; where its neighbours agree on one, the transform is off by that.
    smooth = ndimage.generic_filter(plane, _median, size=3, mode="constant", cval=np.nan)
    error = smooth[shifts.places[:, 0], shifts.places[:, 1]]
    return Quality(shifts.points, shifts.places, shifts.shape, error, shifts.expected, spacing)


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
