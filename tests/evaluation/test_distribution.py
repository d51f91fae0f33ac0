from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from restain.evaluation.distribution import (
    DistributionFindings,
    SetFeatures,
    fid,
    find_distribution,
    inception_score,
    kid,
)
from restain.statistics import Interval, json_ready


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


def colours(rgb: NDArray[np.uint8]) -> SetFeatures:
    """Two crops per image; features are their mean colours."""
    mean = np.stack(np.split(rgb, 2, axis=1)).astype(float).mean(axis=(1, 2))
    return SetFeatures(mean, mean / mean.sum(axis=1, keepdims=True))


def gathered(n: int) -> DistributionFindings:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(n):
        real = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        answers = {"real": real, "model": 255 - real, "oracle_flat": np.full_like(real, 128)}
        images.append({method: colours(rgb) for method, rgb in answers.items()})
    found = find_distribution(images, "mean colour")
    assert found is not None
    json.dumps(json_ready(found))
    return found


def test_figures_are_named_after_the_network_and_say_what_they_were_computed_on() -> None:
    result = gathered(12)
    assert result.titles["fid"] == "FID (mean colour)"
    assert (result.images, result.crops) == (12, 24)
    assert "biased" in result.note
    methods = result.methods
    assert set(methods) == {"real", "model", "oracle_flat"}
    figure = methods["model"]["fid"]
    assert figure.n == 12
    assert figure.low < figure.mean < figure.high
    assert methods["oracle_flat"]["inception_score"].mean == pytest.approx(1)


def test_few_images_have_no_interval_and_no_network_no_figure() -> None:
    assert np.isnan(gathered(3).methods["model"]["kid"].low)
    assert np.isnan(gathered(1).methods["real"]["fid"].mean)
    assert find_distribution([], "none") is None


def test_sums_over_groups_give_the_figures_of_the_rows_themselves() -> None:
    """Also where there are more samples than features, and the trace comes from covariances."""
    own, real = ([features(7 * side + k, 4, 5) for k in range(23)] for side in (1, 2))
    images = [{"real": SetFeatures(r), "model": SetFeatures(o)} for r, o in zip(real, own, strict=True)]
    found = find_distribution(images, "x")
    assert found is not None
    line = found.methods["model"]
    assert line["fid"].mean == pytest.approx(fid(np.concatenate(real), np.concatenate(own)), rel=1e-9)
    assert line["kid"].mean == pytest.approx(kid(np.concatenate(real), np.concatenate(own)), rel=1e-9)
    left_out = [
        kid(*(np.concatenate([x for i, x in enumerate(side) if i % 20 != k]) for side in (real, own)))
        for k in range(20)
    ]
    width = 1.96 * np.sqrt(19 / 20 * np.square(left_out - np.mean(left_out)).sum())
    assert line["kid"].high - line["kid"].mean == pytest.approx(width, rel=1e-6)
    halves = found.methods["real"]["kid"].mean
    assert halves == pytest.approx(kid(np.concatenate(real[::2]), np.concatenate(real[1::2])), rel=1e-9)


def test_the_interval_covers_the_spread_of_new_samples() -> None:
    """The jackknife's width is about that of the figure over new sets of images."""

    def found(seed: int) -> Interval:
        rng = np.random.default_rng(seed)
        real, own = ([rng.normal(at, 1, size=(2, 3)) for _ in range(30)] for at in (0, 1))
        images = [{"real": SetFeatures(r), "model": SetFeatures(o)} for r, o in zip(real, own, strict=True)]
        result = find_distribution(images, "x")
        assert result is not None
        return result.methods["model"]["kid"]

    figures = [found(seed) for seed in range(60)]
    spread = np.std([f.mean for f in figures])
    width = np.mean([(f.high - f.low) / 3.92 for f in figures])
    assert 0.5 < width / spread < 1.6
