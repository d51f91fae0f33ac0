"""What of a slide is tissue, pen and fold, seen once on an overview; patches are looked up in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from restain.optics import optical_density
from restain.register.level import Section
from restain.register.structure import look_of
from restain.slides import Slide, TissueMask, tissue_of
from restain.slides.mask import MASK_MPP, ink_marks, overview

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

FOLD_DENSER = {"he": (1.4, 1.25), "ihc": (1.5, 1.3)}
"""How many times denser than the dense tissue beside it a band is where it is taken for a fold, and where a fold is followed. IHC, whose
stroma is pale and whose nests are dense, needs more."""
FOLD_BAND_UM = (240.0, 24.0)
"""Length and width of the band over which density is averaged: nests of tumour are as dense, but not as long and straight."""
FOLD_BESIDE_UM = (60.0, 40.0)
"""Distance and width of the bands on both sides that it is compared with."""
FOLD_TURNS = 16
"""Directions that are looked in."""
FOLD_MATTER = 0.4
"""Share of the median density from which a place is matter; holes are neither fold nor its surroundings."""
FOLD_DENSE = 75.0
"""Percentile of the tissue's density that a fold is measured against where it is paler beside it."""
FOLD_LEAST_UM2 = 1_500.0
"""Smaller pieces are no folds."""


@dataclass(frozen=True)
class SlideMaps:
    """A slide, and masks ``(h, w)`` of its overview at ``section.tissue.mpp``."""

    section: Section
    pen: TissueMask
    fold: TissueMask

    @property
    def tissue(self) -> TissueMask:
        return self.section.tissue


def map_slide(
    slide: Slide, stain: Literal["he", "ihc"], progress: Callable[[int, int], None] | None = None
) -> SlideMaps:
    """Look at a whole slide once, at :data:`~restain.slides.mask.MASK_MPP`.

    Raises:
        RestainError: if the slide has no mpp or cannot be read.
    """
    picture, mpp = overview(slide, MASK_MPP, progress)
    tissue = tissue_of(picture, mpp)
    density = np.maximum(optical_density(picture, tissue.glass), 0)
    pen = ink_marks(density, mpp)
    # DAB absorbs little red, so that strongly stained nests are no folds there; eosin, which helps in H&E, absorbs less still.
    plane = density.sum(axis=-1) if stain == "he" else density[..., 0]
    fold = fold_marks(plane, tissue.mask & ~pen, mpp, *FOLD_DENSER[stain])
    look = look_of(picture, tissue.mask)
    section = Section(slide, tissue, look)
    return SlideMaps(section, TissueMask(pen, mpp, tissue.glass), TissueMask(fold, mpp, tissue.glass))


def fold_marks(density: Floats, tissue: Mask, mpp: float, plain: float, faint: float) -> Mask:
    """Long narrow bands in which tissue lies double: ``(h, w)`` density and tissue to ``(h, w)`` bool.

    A fold is denser than the tissue on both sides of it, and denser than the slide's dense tissue, over a length that no cell nest
    keeps straight. It is found where it is ``plain`` times as dense, and followed to where it is ``faint``. Made for 4 to 16 µm per px; the
    figures are restain's own, set on phantom slides.
    """
    ratio = fold_ratio(density, tissue, mpp)
    folds = ndimage.binary_propagation(ratio > plain, mask=ratio > faint, structure=np.ones((3, 3)))
    pieces, _ = ndimage.label(folds, np.ones((3, 3)))
    large = np.bincount(pieces.ravel()) * mpp**2 >= FOLD_LEAST_UM2
    large[0] = False
    return large[pieces]


def fold_ratio(density: Floats, tissue: Mask, mpp: float) -> Floats:
    """How many times denser the band through each place is than what lies beside it, the greatest of all directions."""
    if not tissue.any():
        return np.zeros(tissue.shape, np.float32)
    matter = tissue & (density > FOLD_MATTER * np.median(density[tissue]))
    dense = max(
        float(np.percentile(ndimage.gaussian_filter(density, FOLD_BAND_UM[1] / 2 / mpp)[tissue], FOLD_DENSE)), 0.02
    )
    share, mass = matter.astype(np.float32), (density * matter).astype(np.float32)
    ratio: Floats = np.zeros(tissue.shape, np.float32)
    for turn in range(FOLD_TURNS):
        middle, *beside = _bands(np.pi * turn / FOLD_TURNS, mpp)
        filled = _averaged(share, middle)
        here = _averaged(mass, middle) / np.maximum(filled, 0.3)
        about = [_averaged(mass, band) / np.maximum(_averaged(share, band), 0.3) for band in beside]
        found = here / np.maximum(np.maximum(*about), dense)
        # Where the band itself is full of holes its mean is that of a few dense cells.
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
