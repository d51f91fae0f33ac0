"""One synthetic pair: the rule, the optics and the misalignment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from restain import optics
from restain.her2 import Her2Level, asco_cap_level
from restain.images.nuclei import CellKind
from restain.phantom import PhantomPair, make_pair, misalignment_field
from restain.phantom.cells import CELL_UM, NUCLEUS_UM
from restain.phantom.render import Appearance

MPP = 0.46


@pytest.fixture(scope="module")
def pairs() -> dict[Her2Level, PhantomPair]:
    return {level: make_pair(1, int(level), level, size=288, noiseless=True) for level in Her2Level}


def appearance(pair: PhantomPair, stain: str) -> Appearance:
    return Appearance(**pair.record[stain])


@pytest.mark.parametrize("level", list(Her2Level))
@pytest.mark.parametrize("seed", range(2))
def test_tumour_cells_have_the_stated_level(level: Her2Level, seed: int) -> None:
    tumour = make_pair(seed, 7, level, size=256).cells.tumour
    assert len(tumour) >= 25
    assert asco_cap_level(tumour.completeness, tumour.dab_od) == level


def test_membranes_are_those_of_the_guideline(pairs: dict[Her2Level, PhantomPair]) -> None:
    for level, least, most in ((1, 0.3, 0.6), (2, 0.9, 1.0), (3, 0.96, 1.0)):
        tumour = pairs[Her2Level(level)].cells.tumour
        own = tumour.take(tumour.score == level)
        assert len(own) > 0.6 * len(tumour)
        assert own.completeness.min() >= least - 1e-6
        assert own.completeness.max() <= most + 1e-6
    for level, density in ((1, 0.12), (2, 0.30), (3, 0.90)):
        tumour = pairs[Her2Level(level)].cells.tumour
        assert tumour.dab_od[tumour.score == level].mean() == pytest.approx(density, rel=0.1)
    zero = pairs[Her2Level.ZERO].cells.tumour
    assert (zero.dab_od > 0).mean() <= 0.1
    assert zero.dab_od.max() < 0.2


def test_only_tumour_cells_score(pairs: dict[Her2Level, PhantomPair]) -> None:
    for pair in pairs.values():
        others = pair.cells.take(pair.cells.kind != CellKind.TUMOUR)
        assert others.score.max(initial=0) == 0
        assert others.dab_od.max(initial=0.0) == 0


def test_the_score_shows_in_size_and_crowding(pairs: dict[Her2Level, PhantomPair]) -> None:
    gaps = []
    for level, pair in pairs.items():
        tumour = pair.cells.tumour
        own = tumour.take(tumour.score == int(level))
        assert own.diameter_um.mean() == pytest.approx(NUCLEUS_UM[level], rel=0.06)
        points = np.stack([own.x, own.y], axis=1)
        gaps.append(np.median(cKDTree(points).query(points, k=2)[0][:, 1]) * MPP)
        # The nearest of a jittered lattice's neighbours is nearer than the lattice's own spacing.
        assert 0.6 * CELL_UM[level] < gaps[-1] < CELL_UM[level]
    assert gaps == sorted(gaps)


def test_deconvolution_of_the_noiseless_image_gives_the_true_dab(pairs: dict[Her2Level, PhantomPair]) -> None:
    for pair in pairs.values():
        seen = appearance(pair, "ihc")
        od = optics.optical_density(pair.ihc, seen.white_field(pair.dab.shape))
        found = optics.unmix(od, seen.vectors)[..., 1]
        # Rounding to 8 bits is worth more where the image is dark: the bound grows with the density.
        assert np.abs(found - pair.dab).mean() < 0.004
        assert np.all(np.abs(found - pair.dab) < 0.02 + 0.06 * pair.dab)


def test_fixed_vectors_still_read_the_dab(pairs: dict[Her2Level, PhantomPair]) -> None:
    pair = pairs[Her2Level.THREE]
    found = optics.dab_density(pair.ihc, appearance(pair, "ihc").white)
    assert np.corrcoef(found.ravel(), pair.dab.ravel())[0, 1] > 0.97


def test_dab_peaks_and_membranes_grow_with_the_level(pairs: dict[Her2Level, PhantomPair]) -> None:
    peaks = [float(np.percentile(pairs[level].dab, 99)) for level in (1, 2, 3)]
    assert peaks[0] == pytest.approx(0.12, abs=0.06)
    assert peaks[1] == pytest.approx(0.30, abs=0.12)
    assert peaks[2] == pytest.approx(0.90, abs=0.25)


def test_stroma_is_free_of_dab() -> None:
    pair = make_pair(3, 2, Her2Level.THREE, size=320, noiseless=True)
    outside = pair.dab == 0
    assert outside.mean() > 0.1
    blue_first = pair.ihc[outside].astype(int)
    assert (blue_first[:, 2] >= blue_first[:, 0] - 4).all()


def test_noise_is_all_that_noiseless_leaves_out() -> None:
    noisy = make_pair(4, 0, Her2Level.TWO, size=200)
    clean = make_pair(4, 0, Her2Level.TWO, size=200, noiseless=True)
    np.testing.assert_array_equal(noisy.dab, clean.dab)
    for a, b in ((noisy.he, clean.he), (noisy.ihc, clean.ihc)):
        difference = a.astype(float) - b
        assert 0.5 < difference.std() < 3
        assert abs(difference.mean()) < 0.3


@given(rms=st.floats(0.5, 40), index=st.integers(0, 1000), side=st.integers(40, 120))
@settings(max_examples=25, deadline=None)
def test_field_has_the_requested_rms_and_is_smooth(rms: float, index: int, side: int) -> None:
    field = misalignment_field((side, side + 7), mpp=MPP, rms_um=rms, seed=3, index=index)
    assert field.shape == (2, side, side + 7)
    assert np.sqrt((field**2).sum(axis=0).mean()) * MPP == pytest.approx(rms, rel=1e-3)
    again = misalignment_field((side, side + 7), mpp=MPP, rms_um=rms, seed=3, index=index)
    np.testing.assert_array_equal(field, again)
    steps = np.abs(np.diff(field, axis=1)).max()
    assert steps < 0.15 * rms / MPP


def test_misaligned_ihc_is_the_aligned_one_moved_by_the_known_field() -> None:
    still = make_pair(8, 1, Her2Level.THREE, size=256, noiseless=True)
    moved = make_pair(8, 1, Her2Level.THREE, size=256, noiseless=True, misalign_um=6.0)
    np.testing.assert_array_equal(still.he, moved.he)
    field = misalignment_field((256, 256), mpp=MPP, rms_um=6.0, seed=8, index=1)
    at = np.mgrid[0:256, 0:256] + field
    expected = ndimage.map_coordinates(still.dab, at, order=1, mode="mirror")
    assert np.corrcoef(expected.ravel(), moved.dab.ravel())[0, 1] > 0.99
    assert np.corrcoef(still.dab.ravel(), moved.dab.ravel())[0, 1] < 0.9


def test_tissue_exists_at_other_pixel_sizes() -> None:
    fine = make_pair(2, 0, Her2Level.TWO, size=280, mpp=0.25)
    coarse = make_pair(2, 0, Her2Level.TWO, size=110, mpp=1.0)
    for pair in (fine, coarse):
        tumour = pair.cells.tumour
        assert asco_cap_level(tumour.completeness, tumour.dab_od) == Her2Level.TWO
        assert tumour.diameter_um[tumour.score == 2].mean() == pytest.approx(NUCLEUS_UM[2], rel=0.08)
