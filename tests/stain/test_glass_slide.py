"""Glass on whole virtual slides: with the H&E's noise, without a halo round the tissue, and cheap."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

from restain.bundle import Bundle
from restain.slides import open_slide, tissue_mask
from restain.stain import Model, StainOptions, stain_slide

from ..samples import tissue_picture

STD = 1.5


@pytest.fixture(scope="module")
def noisy(write_slide, tmp_path_factory) -> Path:
    rng = np.random.default_rng(2)
    noise = ndimage.gaussian_filter(rng.standard_normal((1100, 1700)), 1.2)
    rgb = np.pad(tissue_picture(1100, 1500), ((0, 0), (0, 200), (0, 0)), mode="edge").astype(float)
    rgb += (noise * STD / noise.std())[..., None]
    return write_slide(tmp_path_factory.mktemp("noisy") / "he.ome.tiff", np.rint(rgb.clip(0, 255)).astype(np.uint8))


@pytest.fixture(scope="module")
def faint(make_bundle, tmp_path_factory) -> Bundle:
    """A model that finds a breath of both stains everywhere, glass included."""
    found = make_bundle(tmp_path_factory.mktemp("faint") / "bundle")
    with torch.no_grad():
        found.generator.head.densities.weight.mul_(0.02)
        found.generator.head.densities.bias.fill_(0.02)
    return found


@pytest.mark.slow
def test_rings_round_the_tissue_have_one_mean_and_one_noise(noisy: Path, faint: Bundle, tmp_path: Path) -> None:
    result = stain_slide(noisy, tmp_path, Model(faint), StainOptions(dab=True))
    rgb, dab = tifffile.imread(result.path, key=0).astype(float), tifffile.imread(result.dab, key=0)
    with open_slide(noisy) as slide:
        found = tissue_mask(slide)
    away = ndimage.distance_transform_edt(~found.mask) * found.mpp
    rows, columns = (
        np.minimum(np.arange(n) * 0.5 / found.mpp, m - 1).astype(int)
        for n, m in zip(rgb.shape, away.shape, strict=False)
    )
    away = away[np.ix_(rows, columns)]
    rings = [rgb[(away > near) & (away <= far)] for near, far in ((20, 32), (32, 64), (64, 100), (100, 200))]
    assert min(map(len, rings)) > 5000
    means = np.array([ring.mean(axis=0) for ring in rings])
    stds = np.array([ring.std(axis=0) for ring in rings])
    assert np.ptp(means, axis=0).max() < 0.3
    assert (np.ptp(stds, axis=0) < 0.2 * stds.mean(axis=0)).all()
    assert stds.mean() == pytest.approx(STD, rel=0.2)
    assert (dab[away > 20] == 0).all()
    assert result.figures.glass_noise["std"] == pytest.approx([STD] * 3, rel=0.2)


@pytest.mark.slow
def test_without_noise_glass_is_one_colour_and_a_result_of_its_own(noisy: Path, bundle: Bundle, tmp_path: Path) -> None:
    plain = StainOptions(glass_noise=False)
    result = stain_slide(noisy, tmp_path, Model(bundle), plain)
    assert result.figures.glass_noise is None
    assert tifffile.imread(result.path, key=0)[-90:, -90:].std(axis=(0, 1)).max() == 0
    assert not stain_slide(noisy, tmp_path, Model(bundle), replace(plain, glass_noise=True)).kept
