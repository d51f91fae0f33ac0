from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restain.data import open_pairs
from restain.errors import RestainError
from restain.images import write_png
from restain.ood.detector import OodDetector, fit_ood_detector, load_ood_detector, save_ood_detector
from restain.ood.features import MOST_TILES, TILE, feature_names, tile_corners, tile_features
from restain.optics import EOSIN, HEMATOXYLIN, mix, transmit
from restain.recipe import AugmentRecipe

Rgb = NDArray[np.uint8]


def tissue(seed: int, side: int = 96) -> Rgb:
    """Round nuclei on wavy eosin, with white gaps."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    hematoxylin = np.zeros((side, side))
    for cy, cx in rng.uniform(0, side, (side * side // 250, 2)):
        hematoxylin += (np.hypot(y - cy, x - cx) < rng.uniform(3, 5)) * rng.uniform(0.6, 0.9)
    eosin = 0.4 + 0.1 * gaussian_filter(rng.normal(size=(side, side)), 2) * 8
    gaps = gaussian_filter(rng.normal(size=(side, side)), 12) > 0.03
    densities = np.stack([np.minimum(hematoxylin, 1.0), eosin], axis=-1) * ~gaps[..., None]
    return transmit(mix(densities, (HEMATOXYLIN, EOSIN)) + rng.normal(0, 0.003, (side, side, 3)), 245).astype(np.uint8)


def write_pairs(root: Path, count: int) -> Path:
    for stain in ("HE", "IHC"):
        (root / stain / "train").mkdir(parents=True)
        for number in range(count):
            write_png(root / stain / "train" / f"{number:05d}_train_0.png", tissue(number))
    return root


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> OodDetector:
    pairs = open_pairs(write_pairs(tmp_path_factory.mktemp("data"), 24), val_share=0)
    return fit_ood_detector(pairs.pairs, AugmentRecipe())


def test_every_feature_has_a_name_and_a_finite_value() -> None:
    for image in (tissue(0), np.full((40, 50, 3), 240, np.uint8), np.zeros((3, 5, 3), np.uint8), tissue(1)[:1, :1]):
        values = tile_features(image)
        assert len(values) == len(feature_names())
        assert np.isfinite(values).all()


def test_features_do_not_change_when_the_tile_is_turned_or_mirrored() -> None:
    image = tissue(3)
    plain, turned = np.array(tile_features(image)), np.array(tile_features(np.rot90(image, 2)[:, ::-1].copy()))
    blocks = np.array([name.startswith("JPEG") for name in feature_names()])
    np.testing.assert_allclose(plain[~blocks], turned[~blocks], atol=0.15)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_tiles_cover_the_image_and_stay_inside(height: int, width: int) -> None:
    corners = tile_corners(height, width)
    assert 1 <= len(corners) <= MOST_TILES
    assert {y for y, _ in corners} >= {0, max(height - TILE, 0)}
    assert {x for _, x in corners} >= {0, max(width - TILE, 0)}
    assert all(y + min(TILE, height) <= height and x + min(TILE, width) <= width for y, x in corners)


def test_new_images_of_the_kind_are_in_distribution_and_corrupted_ones_are_not(memory: OodDetector) -> None:
    fresh = [tissue(1000 + k) for k in range(12)]
    assert sum(memory.judge(image).in_distribution for image in fresh) >= 10
    for image in fresh[:5]:
        smooth = gaussian_filter(image.astype(float), (3, 3, 0)).astype(np.uint8)
        found = memory.judge(smooth)
        assert not found.in_distribution
        assert "sharpness" in found.reason
        assert found.reason.endswith(".")
        assert not memory.judge(255 - image).in_distribution
        assert not memory.judge(np.full_like(image, 240)).in_distribution


def test_the_score_is_measured_against_its_limit(memory: OodDetector) -> None:
    for image in (tissue(2000), gaussian_filter(tissue(2001), (2, 2, 0))):
        found = memory.judge(image)
        assert found.in_distribution == (found.score <= 1)


def test_it_comes_back_from_its_file(memory: OodDetector, tmp_path: Path) -> None:
    save_ood_detector(tmp_path / "f.safetensors", memory, "abc")
    back = load_ood_detector(tmp_path / "f.safetensors", "abc")
    assert (back.threshold, back.images, back.calibrated_on) == (memory.threshold, 24, 24)
    for image in (tissue(5), 255 - tissue(5)):
        assert back.judge(image).score == pytest.approx(memory.judge(image).score, rel=1e-3)


def test_a_file_of_another_bundle_or_a_damaged_one_is_refused(memory: OodDetector, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_ood_detector(path, memory, "abc")
    with pytest.raises(RestainError, match="another bundle"):
        load_ood_detector(path, "abd")
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(RestainError, match="damaged"):
        load_ood_detector(path, "abc")
    path.write_bytes(b"nothing")
    with pytest.raises(RestainError, match="damaged"):
        load_ood_detector(path, "abc")


def test_a_single_pair_is_enough_and_says_that_its_limit_is_a_guess(tmp_path: Path) -> None:
    pairs = open_pairs(write_pairs(tmp_path, 1), val_share=0)
    memory = fit_ood_detector(pairs.pairs, AugmentRecipe())
    assert memory.calibrated_on == 0
    assert memory.judge(tissue(0)).in_distribution
    with pytest.raises(ValueError, match="at least one"):
        fit_ood_detector([], AugmentRecipe())


def test_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    pairs = open_pairs(write_pairs(tmp_path, 4), val_share=0)
    one, two = (fit_ood_detector(pairs.pairs, AugmentRecipe(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.tiles, two.tiles)
    assert one.threshold == two.threshold
