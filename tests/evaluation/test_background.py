from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from restain.evaluation.background import MOST_PIXELS, background_db, background_de, real_background, whiteness
from restain.evaluation.stain import background_mask
from restain.her2 import Her2Level
from restain.phantom import make_pair


def colour(*rgb: int) -> NDArray[np.uint8]:
    return np.full((20, 20, 3), rgb, np.uint8)


EVERYWHERE = np.ones((20, 20), bool)


def lightness(grey: int) -> float:
    """CIELAB L* of an sRGB grey above the linear part, by the definition."""
    luminance = ((grey / 255 + 0.055) / 1.055) ** 2.4
    return float(116 * luminance ** (1 / 3) - 16)


def test_colour_difference_of_greys_is_ciede2000_by_hand() -> None:
    """Without chroma CIEDE2000 is the lightness difference over its weight (Sharma et al. 2005)."""
    first, second = lightness(240), lightness(200)
    middle = (first + second) / 2 - 50
    weight = 1 + 0.015 * middle**2 / math.sqrt(20 + middle**2)
    measured = background_de(colour(200, 200, 200), colour(240, 240, 240), EVERYWHERE)
    assert measured == pytest.approx((first - second) / weight, abs=0.01)


def test_yellow_background_is_a_positive_shift_and_blue_a_negative_one() -> None:
    white = colour(240, 240, 240)
    assert background_db(colour(240, 238, 215), white, EVERYWHERE) > 5
    assert background_db(colour(215, 225, 240), white, EVERYWHERE) < -5
    assert background_db(white, white, EVERYWHERE) == 0
    assert background_de(white, white, EVERYWHERE) == 0


def test_background_figures_look_at_the_background_only() -> None:
    virtual, real = colour(240, 240, 240), colour(240, 240, 240)
    virtual[:5] = (90, 50, 20)
    mask = EVERYWHERE.copy()
    mask[:5] = False
    assert background_de(virtual, real, mask) == 0


def test_no_background_no_figure() -> None:
    nowhere = np.zeros((20, 20), bool)
    assert math.isnan(background_de(colour(1, 2, 3), colour(3, 2, 1), nowhere))
    assert math.isnan(background_db(colour(1, 2, 3), colour(3, 2, 1), nowhere))


def noisy(sigma: float, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, sigma, (size, size, 3))
    return np.clip(230 + noise, 0, 255).round().astype(np.uint8)


def test_smoothing_tells_noise_from_a_cast() -> None:
    """The right colour without noise differs from the noisy real image, and no longer once both are smoothed."""
    everywhere = np.ones((64, 64), bool)
    real = real_background(noisy(6), everywhere)
    right = whiteness(np.full((64, 64, 3), 230, np.uint8), real)
    yellow = whiteness(np.full((64, 64, 3), (230, 230, 215), np.uint8), real)
    assert right.de > 2
    assert right.de_smooth < 1 < 0.25 * right.de
    assert yellow.de_smooth > 4
    assert yellow.db > 4
    assert right.de == pytest.approx(real.noise, rel=0.2)


def test_spread_grows_with_noise_and_is_the_95th_percentile_from_the_median_colour() -> None:
    everywhere = np.ones((64, 64), bool)
    real = real_background(noisy(5), everywhere)
    assert real.spread > real.noise > real_background(noisy(1), everywhere).noise
    lab = rgb2lab(noisy(5)).reshape(-1, 3)
    centre = np.median(lab, axis=0)
    assert real.spread == pytest.approx(np.percentile(deltaE_ciede2000(centre[None], lab), 95))


def test_no_stain_bleeds_into_the_smoothed_background() -> None:
    real = np.full((40, 40, 3), 235, np.uint8)
    real[:, 20:] = (90, 50, 20)
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    virtual = real.copy()
    virtual[:, 20:] = (240, 240, 240)
    assert whiteness(virtual, real_background(real, mask)).de_smooth == pytest.approx(0, abs=0.01)


def test_a_sample_of_the_pixels_gives_the_median_of_all() -> None:
    image = np.random.default_rng(1).integers(180, 250, (400, 400, 3), dtype=np.uint8)
    white = np.full(image.shape, 240, np.uint8)
    real = real_background(image, np.ones((400, 400), bool))
    assert len(real.pixels) == MOST_PIXELS
    every = np.median(deltaE_ciede2000(rgb2lab(image), rgb2lab(white)))
    assert whiteness(white, real).de == pytest.approx(every, rel=0.02)


def test_the_noise_floor_is_what_the_phantom_without_noise_gets() -> None:
    """The phantom knows its noise-free self: its difference from the noisy image is what ``noise`` estimates."""
    seen = [make_pair(3, 0, Her2Level.ONE, size=192, noiseless=noiseless) for noiseless in (False, True)]
    mask = background_mask(seen[0].dab)
    real = real_background(seen[0].ihc, mask)
    floor = whiteness(seen[1].ihc, real)
    assert floor.de == pytest.approx(real.noise, rel=0.2)
    assert floor.de_smooth < 0.3 * floor.de


def test_another_glass_is_no_stain_and_a_veil_is() -> None:
    """Half glass, half stroma: a tint of the whole picture leaves relative colours, a veil on the stroma does not."""
    real = np.full((64, 64, 3), 244, np.uint8)
    real[:, 20:] = (215, 212, 222)
    mask = np.ones((64, 64), bool)
    tinted = np.rint(real * np.array([1.0, 0.985, 0.93])).astype(np.uint8)
    veiled = real.copy()
    veiled[:, 20:] = (215, 205, 200)
    reference = real_background(real, mask)
    tint, veil = whiteness(tinted, reference), whiteness(veiled, reference)
    assert tint.de > 2 > 0.6 > tint.de_relative
    assert tint.glass_db > 4
    assert veil.de_relative > 4
    assert abs(veil.glass_db) < 0.2
    same = whiteness(real, reference)
    assert (same.de_relative, same.glass_db) == (0, 0)


def test_a_flat_answer_is_scored_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((80, 90)) > 0.3
    real = real_background(np.random.default_rng(1).integers(180, 250, (80, 90, 3), dtype=np.uint8), mask)
    flat = np.full((80, 90, 3), (230, 220, 200), np.uint8)
    short = whiteness(flat, real)
    monkeypatch.setattr("restain.evaluation.background.is_flat", lambda rgb: False)
    assert astuple(short) == pytest.approx(astuple(whiteness(flat, real)), abs=1e-3)
