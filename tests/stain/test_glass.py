from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from scipy import ndimage

from restain.geometry import Point, Region, Size
from restain.slides import open_slide, tissue_mask
from restain.stain.glass import PERIOD, Glass, Noise, measure_noise

GLASS = np.array([236, 234, 238], np.float32)
WHITE = np.array([244, 241, 240], np.float32)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
CORNER = Region(Point(0, 0), Size(64, 64))


def noisy_he(std: float = 1.8, smooth: float = 1.2, side: int = 1024) -> np.ndarray:
    """``(side, side, 3)``: tissue in the middle of glass with smooth noise, most of it in all channels alike."""
    rng = np.random.default_rng(3)
    waves = ndimage.gaussian_filter(rng.standard_normal((4, side, side)), (0, smooth, smooth))
    waves /= waves.std()
    noise = std * (0.9 * waves[:1] + np.sqrt(1 - 0.9**2) * waves[1:])
    rgb = GLASS + np.moveaxis(noise, 0, -1)
    middle = np.s_[side * 3 // 8 : side * 5 // 8, side * 3 // 8 : side * 5 // 8]
    rgb[middle] = np.array([180, 90, 150]) + rng.normal(0, 12, rgb[middle].shape)
    return np.rint(rgb.clip(0, 255)).astype(np.uint8)


def measured(path: Path, mpp: float = 0.5) -> Noise | None:
    with open_slide(path) as slide:
        return measure_noise(slide, tissue_mask(slide), mpp)


@pytest.fixture(scope="module")
def noise(write_slide, tmp_path_factory) -> Noise:
    found = measured(write_slide(tmp_path_factory.mktemp("noise") / "he.ome.tiff", noisy_he()))
    assert found is not None
    return found


def neighbours(plane: np.ndarray) -> float:
    rest = plane - plane.mean()
    return float((rest[:, 1:] * rest[:, :-1]).mean() / (rest**2).mean())


def test_the_noise_has_the_strength_the_grain_and_the_colours_of_the_glass(noise: Noise) -> None:
    assert np.allclose(noise.std, 1.8, rtol=0.15)
    texture = noise.texture(512)
    real = noisy_he()[:300, :300].astype(np.float64)
    assert np.allclose(texture.std(axis=(0, 1)), noise.std, rtol=0.05)
    assert np.abs(texture.mean(axis=(0, 1))).max() < 0.01
    assert neighbours(texture[..., 1]) == pytest.approx(neighbours(real[..., 1]), abs=0.1)
    assert noise.correlation == pytest.approx(neighbours(real[..., 1]), abs=0.1)
    alike, wanted = (np.corrcoef(image.reshape(-1, 3).T)[0, 2] for image in (texture, real))
    assert alike == pytest.approx(wanted, abs=0.1)


def test_dust_is_no_noise(noise: Noise, write_slide, tmp_path: Path) -> None:
    he = noisy_he()
    rng = np.random.default_rng(0)
    for y, x in rng.integers(20, 1000, (120, 2)):
        he[y : y + 4, x : x + 4] = 215
    found = measured(write_slide(tmp_path / "dusty.ome.tiff", he))
    assert found is not None
    assert np.allclose(found.std, noise.std, rtol=0.15)


@pytest.mark.parametrize("value", [255, 240])
def test_glass_of_one_colour_has_no_noise_and_stays_one_colour(value: int, write_slide, tmp_path: Path) -> None:
    he = noisy_he(std=0)
    he[(he == np.uint8(GLASS)).all(axis=-1)] = value
    assert measured(write_slide(tmp_path / "flat.ome.tiff", he)) is None
    glass = Glass(WHITE, GLASS, 0.5)
    assert glass.pattern is None
    assert glass.figures() is None
    rgb = np.broadcast_to(WHITE, (64, 64, 3))
    np.testing.assert_array_equal(glass.add_noise(rgb, CORNER), rgb)


def test_what_a_place_gets_does_not_depend_on_the_tile_and_repeats_without_a_seam(noise: Noise) -> None:
    glass = Glass(WHITE, GLASS, 0.5, noise)
    whole = Region(Point(PERIOD - 300, PERIOD - 200), Size(600, 500))
    all_of_it = glass.add_noise(np.broadcast_to(WHITE, (500, 600, 3)), whole)
    part = Region(Point(PERIOD - 40, PERIOD - 30), Size(90, 70))
    np.testing.assert_array_equal(
        glass.add_noise(np.broadcast_to(WHITE, (70, 90, 3)), part), all_of_it[part.within(whole)]
    )
    steps = np.abs(np.diff(all_of_it, axis=1)).mean(axis=(0, 2))
    assert steps[299] < steps.mean() + 4 * steps.std()
    pattern = glass.pattern
    assert pattern is not None
    np.testing.assert_array_equal(pattern[:500, :600][-100:, -100:], np.rint(pattern[400:500, 500:600]))
    rows, columns = (np.arange(n, n + m) % PERIOD for n, m in ((whole.origin.y, 500), (whole.origin.x, 600)))
    np.testing.assert_array_equal(pattern[np.ix_(rows, columns)], np.rint(all_of_it).astype(np.uint8))


@pytest.mark.parametrize("quality", [60, 90])
def test_noise_keeps_its_strength_through_jpeg_and_the_mean_its_colour(noise: Noise, quality: int) -> None:
    glass = Glass(WHITE, GLASS, 0.5, noise, quality)
    assert glass.pattern is not None
    kept = imagecodecs.jpeg8_decode(
        imagecodecs.jpeg8_encode(glass.pattern[512:, 512:], level=quality, subsampling="444")
    )
    wanted = (noise.texture(512) @ LUMA).std()
    assert (kept @ LUMA).std() == pytest.approx(wanted, rel=0.15)
    assert (kept @ LUMA).mean() == pytest.approx(float(WHITE @ LUMA), abs=0.3)


def test_only_what_is_glass_in_both_images_is_cleared_and_stain_gets_no_noise(noise: Noise) -> None:
    he = np.broadcast_to(np.uint8(GLASS), (64, 96, 3)).copy()
    he[:, 48:] = (200, 130, 180)
    virtual = np.broadcast_to(WHITE - 4, (64, 96, 3)).copy()
    virtual[32:] = (150, 110, 80)
    glass = Glass(WHITE, GLASS, 0.5, noise)
    shown = glass.shown(he, virtual)
    assert (shown[:32, :36] == 0).all()
    assert (shown[:32, 60:] == 1).all()
    assert (shown[32:] == 1).all()
    added = glass.add_noise(virtual, Region(Point(0, 0), Size(96, 64))) - virtual
    assert (added[32:] == 0).all()
    assert added[:32].std(axis=(0, 1)) == pytest.approx(noise.std, rel=0.2)
    inner = np.s_[10:50, 20:70]
    np.testing.assert_array_equal(
        glass.shown(he, virtual)[inner], glass.shown(he[4:60, 8:90], virtual[4:60, 8:90])[6:46, 12:62]
    )
