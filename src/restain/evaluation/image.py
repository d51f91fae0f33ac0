"""Figures of the picture: PSNR and SSIM by the BCI protocol, MS-SSIM, sharpness, and the mean absolute error.

The protocol is that of the BCI benchmark (Liu et al., "BCI: Breast Cancer Immunohistochemical Image
Generation through Pyramid Pix2pix", CVPR Workshops 2022): scikit-image's functions with their defaults on
8-bit RGB, mean over images. Both figures reward blur: on roughly aligned pairs a flat picture of the right
colour can beat every published method. The sharpness ratio is there so that blur cannot hide.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from restain.evaluation.filters import correlate, gaussian, gaussian_kernel

Plane = TypeVar("Plane", NDArray[Any], Tensor)

SSIM_WINDOW = 7
"""Side in px of SSIM's uniform window, scikit-image's default: the smallest image that has an SSIM."""

_BAND = 32
"""Rows at a time, so that what is between the steps stays in the cache."""

K1, K2 = 0.01, 0.03
"""SSIM's constants (Wang et al. 2004)."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales (Wang et al. 2003, section 3.2)."""

MS_SSIM_SIDE = 176
"""Smallest side in px that has an MS-SSIM: its window of 11 px must fit after four halvings."""

GRADIENT_SIGMA = 1.0
"""Standard deviation in px of the Gaussian whose derivative is the gradient."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the luminance (ITU-R BT.601)."""


def is_flat(rgb: NDArray[np.uint8]) -> bool:
    """Whether ``(H, W, 3)`` is one colour everywhere; decided by a few pixels in most images."""
    return bool((rgb[::64, ::64] == rgb[0, 0]).all() and (rgb == rgb[0, 0]).all())


def psnr(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two ``(H, W, 3)`` 8-bit images; ``inf`` where they are identical.

    ``10 log10(255² / MSE)`` with the mean squared error over all pixels and channels.
    """
    apart = _apart(virtual, real).astype(np.uint16)
    squares = int(np.square(apart, out=apart).sum(dtype=np.int64))
    return 10 * math.log10(255**2 * apart.size / squares) if squares else math.inf


def _apart(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Absolute difference of each value, without leaving 8 bit."""
    return np.maximum(virtual, real) - np.minimum(virtual, real)


def ssim(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Structural similarity in [-1, 1] of two ``(H, W, 3)`` 8-bit images, mean over channels.

    Wang et al., *IEEE Trans Image Process* 13:600, 2004, with a uniform window of 7 px, sample covariances and the
    constants K1 = 0.01, K2 = 0.03: the figure of scikit-image's ``structural_similarity`` with its defaults.

    Raises:
        ValueError: if a side is shorter than the window.
    """
    if min(real.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"an image of {real.shape[1]}x{real.shape[0]} px is smaller than SSIM's window")
    area = SSIM_WINDOW**2
    total, height = 0.0, real.shape[0]
    for top in range(0, height - SSIM_WINDOW + 1, _BAND):
        band = slice(top, top + _BAND + SSIM_WINDOW - 1)
        x, y = (image[band].astype(np.int32) for image in (virtual, real))
        mean_x, mean_y, energy, cross = (
            _window_sums(p).astype(np.float32) / area for p in (x, y, x * x + y * y, x * y)
        )
        light, contrast = _similarity(mean_x, mean_y, energy, cross, area / (area - 1))
        total += float(np.sum(light * contrast, dtype=np.float64))
    return total / ((height - SSIM_WINDOW + 1) * (real.shape[1] - SSIM_WINDOW + 1) * 3)


def _window_sums(planes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sums over all windows that lie within ``(H, W, 3)``: of two, four and seven rows, then columns."""
    for axis in (0, 1):
        lead = (slice(None),) * axis
        count = planes.shape[axis] - SSIM_WINDOW + 1
        two = planes[(*lead, slice(None, -1))] + planes[(*lead, slice(1, None))]
        four = two[(*lead, slice(count))] + two[(*lead, slice(2, count + 2))]
        four += two[(*lead, slice(4, count + 4))]
        four += planes[(*lead, slice(6, count + 6))]
        planes = four
    return planes


def ms_ssim(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Multi-scale structural similarity of the luminance of two ``(H, W, 3)`` 8-bit images, in [0, 1].

    Wang, Simoncelli & Bovik, "Multiscale structural similarity for image quality assessment", *Asilomar* 2003: five
    scales, a Gaussian window of 11 px with a standard deviation of 1.5 px; negative similarities count as 0, so that
    their powers are real. NaN where a side is shorter than ``MS_SSIM_SIDE``.
    """
    if min(real.shape[:2]) < MS_SSIM_SIDE:
        return float("nan")
    x, y = (torch.from_numpy(luminance(image)) for image in (virtual, real))
    kernel = gaussian_kernel(1.5, 5 / 1.5)
    product = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        mean_x, mean_y, energy, cross = correlate(torch.stack([x, y, x * x + y * y, x * y]), kernel, kernel)
        light, contrast = _similarity(mean_x, mean_y, energy, cross, 1.0)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        product *= max(float((light * contrast if last else contrast).mean()), 0.0) ** weight
        x, y = F.avg_pool2d(torch.stack([x, y])[None], 2)[0]
    return product


def _similarity(mean_x: Plane, mean_y: Plane, energy: Plane, cross: Plane, sample: float) -> tuple[Plane, Plane]:
    """Luminance and contrast-structure terms of SSIM from window means of x, y, x² + y² and xy."""
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    covariance = sample * (cross - mean_x * mean_y)
    variances = sample * (energy - (mean_x * mean_x + mean_y * mean_y))
    light = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return light, (2 * covariance + c2) / (variances + c2)


def luminance(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luminance of ``(H, W, 3)`` 8-bit RGB (ITU-R BT.601): ``(H, W)`` in [0, 255]."""
    return rgb.astype(np.float32) @ np.asarray(LUMA, np.float32)


def gradient_energy(rgb: NDArray[np.uint8]) -> float:
    """Mean squared gradient of the luminance of ``(H, W, 3)`` 8-bit RGB, in (grey levels per px)²."""
    if is_flat(rgb):
        return 0.0
    grey = luminance(rgb)
    along = (gaussian(grey, GRADIENT_SIGMA, order=order) for order in ((0, 1), (1, 0)))
    return float(sum(np.mean(np.square(g), dtype=np.float64) for g in along))


def ratio(virtual: float, real: float) -> float:
    """``virtual / real``; NaN where ``real`` is 0.

    Of gradient energies it is the sharpness: below 1 is smoother than real (blur, a flat colour), above 1 is harsher
    (noise, a grid of a transposed convolution). The Tenengrad idea of Krotkov, *Int J Comput Vis* 1:223, 1988, with
    Gaussian derivatives. It does not ask whether edges are where the real ones are.
    """
    return virtual / real if real > 0 else float("nan")


def mean_absolute_error(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two ``(H, W, 3)`` 8-bit images, in grey levels [0, 255]."""
    return int(_apart(virtual, real).sum(dtype=np.int64)) / real.size


def absolute_difference(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Absolute difference of two ``(H, W, 3)`` 8-bit images, mean over channels: ``(H, W)`` in [0, 255]."""
    apart = _apart(virtual, real)
    # A reduction over an axis of three is ten times slower.
    red, green, blue = (apart[..., k].astype(np.float32) for k in range(3))
    return (red + green + blue) / np.float32(3)
