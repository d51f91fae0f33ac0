from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restain.evaluation.image import (
    absolute_difference,
    gradient_energy,
    luminance,
    mean_absolute_error,
    ms_ssim,
    psnr,
    ratio,
    ssim,
)


def sharpness(virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    return ratio(gradient_energy(virtual), gradient_energy(real))


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


def blurred(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return gaussian_filter(image.astype(float), (sigma, sigma, 0)).round().astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_ms_ssim_is_that_of_torchmetrics(seed: int) -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    real = blurred(noise(seed, (180, 200)), 1.5)
    virtual = np.clip(real.astype(int) + np.random.default_rng(seed).integers(-25, 26, real.shape), 0, 255)
    virtual = virtual.astype(np.uint8)
    planes = [torch.from_numpy(luminance(image))[None, None] for image in (virtual, real)]
    expected = float(multiscale_structural_similarity_index_measure(*planes, data_range=255.0))
    assert ms_ssim(virtual, real) == pytest.approx(expected, abs=5e-4)
    assert ms_ssim(real, real) == pytest.approx(1)


def test_a_small_image_has_no_ms_ssim_and_a_smaller_one_no_ssim() -> None:
    assert math.isnan(ms_ssim(noise(1, (175, 300)), noise(2, (175, 300))))
    assert not math.isnan(ms_ssim(noise(1, (176, 176)), noise(2, (176, 176))))
    with pytest.raises(ValueError, match="smaller than SSIM's window"):
        ssim(noise(1, (6, 50)), noise(2, (6, 50)))


def test_a_large_bright_image_does_not_overflow_the_window_sums() -> None:
    white = np.full((60, 3000, 3), 255, np.uint8)
    darker = np.full((60, 3000, 3), 200, np.uint8)
    assert ssim(white, darker) == pytest.approx(structural_similarity(darker, white, channel_axis=2), rel=1e-5)


def test_sharpness_of_a_ramp_is_its_slope_squared() -> None:
    ramp = np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], (50, 120, 3))
    assert gradient_energy(ramp[:, 20:-20]) == pytest.approx(4, rel=0.05)


def test_blur_is_below_one_noise_above_and_a_shift_stays_at_one() -> None:
    real = blurred(noise(7, (64, 64)), 1.0)
    grainy = np.clip(real.astype(int) + np.random.default_rng(0).integers(-40, 41, real.shape), 0, 255).astype(np.uint8)
    assert sharpness(real, real) == 1
    assert sharpness(blurred(real, 2.0), real) < 0.5
    assert sharpness(grainy, real) > 1.2
    assert sharpness(np.roll(real, 9, axis=0), real) == pytest.approx(1, abs=0.05)
    assert sharpness(np.full_like(real, 128), real) == 0
    assert math.isnan(sharpness(real, np.full_like(real, 128)))
