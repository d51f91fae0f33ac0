"""Windows of the model's own context: their weights, and that a pixel depends on its place alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.bundle import Bundle
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.phantom import make_pair
from restain.stain import Model, load, stain_slide
from restain.stain.area import rectangle
from restain.stain.windows import WindowLattice


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model(replace(bundle, card=bundle.card.model_copy(update={"context_px": 256})))


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([64, 100, 256]))
def test_windows_cover_an_image_and_their_weights_sum_to_one(width: int, height: int, context: int) -> None:
    total = np.zeros((height, width))
    for window in WindowLattice(Size(width, height), context):
        assert window.region.size == Size(min(context, width), min(context, height))
        assert (window.down > 0).all()
        assert (window.across > 0).all()
        total[window.region.slices] += window.down[:, None] * window.across
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_windows_begin_at_the_images_corner_and_share_a_quarter() -> None:
    corners = [(w.region.origin.x, w.region.origin.y) for w in WindowLattice(Size(1000, 300), 400)]
    assert corners == [(0, 0), (300, 0), (600, 0)]
    weights = next(iter(WindowLattice(Size(1000, 300), 400))).across
    assert (weights[:300] == 1).all()
    assert (np.diff(weights[300:]) < 0).all()
    assert weights[-1] < 1e-3


@pytest.mark.slow
def test_a_region_of_interest_has_exactly_the_pixels_of_the_whole_slide(small: Path, model: Model) -> None:
    whole = model.stain(small, everywhere=True)
    for x, y, width, height in ((90, 160, 250, 110), (700, 530, 30, 20)):
        region = Region(Point(x, y), Size(width, height))
        part = model.stain(small, everywhere=True, roi=[rectangle(region)])
        np.testing.assert_array_equal(part.rgb[region.slices], whole.rgb[region.slices])
        np.testing.assert_array_equal(part.dab[region.slices], whole.dab[region.slices])
        outside = np.ones(part.dab.shape, bool)
        outside[region.slices] = False
        assert not part.dab[outside].any()


@pytest.mark.slow
def test_windows_without_tissue_are_not_computed(
    picture: np.ndarray, write_slide: Callable[..., Path], model: Model, tmp_path: Path
) -> None:
    mostly_glass = np.full((1024, 2560, 3), picture[0, 0], np.uint8)
    mostly_glass[:, :600] = picture[:1024, :600]
    found = stain_slide(write_slide(tmp_path / "he.ome.tiff", mostly_glass), tmp_path / "out", model)
    assert found.figures is not None
    every = sum(w.region.size.width * w.region.size.height for w in WindowLattice(Size(2560, 1024), 256)) / 1e6
    assert 0 < found.figures.megapixels < 0.4 * every


def test_the_batch_does_not_change_a_pixel(small: Path, model: Model) -> None:
    other = Model(model.bundle)
    other.batch = 5
    np.testing.assert_array_equal(other.stain(small).rgb, model.stain(small).rgb)


def test_a_mean_in_density_joins_windows(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    """Of a model without a stain head as well: its windows differ, and no border shows."""
    model = Model(make_bundle(tmp_path / "rgb", output="rgb"))
    he = make_pair(3, 0, Her2Level.TWO, size=640, mpp=0.5).he
    rgb = model.stain(he, mpp=0.5, everywhere=True, glass_noise=False).rgb.astype(float)
    steps = np.abs(np.diff(rgb, axis=1)).mean(axis=(0, 2))
    for border in (128, 512):
        assert steps[border - 1] < 1.2 * np.median(steps)


@pytest.mark.slow
def test_halves_of_different_level_keep_their_own_level() -> None:
    """Attention over both halves in one piece stained the weak one by 0.037 OD more and the strong one by 0.033 OD less."""
    model, side = load(), 1024
    halves = [
        make_pair(5, i, level, size=side, mpp=model.mpp) for i, level in enumerate((Her2Level.ONE, Her2Level.THREE))
    ]
    he, truth = np.hstack([half.he for half in halves]), [half.dab.mean() for half in halves]
    windows = model.stain(he, mpp=model.mpp, everywhere=True).dab
    for half, true in zip((np.s_[:, :side], np.s_[:, side:]), truth, strict=True):
        assert abs(windows[half].mean() - true) < 0.012


def test_the_provenance_names_the_context(small: Path, model: Model, tmp_path: Path) -> None:
    assert stain_slide(small, tmp_path, model).provenance.context_px == 256
