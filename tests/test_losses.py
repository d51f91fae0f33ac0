import math

import numpy as np
import pytest
import torch

from restain import RestainError, losses, optics


def test_adversarial_is_cross_entropy() -> None:
    logits = torch.tensor([0.0, 2.0])
    expected = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert float(losses.adversarial(logits, True)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.adversarial(-logits, False)) == pytest.approx(expected, rel=1e-5)


def test_least_squares_and_wasserstein_by_hand() -> None:
    logits = torch.tensor([0.0, 2.0])
    assert float(losses.adversarial(logits, True, "least-squares")) == pytest.approx(1.0)
    assert float(losses.adversarial(logits, False, "least-squares")) == pytest.approx(2.0)
    assert float(losses.adversarial(logits, True, "wasserstein")) == pytest.approx(-1.0)
    assert float(losses.adversarial(logits, False, "wasserstein")) == pytest.approx(1.0)


def test_gradient_penalty_measures_the_slope_of_a_linear_critic() -> None:
    torch.manual_seed(0)
    real, virtual = torch.rand(3, 3, 4, 4), torch.rand(3, 3, 4, 4)
    weight = torch.randn(3, 4, 4)
    for slope in (0.5, 1.0, 3.0):
        scaled = (weight * slope / weight.norm()).requires_grad_(True)
        penalty = losses.gradient_penalty(
            lambda x, w=scaled: (x * w).sum((1, 2, 3))[:, None], real, virtual, torch.rand(3)
        )
        assert float(penalty.detach()) == pytest.approx((slope - 1) ** 2, abs=1e-5)
    penalty.backward()
    assert float(scaled.grad.abs().sum()) > 0


def test_lab_agrees_with_skimage_on_flat_colours() -> None:
    from skimage.color import rgb2lab

    one, other = np.array([0.9, 0.88, 0.7]), np.array([0.92, 0.92, 0.93])
    flat = [torch.tensor(c, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 32, 32) for c in (one, other)]
    expected = np.abs(rgb2lab(one[None, None]) - rgb2lab(other[None, None])).mean() / 100
    assert float(losses.lab(*flat)) == pytest.approx(expected, rel=0.01)


def test_background_loss_sees_a_cast_on_white_and_nothing_under_dab() -> None:
    white = torch.ones(2, 3)
    real = torch.full((2, 3, 64, 64), 0.95)
    real[1] = torch.tensor([0.45, 0.28, 0.2]).view(3, 1, 1)  # DAB all over: this image has no background
    yellow = real * torch.tensor([1.0, 0.98, 0.85]).view(3, 1, 1)
    assert float(losses.lab_background(real, real, white)) == 0
    both = float(losses.lab_background(yellow, real, white))
    alone = float(losses.lab_background(yellow[:1], real[:1], white[:1]))
    assert alone > 0.01
    assert both == pytest.approx(alone)
    assert float(losses.lab_background(yellow[1:], real[1:], white[1:])) == 0


def test_hsv_does_not_care_for_the_hue_of_grey() -> None:
    grey = torch.full((1, 3, 32, 32), 0.8)
    reddish, bluish = grey.clone(), grey.clone()
    reddish[:, 0] += 0.002
    bluish[:, 2] += 0.002
    red, blue = grey * torch.tensor([1, 0.5, 0.5]).view(3, 1, 1), grey * torch.tensor([0.5, 0.5, 1]).view(3, 1, 1)
    assert float(losses.hsv(reddish, bluish)) < 0.01
    assert float(losses.hsv(red, blue)) > 0.2


def test_unknown_levels_enter_no_level_term() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    some = losses.level(logits, torch.tensor([1, losses.UNKNOWN_LEVEL, 3]))
    known = torch.nn.functional.cross_entropy(logits[[0, 2]], torch.tensor([1, 3]))
    torch.testing.assert_close(some, known)
    none = losses.level(logits, torch.full((3,), losses.UNKNOWN_LEVEL))
    assert float(none.detach()) == 0
    none.backward()
    assert torch.equal(logits.grad, torch.zeros(3, 4))


def test_pyramid_forgives_a_small_shift_and_l1_does_not() -> None:
    torch.manual_seed(0)
    real = torch.rand(1, 3, 128, 128)
    shifted = torch.roll(real, 1, dims=3)
    assert losses.pyramid_l1(shifted, real, 4) < 0.4 * losses.l1(shifted, real)
    assert float(losses.pyramid_l1(real, real, 4)) == 0


def test_pyramid_sees_a_colour_shift_at_every_level() -> None:
    real = torch.full((1, 3, 64, 64), 0.5)
    assert float(losses.pyramid_l1(real + 0.1, real, 4)) == pytest.approx(0.1, abs=1e-5)
    assert float(losses.pyramid_l1(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), 4)) == 0


