import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restain.evaluation.corruptions import CORRUPTIONS, half_blurred, jpeg, magnified, pen_marked, reduced, scrambled
from restain.optics import optical_density


@pytest.fixture(scope="module")
def he() -> NDArray[np.uint8]:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(97, 130, 3)), (1, 1, 0))
    return np.clip(180 + 120 * noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS, ids=lambda kind: kind.key)
def test_every_kind_keeps_the_size_and_is_decided_by_its_seed(kind, he) -> None:
    ihc = np.full_like(he, 230)
    one, two = (kind.make(he, ihc, 0.46, np.random.default_rng(5)) for _ in range(2))
    assert one.shape == he.shape
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, he)


def test_half_of_the_picture_stays_sharp(he) -> None:
    changed = np.abs(half_blurred(he, 0.46, np.random.default_rng(1)).astype(int) - he).max(axis=2) > 0
    assert 0.35 < changed.mean() < 0.65


def test_a_pen_mark_only_darkens(he) -> None:
    for seed in range(8):
        marked = pen_marked(he, np.random.default_rng(seed))
        assert (marked.astype(int) <= he.astype(int) + 1).all()
        assert 0.1 < (marked != he).any(axis=2).mean() < 0.9


def test_magnification_is_two(he) -> None:
    big, small = magnified(he).astype(float), reduced(he).astype(float)
    assert np.abs(np.diff(big, axis=1)).mean() < 0.7 * np.abs(np.diff(he.astype(float), axis=1)).mean()
    np.testing.assert_allclose(small[:48, :65].mean(axis=(0, 1)), he.mean(axis=(0, 1)), atol=1)


def test_scrambling_keeps_the_colours_and_loses_the_shapes(he) -> None:
    before, after = optical_density(he), optical_density(scrambled(he, np.random.default_rng(0)))
    np.testing.assert_allclose(after.mean(axis=(0, 1)), before.mean(axis=(0, 1)), atol=0.01)
    assert abs(np.corrcoef(before[..., 0].ravel(), after[..., 0].ravel())[0, 1]) < 0.3


def test_jpeg_gets_worse_with_falling_quality(he) -> None:
    errors = [np.abs(jpeg(he, quality).astype(int) - he).mean() for quality in (95, 50, 5)]
    assert errors == sorted(errors)
