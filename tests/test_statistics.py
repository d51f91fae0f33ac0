from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_cohen_kappa

from restain.statistics import (
    Interval,
    confusion,
    holm,
    json_ready,
    mean_interval,
    quadratic_kappa,
    signed_rank,
    wilson_interval,
)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_an_interval_lies_within_the_data_and_is_repeatable(values: list[float], seed: int) -> None:
    result = mean_interval(values, seed)
    assert result.n == len(values)
    assert min(values) - 1e-9 <= result.low <= result.high <= max(values) + 1e-9
    assert result.mean == pytest.approx(np.mean(values))
    assert result == mean_interval(values, seed)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.normal(5, 1, 40).tolist(), seed) for seed in range(200)]
    covered = np.mean([i.low <= 5 <= i.high for i in intervals])
    assert 0.88 < covered <= 0.99


def test_undefined_values_are_left_out_and_not_counted() -> None:
    result = mean_interval([1.0, math.nan, 3.0, math.inf])
    assert (result.mean, result.n) == (2.0, 2)


def test_one_image_has_a_mean_and_no_interval() -> None:
    result = mean_interval([4.0])
    assert (result.mean, result.n) == (4.0, 1)
    assert math.isnan(result.low)
    assert math.isnan(result.high)


def test_no_value_at_all() -> None:
    assert mean_interval([math.nan]).n == 0
    assert math.isnan(mean_interval([]).mean)


def test_kappa_is_that_of_a_worked_example() -> None:
    # Squared differences: 0 + 1 + 0 + 1 + 0 + 1 = 3. By chance, known level by known level (2, 1, 1 and 2 of them)
    # against 1, 2, 1 and 2 of 6 read as 0, 1+, 2+ and 3+: 2·24 + 1·10 + 1·8 + 2·18 sixths = 17.
    truth, read = [0, 0, 1, 2, 3, 3], [0, 1, 1, 3, 3, 2]
    assert float(quadratic_kappa(confusion(truth, read, 4))) == pytest.approx(1 - 3 / 17)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_kappa_agrees_with_torchmetrics(pairs: list[tuple[int, int]]) -> None:
    truth, read = (list(side) for side in zip(*pairs, strict=True))
    own = float(quadratic_kappa(confusion(truth, read, 4)))
    other = multiclass_cohen_kappa(torch.tensor(read), torch.tensor(truth), num_classes=4, weights="quadratic")
    if math.isnan(own):
        assert len(set(truth + read)) == 1
    else:
        assert own == pytest.approx(float(other), abs=1e-5)


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe, Stat Med 17:857, 1998, table I, method 3: 81 of 263, and 0 of 20.
    assert wilson_interval(81, 263).low == pytest.approx(0.2553, abs=1e-4)
    assert wilson_interval(81, 263).high == pytest.approx(0.3662, abs=1e-4)
    assert wilson_interval(0, 20).high == pytest.approx(0.1611, abs=1e-4)


def test_holm_is_the_published_example() -> None:
    # Holm 1979 by hand: 0.005·4, 0.01·3, 0.03·2 and then 0.04·1, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9])[0] == 1.0
    assert math.isnan(holm([0.5, math.nan, 0.9])[1])


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_holm_rejects_what_closed_testing_with_bonferroni_rejects(p: list[float]) -> None:
    alpha = 0.05
    for index, corrected in enumerate(holm(p)):
        others = [k for k in range(len(p)) if k != index]
        families = ((index, *chosen) for size in range(len(others) + 1) for chosen in combinations(others, size))
        rejected = all(min(p[k] for k in family) * len(family) <= alpha for family in families)
        assert rejected == (corrected <= alpha)


def test_signed_rank_is_exact_for_few_images() -> None:
    assert signed_rank(np.array([0.3, 0.1, 0.7, 0.2, 0.5])) == pytest.approx(2 / 2**5)
    assert signed_rank(np.zeros(5)) == 1.0
    assert math.isnan(signed_rank(np.array([0.3])))


def test_paired_interval_of_independent_images_is_that_of_the_mean() -> None:
    gain = np.random.default_rng(3).normal(1.0, 2.0, 200)
    found = mean_interval(gain, 1, [str(k) for k in range(200)])
    low, high = found.low, found.high
    assert found == mean_interval(gain, 1)
    half = 1.96 * gain.std(ddof=1) / np.sqrt(200)
    assert (low, high) == (pytest.approx(gain.mean() - half, abs=0.06), pytest.approx(gain.mean() + half, abs=0.06))
    assert math.isnan(mean_interval(gain, 1, ["one"] * 200).low)


def test_what_json_cannot_hold_becomes_null() -> None:
    text = json.dumps(json_ready({"a": math.nan, "b": [math.inf, 1.5, ("x", -math.inf)], "c": 2}), allow_nan=False)
    assert json.loads(text) == {"a": None, "b": [None, 1.5, ["x", None]], "c": 2}


def test_intervals_and_arrays_are_ready_for_json() -> None:
    found = json_ready({"a": Interval(0.5, n=3), "b": np.arange(2), "c": np.float32(math.nan)})
    assert found == {"a": {"mean": 0.5, "low": None, "high": None, "n": 3}, "b": [0, 1], "c": None}
    assert found["a"] == Interval(0.5, n=3).plain()
