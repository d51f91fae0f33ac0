"""Maps against answers that can be worked out by hand, and the gradient that they need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from restain import RestainError, optics
from restain.explain.attribution import baseline_of, counted, integrated_gradients, occlusion, occlusion_calls
from restain.explain.targets import dab_map, disc_dab, disc_mask, label_gradient
from restain.geometry import Point
from restain.models.generator import Generator
from restain.models.heads import Stained
from restain.models.tensors import batch_of
from restain.progress import Steps
from restain.recipe import ExpressionRecipe, GeneratorRecipe


@pytest.fixture
def he() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 240, (24, 32, 3), dtype=np.uint8)


def weighted(weights: Tensor) -> object:
    return lambda x: (x * weights).flatten(1).sum(1)


def test_integrated_gradients_of_a_linear_target(he: np.ndarray) -> None:
    weights = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(1))
    start = baseline_of(he, "glass", 0.5)
    found = integrated_gradients(weighted(weights), he, start, steps=4)
    expected = (weights.permute(1, 2, 0).numpy() * (he - start) / 255).sum(-1)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.completeness == pytest.approx(1, abs=1e-4)


def test_integrated_gradients_add_up_for_a_curved_target(he: np.ndarray) -> None:
    found = integrated_gradients(lambda x: x.flatten(1).mean(1) ** 3, he, baseline_of(he, "glass", 0.5), steps=8)
    assert found.completeness == pytest.approx(1, abs=1e-3)


def test_occlusion_finds_the_one_place_that_counts(he: np.ndarray) -> None:
    he[8:16, 16:24] = 20
    counts = torch.zeros(3, 24, 32)
    counts[:, 8:16, 16:24] = -1
    seen = []
    calls = Steps(occlusion_calls(he.shape, 8, 8), lambda done, total: seen.append((done, total)))
    start = np.full(he.shape, 255, np.float32)
    found = occlusion(counted(weighted(counts), calls), he, start, patch=8, step=8)
    inside = found.values[8:16, 16:24]
    np.testing.assert_allclose(inside, 3 * 64 * (255 - 20) / 255, rtol=1e-4)
    assert np.abs(found.values).sum() == pytest.approx(inside.sum())
    assert seen[-1] == (calls.total, calls.total)


def test_an_unknown_baseline_is_refused(he: np.ndarray) -> None:
    with pytest.raises(RestainError, match="glass and blur"):
        baseline_of(he, "black", 0.5)  # type: ignore[arg-type]


def test_the_disc_has_its_size_and_lies_in_the_image() -> None:
    disc = disc_mask((200, 200), Point(100, 90), 0.4)
    assert disc.sum() * 0.4**2 == pytest.approx(np.pi * 64, rel=0.02)
    assert disc[90, 100]
    with pytest.raises(RestainError, match="200,5 lies outside the image, which is 200x100 px"):
        disc_mask((100, 200), Point(200, 5), 0.4)


def test_dab_of_a_colour_only_model_is_that_of_colour_deconvolution() -> None:
    rgb = np.random.default_rng(0).integers(30, 250, (20, 30, 3), dtype=np.uint8)
    found = dab_map(Stained(batch_of(rgb), None, None))[0].numpy()
    np.testing.assert_allclose(found, optics.dab_density(rgb, optics.glass_white(rgb)), atol=1e-4)


@pytest.mark.parametrize("label_feature", [True, False])
def test_the_gradient_knows_the_label_feature(label_feature: bool) -> None:
    torch.manual_seed(0)
    network = Generator(
        GeneratorRecipe(width=8, depth=2, label_feature=label_feature), ExpressionRecipe(width=4)
    ).eval()
    if label_feature:
        with torch.no_grad():
            network.fuse_label.weight.mul_(30)
            network.head.densities.bias.fill_(3.0)
    network = network.double()
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    target = disc_dab(network, disc_mask((32, 32), Point(16, 16), 1.0))

    def gradient() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(target(leaf).sum(), leaf)[0]

    without = gradient()
    with label_gradient(network):
        full = gradient()
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        numeric = float((target(x + 1e-3 * direction) - target(x - 1e-3 * direction)).item()) / 2e-3
    assert float((full * direction).sum()) == pytest.approx(numeric, rel=0.02)
    assert (float((without * direction).sum()) == pytest.approx(numeric, rel=0.02)) is not label_feature
    assert not network.expression or not network.expression._forward_hooks


def test_a_generators_integrated_gradients_add_up_with_the_label_feature() -> None:
    torch.manual_seed(0)
    network = Generator(GeneratorRecipe(width=8, depth=2), ExpressionRecipe(width=4)).eval()
    with torch.no_grad():
        network.fuse_label.weight.mul_(10)
        network.head.densities.bias.fill_(3.0)
    he = np.random.default_rng(2).integers(60, 240, (32, 32, 3), dtype=np.uint8)
    target, start = disc_dab(network, disc_mask((32, 32), Point(16, 16), 1.0)), baseline_of(he, "glass", 1.0)
    with label_gradient(network):
        assert integrated_gradients(target, he, start, steps=100, batch=50).completeness == pytest.approx(1, abs=0.05)
    assert integrated_gradients(target, he, start, steps=100, batch=50).completeness != pytest.approx(1, abs=0.05)
