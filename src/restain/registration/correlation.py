"""Masked normalised cross-correlation of whole pictures, and how far a transform's correlation stands out.

The correlation of two whole sections uses all that they share at once, so that it tells neighbouring sections from
different tissue where single blocks share too little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from restain.geometry import Point, Region
from restain.registration.block_matching import PRIOR, Section
from restain.registration.features import Floats, feature_channels
from restain.registration.transform import Transform
from restain.registration.warp import warp_region
from restain.slides.mask import Mask

LEAST_OVERLAP = 0.25
"""Least share of the smaller mask that overlaps the other."""
VARIANCE_FLOOR = 0.05
"""Added to variances, so that flat overlaps do not correlate by noise."""
REACH_PX = 32
"""Largest shift, in px of the overviews, at which :func:`prominence` searches the largest correlation."""


class Correlator:
    """Correlation of one picture with others at all shifts (Padfield, *IEEE TIP* 21:2706, 2012).

    Args:
        planes: ``(C, H, W)``; each channel is correlated by itself.
        mask: ``(H, W)``, what counts.
        side: side of the cyclic surfaces in px, at least that of the pictures plus the largest shift.
    """

    def __init__(self, planes: Floats, mask: NDArray[np.float32], side: int) -> None:
        self.side = int(fft.next_fast_len(side, real=True))
        self.area = float(mask.sum())
        self._one = np.conj(self._fft(planes * mask))
        self._square = np.conj(self._fft(planes * planes * mask))
        self._valid = np.conj(self._fft(mask))

    def _fft(self, planes: Floats) -> NDArray[np.complex64]:
        return np.asarray(fft.rfft2(planes, (self.side, self.side)))

    def _back(self, product: NDArray[np.complex64]) -> Floats:
        return np.asarray(fft.irfft2(product, (self.side, self.side)))

    def surfaces(self, planes: Floats, mask: NDArray[np.float32]) -> Floats:
        """``(C, side, side)``: [row, column] is the correlation at shift (column, row) of ``planes``, modulo ``side``.

        Correlations are multiplied by the root of the overlap's share of the area, because a small overlap reaches any
        correlation by chance; -1 where the overlap is too small.
        """
        valid = self._fft(mask)
        overlap = np.maximum(self._back(valid * self._valid), 1e-3)
        spectrum = self._fft(planes * mask)
        own_mean, other_mean = self._back(valid * self._one) / overlap, self._back(spectrum * self._valid) / overlap
        own = self._back(valid * self._square) / overlap - own_mean**2
        other = self._back(self._fft(planes * planes * mask) * self._valid) / overlap - other_mean**2
        product = self._back(spectrum * self._one) / overlap - own_mean * other_mean
        surface = product / np.sqrt((np.maximum(own, 0) + VARIANCE_FLOOR) * (np.maximum(other, 0) + VARIANCE_FLOOR))
        enough = overlap > LEAST_OVERLAP * min(self.area, float(mask.sum()))
        return np.asarray(np.where(enough, surface * np.sqrt(overlap / max(self.area, 1.0)), -1.0))


@dataclass(frozen=True)
class Prominence:
    """How far the correlation of two sections under a transform stands out.

    ``value`` is the largest correlation within :data:`REACH_PX`, divided by the mean of those that the seven quarter turns and
    mirror images of the moving section reach, which are wrong by construction: about 1 for different tissue. ``correlation`` in
    [-1, 1] is its numerator, and ``shift`` (x, y) the shift, in px of the fixed overview, at which it was found.
    """

    value: float
    correlation: float
    shift: tuple[float, float]


def prominence(fixed: Section, moving: Section, transform: Transform) -> Prominence:
    """The prominence of ``transform`` between two overviews, whose slides have an mpp."""
    size, mpp = fixed.slide.size, fixed.slide.mpp
    whole = Region(Point(0, 0), size)
    warped = warp_region(moving.slide, transform, whole, mpp, outside=None)
    one, other = feature_channels(fixed.slide.read(whole, mpp), fixed.stain), feature_channels(warped, moving.stain)
    y, x = np.mgrid[: size.height, : size.width] + 0.5
    there = transform.forward(np.stack([x.ravel(), y.ravel()], axis=1))
    shown = moving.on_tissue(there).reshape(size.height, size.width)
    masks = fixed.on_tissue(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(shown.shape), shown
    if not (masks[0] & masks[1]).any():
        return Prominence(0.0, 0.0, (0.0, 0.0))
    (fixed_planes, fixed_mask), (planes, mask) = (
        _square(plane, own, masks[0] & masks[1]) for plane, own in zip((one, other), masks, strict=True)
    )
    correlator = Correlator(fixed_planes, fixed_mask, fixed_mask.shape[0] + REACH_PX)
    peaks = []
    for number in range(8):
        flip = 1 if number < 4 else -1
        turned, valid = (np.rot90(part[..., ::flip], number % 4, (-2, -1)) for part in (planes, mask))
        surface = np.tensordot(PRIOR, correlator.surfaces(turned, valid), axes=1)
        near = np.roll(surface, (REACH_PX, REACH_PX), (0, 1))[: 2 * REACH_PX + 1, : 2 * REACH_PX + 1]
        row, column = np.unravel_index(int(near.argmax()), near.shape)
        peaks.append((float(near.max()), float(column) - REACH_PX, float(row) - REACH_PX))
    by_chance = max(float(np.mean([peak for peak, *_ in peaks[1:]])), 1e-3)
    return Prominence(peaks[0][0] / by_chance, peaks[0][0], peaks[0][1:])


def _square(planes: Floats, mask: Mask, both: Mask) -> tuple[Floats, Floats]:
    """Planes and mask on a square about the tissue of ``both`` sections, so that a quarter turn stays on it."""
    rows, columns = (np.flatnonzero(both.any(axis=axis)) for axis in (1, 0))
    side = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    corner = [int(places[0] + places[-1] + 1 - side) // 2 for places in (rows, columns)]
    index = [np.clip(np.arange(start, start + side), 0, n - 1) for start, n in zip(corner, mask.shape, strict=True)]
    inside = [
        (np.arange(start, start + side) >= 0) & (np.arange(start, start + side) < n)
        for start, n in zip(corner, mask.shape, strict=True)
    ]
    shown = mask[np.ix_(*index)] & np.outer(*inside)
    return np.asarray(planes[:, index[0][:, None], index[1]]), shown.astype(np.float32)
