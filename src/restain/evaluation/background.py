"""Whiteness: the colour of the virtual image where the real one has no DAB.

It measures the pale-yellow background that RGB generators give in place of white. Colours are compared as they are
seen (sRGB under D65, CIELAB, CIEDE2000: Sharma, Wu & Dalal, *Color Res Appl* 30:21, 2005; about 1 is just
noticeable), and once more relative to each picture's white. As seen, glass of another brightness or tint counts, which
the H&E image does not tell; relative to white, what is left is stain that should not be there, or is missing.
``glass_db`` says what that leaves out: how much yellower the virtual glass is than the real.

A real photograph is noisy and a virtual image is smooth, so even the right colour differs from it pixel by pixel.
How much is estimated: ``noise`` is the real image's own difference from its smoothed self, and ``background_de_smooth``
compares both images smoothed, so that noise and a colour cast can be distinguished.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from restain.evaluation.filters import gaussian
from restain.evaluation.image import is_flat

Rgb = NDArray[np.uint8]
Lab = NDArray[np.float64]

MIN_BACKGROUND = 0.001
"""Share of an image that must be background for its colour there to be a figure."""

SMOOTH_SIGMA = 2.0
"""Standard deviation in px of the Gaussian that takes the sensor's noise out of both images."""

NOISE_SIGMA = 1.0
"""Standard deviation in px of the Gaussian whose residual is taken for noise: wider ones take texture for noise too."""

GLASS_SHARE = 0.1
"""Share of the real background, the brightest after smoothing, that is taken for its white, in both pictures."""

MOST_PIXELS = 20_000
"""Most background pixels that are compared: evenly spaced ones, which moves a median by less than a hundredth."""

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class RealBackground:
    """The background of a real image, measured once for all answers that are compared with it."""

    mask: NDArray[np.bool_]
    """``(H, W)``, where the reference has no DAB (:func:`restain.evaluation.stain.background_mask`)."""
    pixels: NDArray[np.intp]
    """``(N,)`` flat indices of the pixels that are compared; none where there is too little background."""
    lab: Lab
    """``(N, 3)`` CIELAB of the real image there."""
    lab_smooth: Lab
    """``(N, 3)`` the same, smoothed within the mask."""
    glass: NDArray[np.intp]
    """Which of the ``pixels`` are its brightest, smoothed."""
    lab_relative: Lab
    """``(N, 3)`` the smoothed image relative to its white, the mean over ``glass``."""
    weight: NDArray[np.float32]
    """``(H, W)``, the mask smoothed by ``SMOOTH_SIGMA``."""
    noise: float
    """Median ΔE₀₀ between the real background and its self smoothed by ``NOISE_SIGMA``; NaN without background.

    It estimates what a perfect, noise-free answer gets; on the phantom, where that answer is known, within a fifth.
    """

    @property
    def spread(self) -> float:
        """95th percentile of ΔE₀₀ between the real background's pixels and its median colour; NaN without background."""
        if len(self.pixels) == 0:
            return NAN
        centre = np.median(self.lab, axis=0)
        return float(np.percentile(deltaE_ciede2000(centre[None], self.lab), 95))


@dataclass(frozen=True, slots=True)
class Whiteness:
    """Virtual against real background: medians of ΔE₀₀ and of the b* shift (positive: yellower than real)."""

    de: float
    db: float
    de_smooth: float
    """Both pictures smoothed."""
    de_relative: float
    """Both smoothed, each relative to its own white at the places where the real image is whitest."""
    glass_db: float
    """The b* shift of that white itself."""


def real_background(real: Rgb, mask: NDArray[np.bool_]) -> RealBackground:
    """Measure the background of a real image.

    Args:
        real: ``(H, W, 3)`` 8-bit RGB.
        mask: ``(H, W)``, from :func:`restain.evaluation.stain.background_mask` of the reference.
    """
    pixels = np.flatnonzero(mask)
    if len(pixels) < max(1.0, MIN_BACKGROUND * mask.size):
        pixels = pixels[:0]
    elif len(pixels) > MOST_PIXELS:
        pixels = pixels[np.linspace(0, len(pixels) - 1, MOST_PIXELS).astype(np.intp)]
    weight = _smooth_plane(mask, SMOOTH_SIGMA)
    smooth = _smooth_within(real, mask, weight, SMOOTH_SIGMA)
    lab, lab_smooth = _lab(real, pixels), _lab(smooth, pixels)
    brightness = _chosen(smooth, pixels).astype(np.float32).mean(axis=1)
    count = max(1, round(GLASS_SHARE * len(pixels))) if len(pixels) else 0
    glass = np.argsort(brightness, kind="stable")[len(pixels) - count :]
    noise = NAN
    if len(pixels):
        less = _smooth_within(real, mask, _smooth_plane(mask, NOISE_SIGMA), NOISE_SIGMA)
        noise = float(np.median(deltaE_ciede2000(_lab(less, pixels), lab)))
    return RealBackground(mask, pixels, lab, lab_smooth, glass, _relative(smooth, pixels, glass), weight, noise)


