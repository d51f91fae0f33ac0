from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter

from restain.evaluation.filters import BLOCK, correlate, gaussian


@pytest.mark.parametrize("shape", [(5, 7), (BLOCK, BLOCK + 1), (2, 150, 90)])
@pytest.mark.parametrize(("sigma", "truncate"), [(0.87, 4.0), (2.0, 3.0), (30.0, 2.0)])
def test_a_gaussian_is_that_of_scipy(shape: tuple[int, ...], sigma: float, truncate: float) -> None:
    planes = np.random.default_rng(0).random(shape, np.float32)
    expected = gaussian_filter(planes, sigma, truncate=truncate, axes=(-2, -1))
    assert gaussian(planes, sigma, truncate) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_derivative_is_that_of_scipy(order: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).random((70, 130), np.float32)
    assert gaussian(plane, 1.0, order=order) == pytest.approx(gaussian_filter(plane, 1.0, order=order), abs=1e-6)


def test_a_correlation_keeps_what_lies_within() -> None:
    plane, rows, columns = np.random.default_rng(2).random((80, 100)), (1.0, 2.0, -1.0), (0.5, 0.0, 0.0, 1.0, 3.0)
    found = correlate(torch.from_numpy(plane).float(), rows, columns).numpy()
    expected = correlate1d(correlate1d(plane, rows, axis=0), columns, axis=1)[1:-1, 2:-2]
    assert found == pytest.approx(expected, abs=1e-5)
