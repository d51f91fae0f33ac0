"""Stain-independent features: tissue density and hematoxylin.

The densities of a section depend on its stain. The places of lumens, vessels, fat and borders do not, nor does the pattern
of the nuclei. Two channels show these: *tissue density*, the total optical density saturated at a fraction of the section's
own median, so that pale counterstain and dark eosin become similar; and *hematoxylin*, unmixed from eosin and DAB at once, so
that the stain need not be named. Each is smoothed, and normalised by its local mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.images import Rgb
from restain.optics import DAB, EOSIN, HEMATOXYLIN, optical_density, unmix
from restain.slides.mask import Mask, measure_glass

Floats = NDArray[np.float32]

SATURATION = 0.35
"""Share of the median total density at which *tissue density* reaches 1 - 1/e."""
SMOOTHING_PX = 2.0
"""Standard deviation of the Gaussian over both channels."""
NORM_PX = 39
"""Side of the box that, applied twice, is the window of the local mean and deviation: a standard deviation of 16 px."""
DENSITY_FLOOR = 0.05
HEMATOXYLIN_FLOOR = 0.15
"""Added to the local standard deviations to suppress noise on glass, in units of the saturated density and of the section's
median hematoxylin."""
LEAST_ROUGHNESS = 0.005
"""Least median deviation of the smoothed density from that around it, in OD units over the three channels, of tissue in any stain.
Pale tissue without DAB has 0.02, glass with noise of four grey levels 0.001."""
MARGIN_PX = 56
"""Pixels about a region that its channels depend on."""


@dataclass(frozen=True)
class StainStrength:
    """A section's glass ``(3,)`` RGB, and the median densities of its tissue in OD units."""

    glass: Floats
    density: float
    hematoxylin: float


def measure_stain(rgb: Rgb, tissue: Mask | None = None, glass: Floats | None = None) -> StainStrength:
    """Measure a section on an overview, ``(H, W, 3)``; ``tissue`` ``(H, W)`` is by default everything, ``glass`` ``(3,)`` measured."""
    glass = measure_glass(rgb)[0] if glass is None else glass
    total, hematoxylin = _densities(rgb, glass)
    where = np.ones(total.shape, bool) if tissue is None or not tissue.any() else tissue
    medians = max(0.05, float(np.median(total[where]))), max(0.02, float(np.median(hematoxylin[where])))
    return StainStrength(glass, *medians)


def is_textured(rgb: Rgb, glass: Floats) -> bool:
    """Whether most of an overview, ``(H, W, 3)``, is too rough for glass, noise and shading."""
    total = optical_density(rgb, glass).sum(axis=-1)
    rough = ndimage.gaussian_filter(total, SMOOTHING_PX) - ndimage.gaussian_filter(total, 4 * SMOOTHING_PX)
    return bool(np.median(np.abs(rough)) > LEAST_ROUGHNESS)


def tissue_density(rgb: Rgb, stain: StainStrength) -> Floats:
    """Saturated total density ``(H, W)`` in [0, 1): 0 on glass, near 1 in tissue of any stain."""
    return _saturated(_densities(rgb, stain.glass)[0], stain)


def feature_channels(rgb: Rgb, stain: StainStrength, smoothing: float = SMOOTHING_PX) -> Floats:
    """``(2, H, W)``: locally normalised tissue density and hematoxylin of ``(H, W, 3)`` RGB; ``smoothing`` in px."""
    total, hematoxylin = _densities(rgb, stain.glass)
    planes = (_saturated(total, stain), DENSITY_FLOOR), (hematoxylin / stain.hematoxylin, HEMATOXYLIN_FLOOR)
    return np.stack([_normalised(plane, floor, smoothing) for plane, floor in planes])


def _saturated(total: Floats, stain: StainStrength) -> Floats:
    return np.asarray(1 - np.exp(-total / (SATURATION * stain.density)), dtype=np.float32)


def _densities(rgb: Rgb, glass: Floats) -> tuple[Floats, Floats]:
    od = optical_density(rgb, glass)
    hematoxylin = unmix(od, (HEMATOXYLIN, EOSIN, DAB))[..., 0]
    return np.maximum(od.sum(axis=-1), 0), np.maximum(hematoxylin, 0)


def _normalised(plane: Floats, floor: float, smoothing: float) -> Floats:
    smooth = ndimage.gaussian_filter(plane, smoothing)
    mean = _windowed(smooth)
    variance = _windowed(smooth * smooth) - mean * mean
    return np.asarray((smooth - mean) / np.sqrt(np.maximum(variance, 0) + floor**2), dtype=np.float32)


def _windowed(plane: Floats) -> Floats:
    # Boxes are running sums, whose cost does not grow with their size.
    once = ndimage.uniform_filter(plane, NORM_PX, output=np.float64)
    return np.asarray(ndimage.uniform_filter(once, NORM_PX), dtype=np.float32)
