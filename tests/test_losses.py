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
        losses.require_finite(17, {"D.gan": torch.tensor(1.0), "G.l1": torch.tensor(value)})
    losses.require_finite(17, {"D.gan": torch.tensor(1.0)})