def whiteness(virtual: Rgb, real: RealBackground) -> Whiteness:
    """Compare the background of ``virtual``, ``(H, W, 3)`` 8-bit RGB, with the real one; NaN without background."""
    if len(real.pixels) == 0:
        return Whiteness(NAN, NAN, NAN, NAN, NAN)
    blurred = _smooth_within(virtual, real.mask, real.weight, SMOOTH_SIGMA)
    lab, smooth = _lab(virtual, real.pixels), _lab(blurred, real.pixels)
    relative = _relative(blurred, real.pixels, real.glass)
    return Whiteness(
        float(np.median(deltaE_ciede2000(real.lab, lab))),
        float(np.median(lab[:, 2] - real.lab[:, 2])),
        float(np.median(deltaE_ciede2000(real.lab_smooth, smooth))),
        float(np.median(deltaE_ciede2000(real.lab_relative, relative))),
        float(np.median(smooth[real.glass, 2] - real.lab_smooth[real.glass, 2])),
    )


def background_de(virtual: Rgb, real: Rgb, mask: NDArray[np.bool_]) -> float:
    """Median CIEDE2000 colour difference between virtual and real over the background.

    Args:
        virtual: ``(H, W, 3)`` 8-bit RGB.
        real: ``(H, W, 3)`` 8-bit RGB.
        mask: ``(H, W)``, from :func:`restain.evaluation.stain.background_mask` of the reference.

    Returns:
        The median, or NaN where less than ``MIN_BACKGROUND`` of the image is background.
    """
    return whiteness(virtual, real_background(real, mask)).de


def background_db(virtual: Rgb, real: Rgb, mask: NDArray[np.bool_]) -> float:
    """Median shift of CIELAB b* from real to virtual over the background: positive is yellower than real.

    Arguments and NaN as in :func:`background_de`.
    """
    return whiteness(virtual, real_background(real, mask)).db


def _relative(smooth: NDArray[np.float32], pixels: NDArray[np.intp], glass: NDArray[np.intp]) -> Lab:
    """CIELAB of the pixels with the mean of those at ``glass`` as white."""
    light = _chosen(smooth, pixels)
    if len(glass) == 0:
        return np.zeros((0, 3))
    lab: Lab = rgb2lab(np.clip(light / np.maximum(light[glass].mean(axis=0), 1), 0, 1))
    return lab


def _lab(rgb: NDArray[np.uint8] | NDArray[np.float32], pixels: NDArray[np.intp]) -> Lab:
    lab: Lab = rgb2lab(_chosen(rgb, pixels) / 255)
    return lab


def _chosen(rgb: NDArray[np.uint8] | NDArray[np.float32], pixels: NDArray[np.intp]) -> NDArray[np.float64]:
    """``(N, 3)`` of ``(H, W, 3)`` at flat indices, without a copy of an image whose channels are apart."""
    return rgb[pixels // rgb.shape[1], pixels % rgb.shape[1]].astype(np.float64)


def _smooth_plane(planes: NDArray[np.bool_] | NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return gaussian(planes.astype(np.float32), sigma, truncate=3)


def _smooth_within(rgb: Rgb, mask: NDArray[np.bool_], weight: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian means of the masked pixels alone, so that no stain bleeds into the background; ``weight`` smoothed alike."""
    if is_flat(rgb):
        return rgb.astype(np.float32)
    smooth = _smooth_plane(np.stack([np.where(mask, rgb[..., k], np.float32(0)) for k in range(3)]), sigma)
    smooth /= np.maximum(weight, np.float32(1e-6))
    return np.moveaxis(smooth, 0, -1)
