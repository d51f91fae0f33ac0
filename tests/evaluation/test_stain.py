from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from restain.evaluation import stain


def density(seed: int, shape: tuple[int, int] = (350, 350)) -> NDArray[np.float32]:
    """Random blobs about a cell in size."""
    coarse = np.random.default_rng(seed).random((shape[0] // 35, shape[1] // 35), dtype=np.float32)
    return np.kron(coarse, np.ones((35, 35), np.float32))


@pytest.mark.parametrize(("mpp", "px"), [(0.46, 35), (0.5, 32), (0.25, 64), (1.0, 16), (100.0, 1)])
def test_a_cell_is_16_micrometres(mpp: float, px: int) -> None:
    assert stain.cell_px(mpp) == px


def test_cell_means_of_whole_cells_leave_the_margin_out() -> None:
    image = np.zeros((7, 5), np.float32)
    image[:2, :2], image[2:4, 2:4], image[6], image[:, 4] = 1, 4, 99, 99
    assert stain.cell_means(image, 2).tolist() == [[1, 0], [0, 4], [0, 0]]


def test_an_image_smaller_than_a_cell_is_one_cell() -> None:
    assert stain.cell_means(np.full((3, 4), 0.5, np.float32), 35).tolist() == [[0.5]]


def test_r16_of_identical_maps_is_one_and_of_the_inverse_minus_one() -> None:
    truth = density(1)
    assert stain.dab_r16(truth, truth, 0.46) == pytest.approx(1)
    assert stain.dab_r16(1 - truth, truth, 0.46) == pytest.approx(-1)


def test_r16_of_independent_noise_is_near_zero() -> None:
    first, second = (np.random.default_rng(s).random((700, 700), dtype=np.float32) for s in (1, 2))
    assert abs(stain.dab_r16(first, second, 0.46)) < 0.15


def test_r16_forgives_a_shift_that_is_small_against_a_cell_and_pixels_do_not() -> None:
    rng = np.random.default_rng(3)
    truth = (density(3, (700, 700)) * rng.random((700, 700))).astype(np.float32)
    shifted = np.roll(truth, 3, axis=1)
    assert stain.dab_r16(shifted, truth, 0.46) > 0.95
    assert np.corrcoef(shifted.ravel(), truth.ravel())[0, 1] < 0.6


@given(st.floats(0.1, 10), st.floats(0, 2))
def test_r16_asks_where_and_not_how_strong(scale: float, offset: float) -> None:
    truth = density(4)
    assert stain.dab_r16((truth * scale + offset).astype(np.float32), truth, 0.46) == pytest.approx(1, abs=1e-4)


def test_a_reference_without_a_pattern_has_no_r() -> None:
    flat = np.full((350, 350), 0.02, np.float32)
    assert math.isnan(stain.dab_r16(density(5), flat, 0.46))


def test_a_flat_answer_explains_nothing() -> None:
    flat = np.full((350, 350), 0.3, np.float32)
    assert stain.dab_r16(flat, density(6), 0.46) == 0.0


def test_two_cells_are_too_few() -> None:
    truth = density(7, (35, 70))
    assert math.isnan(stain.dab_r16(truth, truth, 0.46))


@given(st.integers(0, 999), arrays(np.float32, (10, 12), elements=st.floats(0, 2, width=16)))
def test_r_from_sums_is_the_r_of_numpy(seed: int, reference: NDArray[np.float32]) -> None:
    virtual = np.random.default_rng(seed).random((10, 12), dtype=np.float32)
    r = stain.pearson(stain.cell_moments(virtual, reference, mpp=16.0))
    if reference.std() > 0.01:
        assert r == pytest.approx(np.corrcoef(virtual.ravel(), reference.ravel())[0, 1], abs=1e-5)


def test_pooled_cells_are_those_of_all_images_together() -> None:
    pairs = [(density(8), density(9)), (density(10) + 1, density(11) + 1)]
    pooled = sum((stain.cell_moments(v, r, 0.46) for v, r in pairs), stain.Moments())
    virtual, reference = (np.concatenate([stain.cell_means(pair[i], 35).ravel() for pair in pairs]) for i in (0, 1))
    assert stain.pearson(pooled) == pytest.approx(np.corrcoef(virtual, reference)[0, 1])


def test_background_is_where_smoothed_dab_is_below_the_threshold() -> None:
    reference = np.zeros((40, 40), np.float32)
    reference[:, 20:] = 0.5
    reference[5, 5] = 0.06
    mask = stain.background_mask(reference)
    assert mask[5, 5], "one noisy pixel does not make a stain"
    assert mask[:, :15].all()
    assert not mask[:, 22:].any()


def test_integrated_density_does_not_depend_on_the_pixels_size() -> None:
    coarse = density(12, (70, 70))
    fine = np.kron(coarse, np.ones((2, 2), np.float32))
    assert stain.dab_sum(fine, 0.25) == pytest.approx(stain.dab_sum(coarse, 0.5))
    assert stain.dab_sum(np.full((10, 10), 0.5, np.float32), 2.0) == pytest.approx(0.5 * 10 * 10 * 4)


def test_positive_area_is_the_share_at_or_above_the_threshold() -> None:
    image = np.zeros((40, 40), np.float32)
    image[:, 10:] = stain.POSITIVE_OD * 1.5
    assert stain.positive_area(image) == 0.75
    assert stain.positive_area(image, 0.2) == 0


def test_bleached_weak_staining_shows_and_strong_staining_does_not_count() -> None:
    reference = np.zeros((60, 60), np.float32)
    reference[:20], reference[20:40] = 0.15, 0.9
    bleached = reference.copy()
    bleached[:10] = 0
    assert stain.weak_area_ratio(reference, reference) == 1
    assert stain.weak_area_ratio(bleached, reference) == 0.5
    bleached[20:40] = 0
    assert stain.weak_area_ratio(bleached, reference) == 0.5
    assert math.isnan(stain.weak_area_ratio(bleached, np.full((60, 60), 0.9, np.float32)))
