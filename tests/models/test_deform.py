"""The registration network: its geometry, what it finds in an untrained state, and what it learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from restain.models.deform import Deformer, inside, warp


def texture(size: int, seed: int = 0, count: int = 1) -> torch.Tensor:
    """``(count, 3, size, size)``: blots of about a nucleus' size."""
    noise = torch.rand(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=False).clamp(0.05, 1)


def still(image: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(image), 2, *image.shape[2:])


@given(down=st.integers(-20, 20), right=st.integers(-20, 20))
@settings(max_examples=25, deadline=None)
def test_warping_by_whole_pixels_moves_pixels(down: int, right: int) -> None:
    image = torch.rand(1, 2, 24, 32, generator=torch.Generator().manual_seed(1))
    field = still(image) + torch.tensor([down, right]).view(1, 2, 1, 1)
    moved, known = warp(image, field), inside(field)
    for y, x in ((0, 0), (11, 7), (23, 31), (5, 30)):
        there = 0 <= y + down < 24 and 0 <= x + right < 32
        assert bool(known[0, 0, y, x]) == there
        if there:
            torch.testing.assert_close(moved[0, :, y, x], image[0, :, y + down, x + right], atol=1e-4, rtol=0)


def test_standing_still_changes_nothing() -> None:
    image = texture(48)
    torch.testing.assert_close(warp(image, still(image)), image, atol=1e-5, rtol=0)
    assert inside(still(image)).all()


@pytest.mark.parametrize("shift", [(0, 0), (12, -8), (-20, 16), (4, 28)])
def test_a_known_shift_is_found_before_anything_was_learned(shift: tuple[int, int]) -> None:
    torch.manual_seed(0)
    wide = texture(192)
    virtual = wide[:, :, 32:160, 32:160]
    real = wide[:, :, 32 + shift[0] : 160 + shift[0], 32 + shift[1] : 160 + shift[1]]
    with torch.no_grad():
        field = Deformer(8, 40)(virtual, real)
    assert field.shape == (1, 2, 128, 128)
    middle = field[0, :, 32:96, 32:96].flatten(1).median(dim=1).values
    torch.testing.assert_close(middle, torch.tensor(shift, dtype=torch.float), atol=2.5, rtol=0)


def test_what_is_beyond_reach_is_not_claimed_and_nothing_moves_where_nothing_can_be_seen() -> None:
    torch.manual_seed(0)
    deformer = Deformer(8, 16)
    with torch.no_grad():
        field = deformer(texture(96, 1), texture(96, 2))
        assert field.abs().max() <= 16 + 8 + 1e-4
        flat = torch.full((1, 3, 96, 96), 0.8)
        assert deformer(flat, flat)[0, :, 32:64, 32:64].abs().max() < 1


def test_gradients_reach_every_parameter_and_are_finite_on_a_flat_image() -> None:
    torch.manual_seed(0)
    deformer = Deformer(4, 16)
    with torch.no_grad():
        deformer.correct[-1].weight.normal_(std=0.01)
    virtual = torch.cat([texture(64, 1), torch.full((1, 3, 64, 64), 0.9)])
    (warp(virtual, deformer(virtual, texture(64, 2, 2))) - texture(64, 3, 2)).abs().mean().backward()
    for name, parameter in deformer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [(40, 52), (33, 71), (16, 16)])
def test_any_size_gets_a_field_of_its_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    field = Deformer(4, 8)(torch.rand(2, 3, *size), torch.rand(2, 3, *size))
    assert field.shape == (2, 2, *size)
    assert torch.isfinite(field).all()
