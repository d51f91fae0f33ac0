"""Normalised H&E is the same whatever the laboratory's stain strength and the scanner's white."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.data import vary_he
from restain.data.normalization import (
    LARGEST_GAIN,
    LEAST_GAIN,
    NORMALIZATION_EOSIN,
    TARGET_EOSIN,
    TARGET_HEMATOXYLIN,
    HENormalization,
    normalization_of,
    normalization_of_picture,
)
from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.optics import HEMATOXYLIN, mix, transmit
from restain.slides import Slide
from restain.slides.source_picture import ArraySource

MPP = 0.5
GLASS = np.array([244.0, 240.0, 246.0])


def picture(hematoxylin: float = 1.0, eosin: float = 1.0, glass: np.ndarray = GLASS, side: int = 320) -> Rgb:
    """Nuclei on stroma, with a strip of glass: ``(side, side, 3)`` at :data:`MPP`, stained as strongly as is said."""
    rng = np.random.default_rng(3)
    cells = side // 20
    nuclei = np.kron(rng.random((cells, cells)) < 0.3, np.ones((20, 20)))
    stroma = np.kron(rng.uniform(0.5, 1.0, (cells, cells)), np.ones((20, 20)))
    tissue = np.arange(side)[None] < 0.75 * side
    densities = np.stack([0.8 * nuclei * hematoxylin, 0.35 * stroma * eosin], axis=-1) * tissue[..., None]
    return np.rint(transmit(mix(densities, (HEMATOXYLIN, NORMALIZATION_EOSIN)), glass)).astype(np.uint8)


def normalised(rgb: Rgb) -> np.ndarray:
    return normalization_of_picture(rgb, MPP).apply(rgb).astype(float)


@given(st.floats(0.7, 1.3), st.floats(0.7, 1.3))
@settings(max_examples=12, deadline=None)
def test_a_change_of_stain_strength_by_up_to_30_percent_is_taken_back(hematoxylin: float, eosin: float) -> None:
    changed, plain = picture(hematoxylin, eosin), picture()
    assert np.abs(normalised(changed) - normalised(plain)).mean() < 2.5


@given(st.floats(175.0, 245.0), st.tuples(*[st.floats(0.97, 1.03)] * 3))
@settings(max_examples=12, deadline=None)
def test_a_tinted_or_dim_white_is_taken_back(brightness: float, tint: tuple[float, float, float]) -> None:
    glass = brightness * np.array(tint)
    found = normalization_of_picture(rgb := picture(glass=glass), MPP)
    np.testing.assert_allclose(found.white, glass, atol=1.5)
    assert np.abs(found.apply(rgb).astype(float) - normalised(picture())).mean() < 2.5


def test_most_of_the_training_jitter_is_taken_back() -> None:
    rgb = picture(glass=np.full(3, 255.0))
    # One stain alone only in part: the jitter's eosin vector is another than the normalisation's.
    for strength, left in (((0.7, 1.0), 0.6), ((1.3, 1.0), 0.6), ((0.7, 0.7), 0.25), ((1.3, 1.3), 0.25)):
        changed = vary_he(rgb, strength)
        before = np.abs(changed.astype(float) - rgb).mean()
        assert np.abs(normalised(changed) - normalised(rgb)).mean() < left * before


def test_normalising_again_changes_nothing() -> None:
    once = normalization_of_picture(rgb := picture(1.3, 0.8), MPP).apply(rgb)
    again = normalization_of_picture(once, MPP)
    assert (again.hematoxylin, again.eosin) == pytest.approx((1.0, 1.0), abs=0.02)
    assert np.abs(again.apply(once).astype(int) - once).mean() < 1.0


def test_white_becomes_white_and_stains_reach_their_targets() -> None:
    rgb = picture(1.2, 0.9)
    assert normalised(rgb)[:, -40:].min() >= 254
    found = normalization_of_picture(rgb, MPP)
    assert found.hematoxylin == pytest.approx(TARGET_HEMATOXYLIN / (0.8 * 1.2), rel=0.05)
    assert found.eosin == pytest.approx(TARGET_EOSIN / (0.35 * 0.9), rel=0.1)


def test_floats_are_taken_as_bytes_are() -> None:
    found = HENormalization((244.0, 240.0, 246.0), 1.3, 0.8)
    rgb = picture()
    assert found.apply(rgb).dtype == np.uint8
    assert np.abs(found.apply(rgb) - found.apply(rgb.astype(np.float32))).max() <= 0.51


def test_gains_are_bounded_and_little_tissue_is_left_as_strong_as_it_is() -> None:
    pale = normalization_of_picture(picture(0.35, 0.35, side=640), MPP)
    assert (pale.hematoxylin, pale.eosin) == (LARGEST_GAIN, LARGEST_GAIN)
    assert normalization_of_picture(picture(4.0, 4.0), MPP).hematoxylin == LEAST_GAIN
    glass = np.full((320, 320, 3), 240, np.uint8)
    glass[:30, :30] = (180, 120, 200)
    assert normalization_of_picture(glass, MPP) == HENormalization((240.0, 240.0, 240.0))
    assert normalization_of([]) == HENormalization((255.0, 255.0, 255.0))


def test_without_glass_the_brightest_tissue_is_not_taken_for_it() -> None:
    dense = picture(side=320)[:, :200]
    assert min(normalization_of_picture(dense, MPP).white) >= 240


def test_a_picture_in_memory_and_one_read_as_a_slide_are_normalised_alike() -> None:
    rgb = picture(1.1, 1.2)[:301, :317]
    with Slide(ArraySource(rgb, MPP)) as slide:
        seen = slide.read(Region(Point(0, 0), slide.size_at(2.0)), 2.0)
    assert normalization_of([seen]) == normalization_of_picture(rgb, MPP)
    assert seen.shape[:2] == (Size(317, 301).to_um(MPP).to_px(2.0).height, Size(317, 301).to_um(MPP).to_px(2.0).width)


def test_the_five_numbers_are_written_and_read() -> None:
    found = HENormalization((244.25, 240.0, 246.5), 1.3, 0.8125)
    assert HENormalization.from_text(found.text()) == found
