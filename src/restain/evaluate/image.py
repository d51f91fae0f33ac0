"""Figures of the picture: PSNR and SSIM by the BCI protocol, and the mean absolute error.

The protocol is that of the BCI benchmark (Liu et al., "BCI: Breast Cancer Immunohistochemical Image
Generation through Pyramid Pix2pix", CVPR Workshops 2022): scikit-image's functions with their defaults on
8-bit RGB, mean over images. Both figures reward blur: on roughly aligned pairs a flat picture of the right
colour can beat every published method.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

SSIM_WINDOW = 7
"""Side in px of SSIM's uniform window, scikit-image's default: the smallest image that has an SSIM."""


def psnr(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two ``(H, W, 3)`` 8-bit images; ``inf`` where they are identical.

    ``10 log10(255² / MSE)`` with the mean squared error over all pixels and channels.
    """
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(real, virtual, data_range=255))


def ssim(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Structural similarity in [-1, 1] of two ``(H, W, 3)`` 8-bit images, mean over channels.

    Wang et al., *IEEE Trans Image Process* 13:600, 2004, with a uniform window of 7 px and the constants K1 =
    0.01, K2 = 0.03.

    Raises:
        ValueError: if a side is shorter than the window.
    """
    return float(structural_similarity(real, virtual, channel_axis=2, data_range=255))


def mean_absolute_error(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two ``(H, W, 3)`` 8-bit images, in grey levels [0, 255]."""
    return float(np.mean(absolute_difference(virtual, real)))


def absolute_difference(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Absolute difference of two ``(H, W, 3)`` 8-bit images, mean over channels: ``(H, W)`` in [0, 255]."""
    return np.abs(virtual.astype(np.float32) - real.astype(np.float32)).mean(axis=2)
