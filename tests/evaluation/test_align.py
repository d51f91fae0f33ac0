from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, shift
from skimage.registration import optical_flow_ilk

from restain.evaluation.align import IDENTITY, LARGEST_UM, Alignment, align, apply_alignment, lucas_kanade
from restain.evaluation.image import psnr
from restain.evaluation.scoring import Scorer
from restain.phantom import misalignment_field
from restain.prediction import Prediction

SIZE, MPP = 256, 0.8


def tissue(seed: int) -> NDArray[np.uint8]:
    """Dark blobs of about 8 µm and a coarser texture on white."""
    rng = np.random.default_rng(seed)
    fine = gaussian_filter(rng.normal(size=(SIZE, SIZE)), 3)
    coarse = gaussian_filter(rng.normal(size=(SIZE, SIZE)), 25)
    dark = np.clip(fine / fine.std() + coarse / coarse.std(), 0, None) * 45
    tint = np.array([0.7, 1.0, 1.2])
    return np.clip(235 - dark[..., None] * tint + rng.normal(0, 3, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def warped(image: NDArray[np.uint8], field: NDArray[np.floating]) -> NDArray[np.uint8]:
    at = np.mgrid[0:SIZE, 0:SIZE] + field
    planes = [map_coordinates(image[..., k].astype(float), at, order=1, mode="mirror") for k in range(3)]
    return np.stack(planes, axis=-1).round().astype(np.uint8)


def inner(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[24:-24, 24:-24]


def gain(found: Alignment, virtual: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    moved = apply_alignment(found, Prediction(virtual)).rgb
    return psnr(inner(moved), inner(real)) - psnr(inner(virtual), inner(real))


def test_a_known_shift_is_undone() -> None:
    real = tissue(1)
    virtual = np.roll(real, (9, -12), axis=(0, 1))
    found = align(virtual, real, MPP)
    assert found.field is not None
    assert np.median(found.field, axis=(1, 2)) == pytest.approx([9, -12], abs=1)
    assert gain(found, virtual, real) > 6


def test_a_smooth_deformation_is_undone() -> None:
    real = tissue(2)
    field = misalignment_field((SIZE, SIZE), mpp=MPP, rms_um=5, seed=1, index=0)
    virtual = warped(real, field)
    assert gain(align(virtual, real, MPP), virtual, real) > 4


def test_the_map_of_dab_moves_with_the_picture() -> None:
    real = tissue(3)
    virtual = np.roll(real, 10, axis=1)
    dab = (255 - virtual[..., 2].astype(np.float32)) / 255
    moved = apply_alignment(align(virtual, real, MPP), Prediction(virtual, dab))
    assert moved.dab is not None
    wanted = (255 - real[..., 2].astype(np.float32)) / 255
    assert np.abs(inner(moved.dab) - inner(wanted)).mean() < 0.5 * np.abs(inner(dab) - inner(wanted)).mean()


def test_a_flat_picture_and_an_aligned_one_stay() -> None:
    real = tissue(4)
    flat = np.full_like(real, 200)
    assert align(flat, real, MPP) is IDENTITY
    assert align(real, flat, MPP) is IDENTITY
    assert align(real, real, MPP) is IDENTITY
    assert apply_alignment(IDENTITY, Prediction(real)).rgb is real


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_other_tissue_and_noise_are_not_made_to_agree(seed: int) -> None:
    real = tissue(20 + seed)
    noise = np.random.default_rng(seed).integers(0, 256, real.shape, dtype=np.uint8)
    assert align(tissue(40 + seed), real, MPP) is IDENTITY
    assert align(noise, real, MPP) is IDENTITY


def test_nothing_moves_farther_than_the_bound_or_folds() -> None:
    real = tissue(5)
    virtual = warped(real, misalignment_field((SIZE, SIZE), mpp=MPP, rms_um=8, seed=2, index=0))
    field = align(virtual, real, MPP).field
    assert field is not None
    assert np.hypot(*field).max() * MPP <= LARGEST_UM + 1e-3
    along = np.abs(np.diff(field, axis=1)).max(), np.abs(np.diff(field, axis=2)).max()
    assert max(along) < 1, "neighbours do not change places"


def test_a_shift_beyond_the_bound_is_not_followed() -> None:
    real = tissue(6)
    found = align(np.roll(real, round(3 * LARGEST_UM / MPP), axis=1), real, MPP)
    assert found.moved_um <= LARGEST_UM


def test_a_picture_with_few_cells_stays() -> None:
    assert align(tissue(7)[:40, :40], tissue(7)[2:42, :40], MPP) is IDENTITY


def test_the_raw_figures_are_not_touched_by_alignment() -> None:
    from restain.evaluation.scoring import Reference
    from restain.evaluation.stain import background_mask
    from restain.optics import dab_density

    real = tissue(8)
    dab = dab_density(real, 235)
    reference = Reference(real, np.full(3, 235, np.float32), dab, dab * 0, "deconvolution", background_mask(dab))
    shifted = Prediction(np.roll(real, 12, axis=0))
    scorer = Scorer(reference, MPP)
    raw, _ = scorer(shifted)
    both, _ = scorer(shifted, aligned=True)
    assert raw["psnr"] == both["psnr"]
    assert both["psnr_aligned"] > raw["psnr"] + 3
    assert both["dab_r16_aligned"] > raw["dab_r16"]
    assert both["moved_um"] == pytest.approx(12 * MPP, rel=0.2)
    assert "psnr_aligned" not in raw


def test_the_flow_is_that_of_scikit_image() -> None:
    fixed = gaussian_filter(np.random.default_rng(0).normal(size=(90, 120)), 2).astype(np.float32)
    moving = shift(fixed, (1.5, -0.7), mode="reflect").astype(np.float32)
    expected = optical_flow_ilk(fixed, moving, radius=5, num_warp=2)
    assert abs(expected).max() > 1
    assert lucas_kanade(fixed, moving, 5) == pytest.approx(expected, abs=1e-3)
