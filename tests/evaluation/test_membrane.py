from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.feature import peak_local_max

from restain.evaluation.membrane import (
    Rays,
    cell_membranes,
    find_nuclei,
    find_peaks,
    ihc_hematoxylin,
    membranes_at,
)
from restain.her2 import Her2Level
from restain.optics import DAB, HEMATOXYLIN, glass_white, mix, transmit
from restain.phantom import make_pair

MPP = 0.5
PITCH = 32  # px: 16 µm between cells


def completeness(dab: NDArray[np.float32], hematoxylin: NDArray[np.float32] | None, mpp: float) -> float:
    """Mean over the cells."""
    found = cell_membranes(dab, hematoxylin, mpp).completeness
    return float(found.mean()) if len(found) else math.nan


def sheet(stained: float, od: float = 0.4, size: int = 224) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cells on a square lattice: DAB rings of which a share is stained, and round nuclei in hematoxylin."""
    dab, nuclei = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(float)
    for row in range(PITCH // 2, size, PITCH):
        for column in range(PITCH // 2, size, PITCH):
            radius = np.hypot(y - row, x - column)
            angle = np.mod(np.arctan2(y - row, x - column), 2 * np.pi) / (2 * np.pi)
            nuclei[radius < 8] = 0.5
            dab[(np.abs(radius - 11.5) < 1.5) & (angle < stained)] = od
    return dab, nuclei


def test_nuclei_are_found_once_each_and_where_they_are() -> None:
    _, nuclei = sheet(0)
    found = find_nuclei(nuclei, MPP)
    assert len(found) == (224 // PITCH) ** 2
    off = np.abs((found - PITCH // 2 + PITCH // 2) % PITCH - PITCH // 2)
    assert off.max() <= 1


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_completeness_is_the_stained_share_of_the_outline(share: float) -> None:
    dab, nuclei = sheet(share)
    found = cell_membranes(dab, nuclei, MPP)
    assert found.completeness.mean() == pytest.approx(share, abs=0.06)


def test_density_is_that_of_the_stained_part() -> None:
    dab, nuclei = sheet(1.0, od=0.6)
    assert cell_membranes(dab, nuclei, MPP).dab_od.mean() == pytest.approx(0.6, rel=0.2)
    assert cell_membranes(dab * 0, nuclei, MPP).dab_od.max() == 0


def test_the_unit_is_the_micrometre() -> None:
    dab, nuclei = sheet(0.5)
    fine = [np.kron(plane, np.ones((2, 2), np.float32)) for plane in (dab, nuclei)]
    assert completeness(fine[0], fine[1], MPP / 2) == pytest.approx(completeness(dab, nuclei, MPP), abs=0.05)


def test_faint_noise_is_not_a_membrane() -> None:
    _, nuclei = sheet(0)
    noise = np.abs(np.random.default_rng(0).normal(0, 0.02, nuclei.shape)).astype(np.float32)
    assert completeness(noise, nuclei, MPP) < 0.02


def test_without_hematoxylin_the_middles_of_stained_cells_are_found() -> None:
    dab, _ = sheet(1.0)
    assert completeness(dab, None, MPP) > 0.7
    assert math.isnan(completeness(dab * 0, None, MPP))


def test_no_cells_no_figure_and_different_shapes_are_refused() -> None:
    flat = np.zeros((64, 64), np.float32)
    assert math.isnan(completeness(flat, flat, MPP))
    assert len(membranes_at(flat, np.zeros((0, 2), np.intp), MPP).completeness) == 0
    with pytest.raises(ValueError, match="same shape"):
        cell_membranes(flat, flat[:5], MPP)


def test_hematoxylin_of_an_ihc_image_is_what_went_in() -> None:
    stains = np.zeros((8, 8, 2), np.float32)
    stains[..., 0], stains[..., 1] = 0.4, 0.3
    rgb = transmit(mix(stains, (HEMATOXYLIN, DAB)), 240)
    assert ihc_hematoxylin(rgb, 240.0) == pytest.approx(np.full((8, 8), 0.4), abs=0.01)


def test_on_the_phantom_it_follows_the_truth() -> None:
    """Of all cells, over tissues of every level: the image's mean, and the order of the levels."""
    truth, measured = [], []
    for index, level in enumerate(Her2Level):
        pair = make_pair(5, index, level, size=256)
        truth.append(float(pair.cells.completeness.mean()))
        hematoxylin = ihc_hematoxylin(pair.ihc, glass_white(pair.ihc))
        measured.append(completeness(pair.dab, hematoxylin, 0.46))
    assert np.corrcoef(truth, measured)[0, 1] > 0.95
    assert np.abs(np.subtract(truth, measured)).max() < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_peaks_are_those_of_scikit_image(seed: int) -> None:
    image = gaussian_filter(np.random.default_rng(seed).normal(size=(90, 120)), 2).astype(np.float32)
    expected = peak_local_max(image, min_distance=3, threshold_abs=0.02, exclude_border=False)
    assert len(expected) > 20
    assert np.array_equal(find_peaks(image, 3, 0.02), expected)


def test_equal_peaks_near_one_another_count_once() -> None:
    image = np.zeros((30, 30), np.float32)
    image[10, 10] = image[10, 12] = image[20, 20] = 1
    assert find_peaks(image, 3, 0.5).tolist() == [[10, 10], [20, 20]]
    assert len(find_peaks(image, 3, 1.0)) == 0


def test_rays_read_a_map_by_linear_interpolation_and_nothing_beyond_the_image() -> None:
    """A lone nucleus: its rays run to their full length."""
    smooth = np.random.default_rng(0).random((60, 50), np.float32)
    for centre in ((30, 25), (0, 49)):
        peaks = Rays(np.array([centre]), smooth.shape, MPP).peaks(smooth)
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        out = np.arange(2 / MPP, 10 / MPP + 1e-9, 1.0)
        at = [c + f(angle)[:, None] * out for c, f in zip(centre, (np.sin, np.cos), strict=True)]
        expected = map_coordinates(smooth, at, order=1, mode="constant").max(axis=1)
        assert peaks[0] == pytest.approx(expected, abs=1e-5)
