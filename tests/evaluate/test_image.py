from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restain.evaluate.image import absolute_difference, mean_absolute_error, psnr, ssim


def noise(seed: int, shape: tuple[int, int] = (40, 48)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_psnr_of_a_uniform_error_is_the_formula() -> None:
    real = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(real + np.uint8(10), real) == pytest.approx(10 * math.log10(255**2 / 100))


def test_figures_are_those_of_scikit_image_with_its_defaults() -> None:
    a, b = noise(1), noise(2)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a))
    assert ssim(a, b) == pytest.approx(structural_similarity(b, a, channel_axis=-1))


def test_psnr_and_ssim_do_not_depend_on_the_order_of_the_channels() -> None:
    """BCI's own script reads BGR; the protocol is the same for RGB."""
    a, b = noise(3), noise(4)
    assert psnr(a[..., ::-1], b[..., ::-1]) == pytest.approx(psnr(a, b))
    assert ssim(a[..., ::-1], b[..., ::-1]) == pytest.approx(ssim(a, b))


@pytest.mark.filterwarnings("error")
def test_identical_images_are_perfect_without_a_warning() -> None:
    image = noise(5)
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == 1.0
    assert mean_absolute_error(image, image) == 0.0


def test_difference_does_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert mean_absolute_error(black, white) == 255.0
    assert absolute_difference(black, white).shape == (8, 8)


def test_a_flat_picture_can_beat_a_sharp_one() -> None:
    """What the reports warn of: shifted by two pixels, the real texture itself loses to its mean."""
    real = noise(6, (64, 64))
    shifted = np.roll(real, 2, axis=1)
    flat = np.broadcast_to(real.mean(axis=(0, 1)).round().astype(np.uint8), real.shape).copy()
    assert psnr(flat, real) > psnr(shifted, real)
