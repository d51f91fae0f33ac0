"""What two differently stained sections have in common: where matter is, and how much hematoxylin.

The densities of a section depend on its stain; where lumens, vessels, fat and borders are does not, nor does the
pattern of the nuclei. Two channels show these: *matter*, the total optical density saturated at a fraction of the
section's own median, so that pale counterstain and dark eosin look alike; and *hematoxylin*, unmixed from eosin and
DAB at once, so that neither need be named. Each is smoothed, and normalised by its local mean and standard deviation.
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
"""Share of the median tissue density at which *matter* reaches 1 - 1/e."""
SMOOTHING_PX = 2.0
"""Standard deviation of the Gaussian over both channels."""
NORM_PX = 39
"""Side of the box that, applied twice, is the window of the local mean and deviation: a standard deviation of 16 px."""
MATTER_FLOOR = 0.05
HEMATOXYLIN_FLOOR = 0.15
"""Added to the local standard deviations, that noise on glass stays small: in units of *matter*, and of the section's
median hematoxylin."""
LEAST_ROUGHNESS = 0.005
"""Median deviation of the smoothed density from that around it, in OD units over the three channels, in tissue of any stain. Pale
tissue without DAB has 0.02, glass with noise of four grey levels 0.001."""
MARGIN_PX = 56
"""Pixels about a region that its channels depend on."""


@dataclass(frozen=True)
class Look:
    """How a section is stained and lit: its glass ``(3,)`` RGB and the median densities of its tissue in OD units."""

    glass: Floats
    density: float
    hematoxylin: float


def look_of(rgb: Rgb, tissue: Mask | None = None, glass: Floats | None = None) -> Look:
    """Measure a section on an overview of it, ``(H, W, 3)``; ``tissue`` ``(H, W)`` bool, everything where not given.

    ``glass`` ``(3,)`` is RGB, and measured where not given.
    """
    glass = measure_glass(rgb)[0] if glass is None else glass
    total, hematoxylin = _densities(rgb, glass)
    where = np.ones(total.shape, bool) if tissue is None or not tissue.any() else tissue
    return Look(glass, max(0.05, float(np.median(total[where]))), max(0.02, float(np.median(hematoxylin[where]))))


def textured(rgb: Rgb, glass: Floats) -> bool:
    """Whether most of an overview, ``(H, W, 3)``, is too rough for glass, noise and shading."""
    total = optical_density(rgb, glass).sum(axis=-1)
    rough = ndimage.gaussian_filter(total, SMOOTHING_PX) - ndimage.gaussian_filter(total, 4 * SMOOTHING_PX)
    return bool(np.median(np.abs(rough)) > LEAST_ROUGHNESS)


def matter(rgb: Rgb, look: Look) -> Floats:
    """``(H, W)`` in [0, 1): 0 on glass, near 1 in tissue of any stain."""
    total, _ = _densities(rgb, look.glass)
    return np.asarray(1 - np.exp(-total / (SATURATION * look.density)), dtype=np.float32)


def channels(rgb: Rgb, look: Look, smoothing: float = SMOOTHING_PX) -> Floats:
    """``(2, H, W)``: locally normalised *matter* and *hematoxylin* of ``(H, W, 3)`` RGB; ``smoothing`` as :data:`SMOOTHING_PX`."""
    total, hematoxylin = _densities(rgb, look.glass)
    seen = 1 - np.exp(-total / (SATURATION * look.density))
    stained = hematoxylin / look.hematoxylin
    return np.stack([_normalised(seen, MATTER_FLOOR, smoothing), _normalised(stained, HEMATOXYLIN_FLOOR, smoothing)])


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
