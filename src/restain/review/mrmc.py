"""Figures over many readers and cases (MRMC), with intervals that hold for other readers and other cases.

Two estimators of means over readers, or over pairs of readers:

- The **pigeonhole bootstrap** (Owen, *Ann Appl Stat* 1:386, 2007) resamples readers and cases as a whole. It is too wide
  if neither differ, and too narrow if few readers differ much (coverage: docs/review.md). A reader drawn twice is never
  compared with themself.
- **Obuchowski and Rockette** (*Commun Stat Simul Comput* 24:285, 1995) for the difference between two modalities, with the
  covariance between readers by the jackknife over cases and the degrees of freedom of Hillis (*Stat Med* 26:596, 2007).
  The variance is that of the readers' differences over their number, plus the covariance of readers (at least 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from restain.her2 import Her2Level
from restain.statistics import RESAMPLES, Interval, quadratic_kappa

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MISSING = -1


LEVELS = len(Her2Level)


def level_tables(first: Ints, second: Ints) -> Floats:
    """Counts ``(C, U, 4, 4)`` of two sets of levels ``(U, C)``; pairs with a :data:`MISSING` level are not counted."""
    units, cases = first.shape
    tables = np.zeros((cases, units, LEVELS, LEVELS))
    unit, case = np.nonzero((first != MISSING) & (second != MISSING))
    tables[case, unit, first[unit, case], second[unit, case]] = 1
    return tables


def kappas(tables: Floats) -> Floats:
    """Quadratic kappa ``(U,)`` of each unit over all cases of counts ``(C, U, 4, 4)``."""
    return quadratic_kappa(tables.sum(axis=0))


def kappa_interval(tables: Floats, units: Ints, readers: int, seed: int) -> Interval:
    """The mean kappa over units, with its pigeonhole bootstrap interval.

    Args:
        tables: counts ``(C, U, 4, 4)``.
        units: ``(U, 1)`` or ``(U, 2)``: the reader or pair of readers of each unit.
        readers: number of readers.
        seed: of the bootstrap.
    """

    def figures(cases: Floats) -> Floats:
        return quadratic_kappa(np.tensordot(cases, tables, axes=1))

    return _pigeonhole(figures, len(tables), units, readers, seed)


def mean_interval(values: Floats, seed: int) -> Interval:
    """The mean over readers, groups and cases of ``values`` ``(R, C, G)``, with its pigeonhole bootstrap interval.

    NaN marks missing values; a reader without a value in some group does not count.
    """
    there = np.isfinite(values).astype(np.float64)
    filled = np.where(there > 0, values, 0)

    def figures(cases: Floats) -> Floats:
        total = np.einsum("bc,rcg->brg", cases, filled)
        count = np.einsum("bc,rcg->brg", cases, there)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).mean(axis=-1)

    return _pigeonhole(figures, values.shape[1], np.arange(len(values))[:, None], len(values), seed)


def kappa_difference(first: Floats, second: Floats) -> Interval:
    """Mean kappa of the first modality less that of the second, with the interval of Obuchowski and Rockette.

    Both are counts ``(C, R, 4, 4)`` of each reader against the reference, over the same cases.
    """
    whole = kappas(first) - kappas(second)
    left = quadratic_kappa(first.sum(axis=0) - first) - quadratic_kappa(second.sum(axis=0) - second)
    return obuchowski_rockette(whole, left)


def mean_difference(values: Floats) -> Interval:
    """The same for differences ``(R, C)`` case by case; NaN marks missing ones."""
    there = np.isfinite(values)
    filled, count = np.where(there, values, 0), there.sum(axis=1)
    total = filled.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = total / count
        left = (total[:, None] - filled) / (count[:, None] - there)
    return obuchowski_rockette(whole, left.T)


def obuchowski_rockette(whole: Floats, left: Floats) -> Interval:
    """The mean of the readers' differences ``whole`` ``(R,)`` with its 95 % interval; NaN marks readers without one.

    ``left`` ``(C, R)`` are the differences without one case each.
    """
    able = np.isfinite(whole) & np.isfinite(left).all(axis=0)
    whole, left = whole[able], left[:, able]
    cases, readers = left.shape
    if readers == 0:
        return Interval(math.nan)
    value = float(whole.mean())
    if readers < 2 or cases < 2:
        return Interval(value)
    residual = left - left.mean(axis=0)
    covariance = (cases - 1) / cases * residual.T @ residual
    between = float((covariance.sum() - np.trace(covariance)) / (readers * (readers - 1)))
    own = float(whole.var(ddof=1)) / readers
    variance = own + max(between, 0.0)
    if variance == 0:
        return Interval(value, value, value)
    freedom = np.inf if own == 0 else variance**2 / (own**2 / (readers - 1))
    half = float(student.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(value, value - half, value + half)


def guessing(called: Ints, seed: int, draws: int = RESAMPLES) -> float:
    """p value of a two-sided permutation test that readers cannot distinguish virtual from chemical images.

    The statistic is how much more often virtual images than chemical ones are called virtual, as a mean over readers.
    Labels are exchanged between the two images of a case, for all readers at once, because readers who err on the same
    images are not independent. Labels of cases with one image are permuted among them.

    Args:
        called: ``(R, C, 2)``: 1 if the chemical and the virtual image of a case were called virtual, 0 if not, or :data:`MISSING`.
        seed: of the permutations.
        draws: number of permutations.
    """
    rng = np.random.default_rng([seed, draws])
    values = np.where(called == MISSING, np.nan, called.astype(np.float64))
    there: NDArray[np.bool_] = np.any(called != MISSING, axis=0)
    paired, alone = np.asarray(there.all(axis=1)), np.flatnonzero(there.any(axis=1) & ~there.all(axis=1))
    labels = there[alone, 1].astype(int)
    single = values[:, alone, labels]
    observed = _skill(values)
    if not math.isfinite(observed):
        return math.nan
    reached = 0
    for _ in range(draws):
        swap = paired & (rng.random(len(paired)) < 0.5)
        mixed = np.where(swap[:, None], values[:, :, ::-1], values)
        mixed[:, alone] = np.nan
        mixed[:, alone, rng.permutation(labels)] = single
        skill = _skill(mixed)
        reached += not abs(skill) < abs(observed) - 1e-12
    return (1 + reached) / (1 + draws)


def _skill(values: Floats) -> float:
    there = np.isfinite(values)
    count = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1)
    able = (count > 0).all(axis=1)
    if not able.any():
        return math.nan
    share = total[able] / count[able]
    return float((share[:, 1] - share[:, 0]).mean())


def _pigeonhole(figures: Callable[[Floats], Floats], cases: int, units: Ints, readers: int, seed: int) -> Interval:
    """Interval of a mean over units; ``figures`` maps weights of cases ``(B, C)`` to figures of units ``(B, U)``."""
    whole = figures(np.ones((1, cases)))
    value = float(_weighted(whole, np.ones((1, len(units))))[0])
    if cases < 2 or readers < 2 or not math.isfinite(value):
        return Interval(value)
    rng = np.random.default_rng([seed, cases, readers])
    samples = []
    # In parts, to bound memory with hundreds of pairs of readers.
    part = max(1, min(RESAMPLES, 2_000_000 // max(1, len(units) * LEVELS * LEVELS)))
    for start in range(0, RESAMPLES, part):
        count = min(part, RESAMPLES - start)
        drawn = rng.multinomial(cases, np.full(cases, 1 / cases), size=count).astype(np.float64)
        chosen = rng.multinomial(readers, np.full(readers, 1 / readers), size=count).astype(np.float64)
        samples.append(_weighted(figures(drawn), chosen[:, units].prod(axis=-1)))
    found = np.concatenate(samples)
    found = found[np.isfinite(found)]
    if found.size < RESAMPLES / 2:
        return Interval(value)
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _weighted(values: Floats, weights: Floats) -> Floats:
    weights = np.where(np.isfinite(values), weights, 0)
    total = (np.where(weights > 0, values, 0) * weights).sum(axis=-1)
    count = weights.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
