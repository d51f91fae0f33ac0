from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.data import Geometry, augment_pair, draw_geometry, jitter_he
from restain.errors import RestainError
from restain.optics import EOSIN, HEMATOXYLIN, mix, optical_density, transmit, unmix
from restain.recipe import AugmentRecipe

STILL = AugmentRecipe(flip=False, rotate="none", he_stain=0, he_hue=0, he_white=0)
Turn = Literal["none", "quarter", "any"]

sizes = st.tuples(st.integers(24, 48), st.integers(24, 48))
crops = st.integers(1, 24)
seeds = st.integers(0, 2**32 - 1)
turns = st.sampled_from(["none", "quarter", "any"])


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose every pixel is unique."""
    index = np.arange(height * width).reshape(height, width)
    return np.stack([index // 256, index % 256, np.full_like(index, 7)], axis=-1).astype(np.uint8)


def recipe(rotate: Turn, flip: bool = True, **changes: float) -> AugmentRecipe:
    return STILL.model_copy(update={"rotate": rotate, "flip": flip, **changes})


@given(size=sizes, crop=crops, rotate=turns, flip=st.booleans(), seed=seeds)
@settings(deadline=None)
def test_both_images_and_extras_get_the_same_geometry(
    size: tuple[int, int], crop: int, rotate: Turn, flip: bool, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    rng = np.random.default_rng(seed)
    he, ihc, colour, grey = augment_pair(
        image, image, crop, recipe(rotate, flip), rng, extra=(image, image[..., 1].astype(np.float32))
    )
    assert he.shape == (crop, crop, 3)
    assert he.dtype == ihc.dtype == np.uint8
    assert np.array_equal(he, ihc)
    assert np.array_equal(he, colour)
    assert grey.dtype == np.float32
    assert np.abs(grey - he[..., 1]).max() <= 0.51


@given(size=sizes, crop=crops, rotate=st.sampled_from(["none", "quarter"]), flip=st.booleans(), seed=seeds)
@settings(deadline=None)
def test_flips_and_quarter_turns_only_move_pixels_and_can_be_undone(
    size: tuple[int, int], crop: int, rotate: Turn, flip: bool, seed: int
) -> None:
    image = numbered(*size)
    geometry = draw_geometry(image.shape, crop, recipe(rotate, flip), np.random.default_rng(seed))
    moved = geometry.apply(image)
    undone = np.rot90(moved[:, ::-1] if geometry.mirror else moved, -geometry.quarters)
    half = (crop - 1) / 2
    top, left = round(geometry.y - half), round(geometry.x - half)
    assert 0 <= top <= size[0] - crop
    assert 0 <= left <= size[1] - crop
    assert np.array_equal(undone, image[top : top + crop, left : left + crop])


def test_all_eight_orientations_and_all_windows_come_up() -> None:
    image = numbered(4, 4)
    rng = np.random.default_rng(0)
    full = {draw_geometry(image.shape, 4, recipe("quarter"), rng).apply(image).tobytes() for _ in range(200)}
    assert len(full) == 8
    flips = {draw_geometry(image.shape, 4, recipe("none"), rng).apply(image).tobytes() for _ in range(100)}
    assert len(flips) == 4
    windows = {draw_geometry(image.shape, 3, STILL, rng).apply(image).tobytes() for _ in range(100)}
    assert len(windows) == 4


@given(size=sizes, crop=crops, quarters=st.integers(1, 3), seed=seeds)
@settings(deadline=None)
def test_turning_by_degrees_agrees_with_quarter_turns(
    size: tuple[int, int], crop: int, quarters: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    plain = draw_geometry(image.shape, crop, STILL, np.random.default_rng(seed))
    turned = Geometry(crop, plain.x, plain.y, degrees=90.0 * quarters)
    expected = Geometry(crop, plain.x, plain.y, quarters=quarters)
    assert np.abs(turned.apply(image).astype(int) - expected.apply(image)).max() <= 1


@given(crop=st.integers(4, 24), seed=seeds)
@settings(deadline=None)
def test_no_border_is_invented_where_the_image_is_large_enough(crop: int, seed: int) -> None:
    side = int(np.ceil(crop * np.sqrt(2))) + 2
    x, y = np.meshgrid(np.arange(side, dtype=np.float64), np.arange(side, dtype=np.float64))
    geometry = draw_geometry((side, side), crop, recipe("any", flip=False), np.random.default_rng(seed))
    # A plane interpolates to itself only where nothing is reflected.
    got_x, got_y = geometry.apply(x), geometry.apply(y)
    for got in (got_x, got_y):
        assert np.abs(np.diff(got, n=2, axis=0)).max() < 1e-6
        assert np.abs(np.diff(got, n=2, axis=1)).max() < 1e-6
    assert got_x.mean() == pytest.approx(geometry.x)
    assert got_y.mean() == pytest.approx(geometry.y)


def test_labels_stay_labels_when_turned() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 10:30] = 700
    turned = Geometry(30, 19.5, 19.5, degrees=33.0).apply(labels)
    assert set(np.unique(turned)) == {0, 700}
    assert Geometry(30, 19.5, 19.5, degrees=33.0).apply(labels > 0).dtype == bool


@given(rotate=turns, seed=seeds)
@settings(deadline=None, max_examples=30)
def test_the_same_generator_gives_the_same_crop(rotate: Turn, seed: int) -> None:
    rng = np.random.default_rng(1)
    he, ihc = (rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(2))
    full = AugmentRecipe(rotate=rotate)
    first = augment_pair(he, ihc, 20, full, np.random.default_rng(seed))
    again = augment_pair(he, ihc, 20, full, np.random.default_rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@given(rotate=turns, seed=seeds)
@settings(deadline=None, max_examples=50)
def test_stain_jitter_leaves_the_ihc_alone(rotate: Turn, seed: int) -> None:
    rng = np.random.default_rng(1)
    he, ihc = (rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(2))
    strong = AugmentRecipe(rotate=rotate, he_stain=0.9, he_hue=0.3, he_white=0.5)
    still = strong.model_copy(update={"he_stain": 0.0, "he_hue": 0.0, "he_white": 0.0})
    varied = augment_pair(he, ihc, 20, strong, np.random.default_rng(seed))
    plain = augment_pair(he, ihc, 20, still, np.random.default_rng(seed))
    assert np.array_equal(varied[1], plain[1])
    assert not np.array_equal(varied[0], plain[0])


@given(rgb=st.tuples(*[st.integers(0, 255)] * 3), white=st.floats(180, 255), seed=seeds)
def test_no_jitter_is_the_identity(rgb: tuple[int, int, int], white: float, seed: int) -> None:
    image = np.full((2, 2, 3), rgb, np.uint8)
    out = jitter_he(image, STILL, np.random.default_rng(seed), white=white)
    assert np.abs(out.astype(int) - image).max() <= 1


@given(white=st.integers(150, 255), stain=st.floats(0, 1), hue=st.floats(0, 1), seed=seeds)
def test_glass_stays_as_it_is_when_only_stains_vary(white: int, stain: float, hue: float, seed: int) -> None:
    glass = np.full((3, 3, 3), white, np.uint8)
    changed = STILL.model_copy(update={"he_stain": stain, "he_hue": hue})
    assert np.array_equal(jitter_he(glass, changed, np.random.default_rng(seed), white=float(white)), glass)


@given(share=st.floats(0, 1), seed=seeds)
def test_the_white_point_darkens_by_no_more_than_its_share(share: float, seed: int) -> None:
    glass = np.full((2, 2, 3), 255, np.uint8)
    out = jitter_he(glass, STILL.model_copy(update={"he_white": share}), np.random.default_rng(seed))
    assert (out >= np.floor(255 * (1 - share))).all()
    assert (out == out[0, 0]).all()


@given(stain=st.floats(0.01, 1), seed=seeds)
def test_stain_jitter_scales_each_stain_by_one_factor_and_keeps_the_rest(stain: float, seed: int) -> None:
    densities = np.random.default_rng(5).uniform(0.05, 0.4, (64, 2))
    image = np.round(transmit(mix(densities, (HEMATOXYLIN, EOSIN)))).astype(np.uint8)[None]
    out = jitter_he(image, STILL.model_copy(update={"he_stain": stain}), np.random.default_rng(seed))
    before = unmix(optical_density(image), (HEMATOXYLIN, EOSIN))[0]
    after = unmix(optical_density(out), (HEMATOXYLIN, EOSIN))[0]
    for one, two in zip(before.T, after.T, strict=True):
        factor = float(one @ two / (one @ one))
        assert 1 - stain - 0.02 <= factor <= 1 + stain + 0.02
        assert np.abs(two - factor * one).max() < 0.03


def test_an_image_smaller_than_the_crop_and_unequal_sizes_are_refused() -> None:
    small, large = np.zeros((20, 30, 3), np.uint8), np.zeros((30, 30, 3), np.uint8)
    rng = np.random.default_rng(0)
    with pytest.raises(RestainError, match="30x20 px is smaller than the training crop of 24 px"):
        augment_pair(small, small, 24, AugmentRecipe(), rng)
    with pytest.raises(RestainError, match="differ in size"):
        augment_pair(large, small, 10, AugmentRecipe(), rng)