def test_dab_density_agrees_with_the_ground_layer() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    white = np.array([240.0, 238.0, 230.0], np.float32)
    ours = losses.dab_density(torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255, torch.from_numpy(white)[None] / 255)
    np.testing.assert_allclose(ours[0, 0].numpy(), optics.dab_density(rgb, white), atol=1e-4)


def test_dab_cells_asks_for_the_amount_and_not_for_the_exact_place() -> None:
    real = torch.zeros(1, 1, 64, 64)
    real[..., ::16] = 0.8
    moved = torch.roll(real, 3, dims=3)
    none = torch.zeros_like(real)
    assert losses.l1(moved, real) > losses.l1(none, real)
    assert losses.dab_cells(moved, real) < 0.1 * losses.dab_cells(none, real)
    assert float(losses.dab_cells(real[..., :5, :5], real[..., :5, :5])) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_guard_names_step_and_loss(value: float) -> None:
    with pytest.raises(RestainError, match=r"step 17.*'G\.l1'"):
        losses.require_finite(17, {"D.gan": 1.0, "G.l1": value})
    losses.require_finite(17, {"D.gan": 1.0})


def test_dab_where_asks_for_the_place_and_not_for_the_strength() -> None:
    torch.manual_seed(0)
    real = torch.rand(2, 1, 64, 64).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert losses.dab_where(0.5 * real + 0.3, real, (8,)) < 0.02
    assert losses.dab_where(1 - real, real, (8,)) > 1
    flat = torch.full_like(real, 0.2).requires_grad_()
    missed = losses.dab_where(flat, real, (8,))
    missed.backward()
    assert torch.isfinite(flat.grad).all()
    assert flat.grad.abs().sum() > 0
    assert losses.dab_where(real, torch.full_like(real, 0.1), (8,)) < 0.01, "a crop without a pattern asks for nothing"


def test_contextual_forgives_a_shift_and_not_another_picture() -> None:
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 14, 14), scale_factor=8, mode="nearest").clamp(0.1, 1)
    real, moved, other = wide[:, :, :96, :96], wide[:, :, 8:104, :96], wide[:, :, :96, :96].flip(1)
    same, shifted, foreign = (float(losses.contextual(x, real, 8, reach=100)) for x in (real, moved, other))
    assert 0 <= same < shifted < foreign
    assert shifted - same < 0.5 * (foreign - same)
    assert losses.l1(moved, real) > 0.5 * losses.l1(other, real), (
        "which a pixel by pixel comparison does not tell apart"
    )


def test_contextual_prefers_what_is_near() -> None:
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), scale_factor=8, mode="nearest").clamp(0.1, 1)
    real, moved = wide[:, :, :96, :96], wide[:, :, 32:, :96]
    strict, lenient = (float(losses.contextual(moved, real, 8, reach)) for reach in (8.0, 400.0))
    assert strict > lenient + 0.1


def test_contextual_has_finite_gradients_also_on_flat_images() -> None:
    for real in (torch.rand(2, 3, 48, 40), torch.full((2, 3, 48, 40), 0.9)):
        virtual = torch.full((2, 3, 48, 40), 0.9).requires_grad_(True)
        losses.contextual(virtual, real, 8, reach=40).backward()
        assert torch.isfinite(virtual.grad).all()
    virtual = torch.rand(2, 3, 48, 40, requires_grad=True)
    losses.contextual(virtual, torch.rand(2, 3, 48, 40), 8, reach=40).backward()
    assert (virtual.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_unlike_is_zero_for_any_linear_change_of_stain_and_looks_inside_only() -> None:
    torch.manual_seed(0)
    real = torch.rand(1, 2, 32, 32) * 3
    everywhere = torch.ones(1, 1, 32, 32)
    assert float(losses.local_dissimilarity(real * 2 + 0.3, real, everywhere)) == pytest.approx(0, abs=2e-3)
    assert float(losses.local_dissimilarity(-real, real, everywhere)) == pytest.approx(2, abs=5e-3)
    assert float(losses.local_dissimilarity(torch.rand(1, 2, 32, 32), real, everywhere)) == pytest.approx(1, abs=0.1)
    half, spoiled = everywhere.clone(), real.clone()
    half[:, :, 16:] = 0
    spoiled[:, :, 16:] = torch.rand(1, 2, 16, 32)
    assert float(losses.local_dissimilarity(spoiled, real, half)) == pytest.approx(0, abs=2e-3)
    assert float(losses.local_dissimilarity(real, real, torch.zeros_like(half))) == 0


def test_slope_by_hand() -> None:
    rows = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    shift = torch.full((1, 1, 8, 8), 5.0)
    assert float(losses.slope(torch.cat([shift, shift], dim=1))) == 0
    # Only one of four derivatives differs from 0: 0.5 px per px, squared, over 2 components and 2 directions.
    assert float(losses.slope(torch.cat([0.5 * rows, shift], dim=1))) == pytest.approx(0.25 / 4)
