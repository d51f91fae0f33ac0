from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from restain.evaluation.distribution import Distributions, fid, inception_score, kid
from restain.statistics import json_ready


class Given(nn.Module):
    """Takes features for images, so that torchmetrics computes on the same ones."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.num_features]


def features(seed: int, n: int, d: int = 6) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def test_fid_of_two_normal_distributions_on_a_line_is_by_hand() -> None:
    """(m1 - m2)² + (s1 - s2)² with the samples' own means and deviations."""
    a, b = np.array([[0.0], [2.0], [4.0]]), np.array([[10.0], [11.0], [12.0]])
    assert fid(a, b) == pytest.approx((2 - 11) ** 2 + (2 - 1) ** 2)


@pytest.mark.parametrize(("n", "m"), [(30, 25), (4, 5), (200, 150)])
def test_fid_is_that_of_torchmetrics(n: int, m: int) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = features(1, n), features(2, m)
    other = FrechetInceptionDistance(feature=Given(), input_img_size=(3, 1, 2)).set_dtype(torch.float64)
    for side, real in ((a, True), (b, False)):
        other.update(torch.from_numpy(side).reshape(-1, 3, 1, 2), real=real)
    assert fid(a, b) == pytest.approx(float(other.compute()), rel=1e-3)
    assert fid(a, a) == pytest.approx(0, abs=1e-8)
    assert fid(a, b) == pytest.approx(fid(b, a))


def test_kid_is_that_of_torchmetrics_and_unbiased() -> None:
    from torchmetrics.image.kid import poly_mmd

    a, b = features(1, 30), features(2, 30)
    assert kid(a, b) == pytest.approx(float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b))), rel=1e-6)
    rng = np.random.default_rng(0)
    same = [kid(rng.normal(size=(10, 4)), rng.normal(size=(10, 4))) for _ in range(400)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 20


def test_fid_of_the_same_distribution_is_biased_by_few_samples_as_the_note_says() -> None:
    rng = np.random.default_rng(0)
    few, many = (np.mean([fid(rng.normal(size=(n, 4)), rng.normal(size=(n, 4))) for _ in range(20)]) for n in (10, 400))
    assert few > 10 * many > 0


def test_inception_score_is_one_for_one_class_and_k_for_k_sure_ones() -> None:
    assert inception_score(np.tile([0.2, 0.8], (5, 1))) == pytest.approx(1)
    assert inception_score(np.eye(7)) == pytest.approx(7)


class Colours:
    """Two crops per image; features are their mean colours."""

    name = "mean colour"

    def __call__(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        halves = np.stack(np.split(rgb, 2, axis=1)).astype(float)
        mean = halves.mean(axis=(1, 2))
        return mean, mean / mean.sum(axis=1, keepdims=True)


def gathered(n: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    found = Distributions(Colours())
    for index in range(n):
        real = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        found.add(str(index), real, {"model": 255 - real, "oracle_flat": np.full_like(real, 128)})
    result = found.findings()
    assert result is not None
    json.dumps(json_ready(result))
    return result


def test_figures_are_named_after_the_network_and_say_what_they_were_computed_on() -> None:
    result = gathered(12)
    assert result["titles"]["fid"] == "FID (mean colour)"  # type: ignore[index]
    assert (result["images"], result["crops"]) == (12, 24)
    assert "biased" in str(result["note"])
    methods = result["methods"]
    assert set(methods) == {"real", "model", "oracle_flat"}  # type: ignore[call-overload]
    figure = methods["model"]["fid"]  # type: ignore[index]
    assert figure.n == 12
    assert figure.low < figure.mean < figure.high
    assert methods["oracle_flat"]["inception_score"].mean == pytest.approx(1)  # type: ignore[index]


def test_few_images_have_no_interval_and_no_network_no_figure() -> None:
    few = gathered(3)["methods"]["model"]["kid"]  # type: ignore[index]
    assert np.isnan(few.low)
    nothing = Distributions(None)
    nothing.add("a", np.zeros((8, 8, 3), np.uint8), {})
    assert nothing.findings() is None


def test_the_interval_covers_the_spread_of_new_samples() -> None:
    """The jackknife's width is about that of the figure over new sets of images."""
    from restain.evaluation.distribution import _jackknife

    def sets(seed: int) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        rng = np.random.default_rng(seed)
        return [rng.normal(size=(2, 3)) for _ in range(30)], [rng.normal(1, 1, size=(2, 3)) for _ in range(30)]

    found = [_jackknife(kid, sets(seed)) for seed in range(60)]
    spread = np.std([f.mean for f in found])
    width = np.mean([(f.high - f.low) / 3.92 for f in found])
    assert 0.5 < width / spread < 1.6
