"""Masks of tissue, pen marks and folds, found once on an overview of each slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from restain.optics import optical_density
from restain.progress import Progress
from restain.registration.block_matching import Section
from restain.registration.features import measure_stain
from restain.slides import Slide, TissueMask, tissue_of
from restain.slides.mask import MASK_MPP, ink_marks, overview

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

FOLD_DENSER = {"he": (1.4, 1.25), "ihc": (1.5, 1.3)}
"""Density ratios to the dense tissue beside a band, from which a fold is found, and followed. IHC has pale stroma and dense nests,
and needs more."""
FOLD_BAND_UM = (240.0, 24.0)
"""Length and width of the band over which density is averaged: tumour nests are as dense, but not as long and straight."""
FOLD_BESIDE_UM = (60.0, 40.0)
"""Distance and width of the bands on both sides to which it is compared."""
FOLD_DIRECTIONS = 16
FOLD_LEAST_DENSITY = 0.4
"""Share of the median density below which a place is a hole, which is neither fold nor its surroundings."""
FOLD_DENSE = 75.0
"""Percentile of the tissue's density to which a fold is compared if it is paler beside it."""
FOLD_LEAST_UM2 = 1_500.0
"""Least area of a fold."""


@dataclass(frozen=True)
class SlideMasks:
    """A slide, and masks ``(h, w)`` of its overview at ``section.tissue.mpp``."""

    section: Section
    pen: Mask
    fold: Mask

    @property
    def tissue(self) -> TissueMask:
        return self.section.tissue


def find_masks(slide: Slide, stain: Literal["he", "ihc"], progress: Progress | None = None) -> SlideMasks:
    """Find the masks of a whole slide at :data:`~restain.slides.mask.MASK_MPP`.

    Raises:
        RestainError: if the slide has no mpp or cannot be read.
    """
    picture, mpp = overview(slide, MASK_MPP, progress)
    tissue = tissue_of(picture, mpp)
    density = np.maximum(optical_density(picture, tissue.glass), 0)
    pen = ink_marks(density, mpp)
    # DAB absorbs little red, so that strongly stained nests are no folds there; eosin, which helps in H&E, absorbs even less.
    plane = density.sum(axis=-1) if stain == "he" else density[..., 0]
    fold = find_folds(plane, tissue.mask & ~pen, mpp, *FOLD_DENSER[stain])
    section = Section(slide, tissue, measure_stain(picture, tissue.mask))
    return SlideMasks(section, pen, fold)


def find_folds(density: Floats, tissue: Mask, mpp: float, strong: float, weak: float) -> Mask:
    """Long narrow bands of double tissue: ``(h, w)`` density and tissue to ``(h, w)`` bool.

    A fold is denser than the tissue on both sides of it, and than the slide's dense tissue, over a length that no cell nest
    keeps straight. It is found where the ratio is above ``strong``, and followed while it is above ``weak``. For 4 to 16 µm per
    px; the thresholds are restain's own, set on phantom slides.
    """
    ratio = _band_ratio(density, tissue, mpp)
    folds = ndimage.binary_propagation(ratio > strong, mask=ratio > weak, structure=np.ones((3, 3)))
    pieces, _ = ndimage.label(folds, np.ones((3, 3)))
    large = np.bincount(pieces.ravel()) * mpp**2 >= FOLD_LEAST_UM2
    large[0] = False
    return large[pieces]


def _band_ratio(density: Floats, tissue: Mask, mpp: float) -> Floats:
    """The density of the band through each place relative to what is beside it, the largest of all directions."""
    if not tissue.any():
        return np.zeros(tissue.shape, np.float32)
    solid = tissue & (density > FOLD_LEAST_DENSITY * np.median(density[tissue]))
    smooth = ndimage.gaussian_filter(density, FOLD_BAND_UM[1] / 2 / mpp)
    dense = max(float(np.percentile(smooth[tissue], FOLD_DENSE)), 0.02)
    share, mass = solid.astype(np.float32), (density * solid).astype(np.float32)
    ratio: Floats = np.zeros(tissue.shape, np.float32)
    for direction in range(FOLD_DIRECTIONS):
        bands = _bands(np.pi * direction / FOLD_DIRECTIONS, mpp)
        filled, *_ = shares = [_averaged(share, band) for band in bands]
        middle, left, right = (
            _averaged(mass, band) / np.maximum(part, 0.3) for band, part in zip(bands, shares, strict=True)
        )
        found = middle / np.maximum(np.maximum(left, right), dense)
        # The mean of a band full of holes is that of a few dense cells.
        ratio = np.maximum(ratio, np.where(filled > 0.7, found, 0))
    return np.asarray(ratio * tissue, dtype=np.float32)


def _averaged(plane: Floats, kernel: Floats) -> Floats:
    return np.asarray(signal.oaconvolve(plane, kernel, mode="same"), dtype=np.float32)


def _bands(angle: float, mpp: float) -> list[Floats]:
    """Kernels of a band through the middle and of one on either side of it."""
    length, width = FOLD_BAND_UM
    away, beside = FOLD_BESIDE_UM
    reach = int(np.ceil((length / 2 + away + beside) / mpp))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * mpp
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bands = [
        (np.abs(along) <= length / 2) & (np.abs(across - at) <= wide / 2)
        for at, wide in ((0.0, width), (away, beside), (-away, beside))
    ]
    return [(band / band.sum()).astype(np.float32) for band in bands]
