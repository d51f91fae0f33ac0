from __future__ import annotations

import math

import numpy as np
import pytest

from restain.review.mrmc import (
    MISSING,
    guessing,
    kappa_difference,
    kappa_interval,
    kappas,
    level_tables,
    mean_difference,
    mean_interval,
    obuchowski_rockette,
)


def simulated(seed: int, readers: int, cases: int, noise: float):
    """True levels ``(C,)`` and what readers see of them: the level, moved by one with chance ``noise``."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, cases)
    moved = np.where(rng.random((readers, cases)) < noise, rng.choice([-1, 1], (readers, cases)), 0)
    return truth, np.clip(truth + moved, 0, 3)


def test_kappa_is_that_of_the_textbook():
    # Cohen 1968: one less the mean squared difference over that of all pairs across the margins.
    first, second = np.array([[0, 1, 2, 3, 3, 0]]), np.array([[0, 1, 2, 3, 1, 1]])
    observed = ((first - second) ** 2).mean()
    expected = np.mean([(a - b) ** 2 for a in first[0] for b in second[0]])
    assert kappas(level_tables(first, second)) == pytest.approx([1 - observed / expected])


def test_kappa_is_that_of_scikit_learn_where_readings_are_missing():
    metrics = pytest.importorskip("sklearn.metrics")
    truth, read = simulated(1, 3, 60, 0.5)
    read[1, ::4] = MISSING
    own = kappas(level_tables(read, np.broadcast_to(truth, read.shape)))
    for reader, value in zip(read, own, strict=True):
        there = reader != MISSING
        assert value == pytest.approx(metrics.cohen_kappa_score(truth[there], reader[there], weights="quadratic"))


def test_a_known_agreement_is_recovered_within_its_interval():
    truth, read = simulated(2, 6, 200, 0.4)
    many = simulated(3, 1, 200_000, 0.4)
    known = kappas(level_tables(many[1], many[0][None]))[0]
    tables = level_tables(read, np.broadcast_to(truth, read.shape))
    found = kappa_interval(tables, np.arange(6)[:, None], 6, seed=0)
    assert found.low < known < found.high
    assert found.high - found.low < 0.1
    assert found == kappa_interval(tables, np.arange(6)[:, None], 6, seed=0)


def test_a_reader_who_is_drawn_twice_is_not_compared_with_themself():
    # Two readers who never agree: were pairs of one reader with themself counted, the interval would reach up to 1.
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (2, 1, 300))
    found = kappa_interval(level_tables(first, second), np.array([[0, 1]]), 2, seed=0)
    assert -0.2 < found.low < found.mean < found.high < 0.2


def test_the_difference_of_means_is_that_of_two_way_analysis_of_variance():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, (5, 1)) + rng.normal(0, 2, (1, 30)) + rng.normal(0, 1, (5, 30)) + 0.3
    found = mean_difference(values)
    mean = values.mean()
    readers = 30 * ((values.mean(axis=1) - mean) ** 2).sum() / 4
    cases = 5 * ((values.mean(axis=0) - mean) ** 2).sum() / 29
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + mean
    error = (rest**2).sum() / (4 * 29)
    # Readers' own variance over R is MS(R)/RC, the covariance (MS(C) - MS(E))/RC (Hillis 2007).
    variance = (readers + cases - error) / 150
    freedom = (readers + cases - error) ** 2 / (readers**2 / 4)
    from scipy.stats import t

    assert found.mean == pytest.approx(mean)
    assert (found.high - found.mean) == pytest.approx(t.ppf(0.975, freedom) * math.sqrt(variance))


def test_the_difference_between_a_good_and_a_bad_stain_is_seen_and_that_of_equals_is_not():
    truth, good = simulated(5, 6, 80, 0.2)
    _, bad = simulated(5, 6, 80, 0.9)
    _, same = simulated(5, 6, 80, 0.2)
    known = np.broadcast_to(truth, good.shape)
    tables = [level_tables(read, known) for read in (good, bad, same)]
    worse = kappa_difference(tables[1], tables[0])
    assert worse.high < 0
    assert kappa_difference(tables[0], tables[1]).low == pytest.approx(-worse.high)
    equal = kappa_difference(tables[2], tables[0])
    assert (equal.mean, equal.low, equal.high) == (0, 0, 0)


def test_what_cannot_be_said_is_not_said():
    assert math.isnan(obuchowski_rockette(np.array([np.nan, np.nan]), np.full((5, 2), np.nan)).mean)
    lone = obuchowski_rockette(np.array([0.1]), np.full((5, 1), 0.1))
    assert lone.mean == pytest.approx(0.1)
    assert math.isnan(lone.low)
    same = level_tables(np.full((2, 9), 3), np.full((2, 9), 3))
    assert math.isnan(kappa_interval(same, np.array([[0], [1]]), 2, 0).mean)
    assert math.isnan(mean_interval(np.full((2, 3, 1), np.nan), 0).mean)


def test_guessing_is_told_from_skill_and_from_habit():
    rng = np.random.default_rng(6)
    truth = np.broadcast_to(np.arange(2), (4, 25, 2))
    skill = np.where(rng.random(truth.shape) < 0.8, truth, 1 - truth)
    assert guessing(skill, 0) < 0.01
    assert guessing(1 - skill, 0) < 0.01  # always wrong is no guess either
    assert guessing(np.ones_like(truth), 0) == 1  # "virtual" every time: a habit
    chance = rng.integers(0, 2, truth.shape)
    assert guessing(chance, 0) > 0.05
    # Ten readers who all copied one guess are one witness, not ten.
    copied = np.broadcast_to(chance[:1, :8], (10, 8, 2))
    assert guessing(copied, 0) == pytest.approx(guessing(chance[:1, :8], 0))


def test_guessing_without_pairs_exchanges_cases_and_bears_holes():
    rng = np.random.default_rng(7)
    said = np.full((3, 40, 2), MISSING)
    modality = rng.integers(0, 2, 40)
    said[:, np.arange(40), modality] = modality
    assert guessing(said, 0) < 0.01
    said[:, np.arange(40), modality] = rng.integers(0, 2, (3, 40))
    said[1, :7] = MISSING
    assert guessing(said, 0) > 0.01
    assert math.isnan(guessing(np.full((2, 3, 2), MISSING), 0))
