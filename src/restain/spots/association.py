"""How closely a density per spot follows an mRNA count: Spearman's rho, intervals, and what noise in the counts allows.

Neighbouring spots resemble one another, so intervals come from a spatial block bootstrap (Lahiri, *Resampling Methods for
Dependent Data*, 2003, ch. 12): square blocks of spots are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from restain.spots.table import Spots

BLOCK_UM = 1000.0
"""Side of a bootstrap block in µm: five spots of the arrays of Spatial Transcriptomics, ten of Visium's."""

RESAMPLES = 2000
"""Bootstrap samples behind an interval."""

THINNINGS = 200
"""Random halvings of the counts behind the noise ceiling."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Association:
    """One density against the expression of the gene."""

    rho: Estimate
    """Spearman's rho with log CPM."""
    given_total: Estimate
    """The partial rho given the spot's total counts, which follow the number of cells."""
    given_hematoxylin: Estimate
    """The partial rho given the hematoxylin density of the H&E, smoothed by 24 µm."""
    above: Mapping[str, Estimate]
    """Rho minus the rho of each baseline, in the same bootstrap samples."""


def spearman(one: Values, other: Values, given: Sequence[Values] = ()) -> float:
    """Spearman's rho of two arrays of shape ``(N,)``; the partial one given others: Pearson's r of the ranks' residuals."""
    design = np.column_stack([np.ones(len(one)), *(rankdata(values) for values in given)])
    ranks = np.column_stack([rankdata(one), rankdata(other)])
    rest = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    norm = np.linalg.norm(rest, axis=0)
    if (norm < 1e-9 * len(one)).any():
        return float("nan")
    return float(rest[:, 0] @ rest[:, 1] / norm.prod())


def blocks_of(xy_um: Values, side_um: float = BLOCK_UM) -> NDArray[np.int64]:
    """The block of each spot, ``(N,)``, numbered from 0: squares of ``side_um`` from the first spot's corner."""
    cells = np.floor((xy_um - xy_um.min(axis=0)) / side_um).astype(np.int64)
    return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)


def associations(
    spots: Spots,
    densities: Mapping[str, Values],
    mpp: float,
    *,
    baselines: Sequence[str],
    hematoxylin: str,
    seed: int = 0,
) -> dict[str, Association]:
    """Each density against the gene's log CPM.

    Args:
        spots: the spots.
        densities: by name, the mean density of each spot in OD, ``(N,)``.
        mpp: µm per px of the spots' places.
        baselines: names among ``densities`` that every other one is compared with.
        hematoxylin: the one that partial correlations are given.
        seed: of the bootstrap.
    """
    target = spots.log_cpm()
    total = spots.total.astype(np.float64)
    members = [np.flatnonzero(blocks == n) for blocks in [blocks_of(spots.xy * mpp)] for n in range(blocks.max() + 1)]
    rng = np.random.default_rng(seed)
    samples = [np.arange(len(target))]
    for _ in range(RESAMPLES):
        samples.append(np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))]))
    rho = {name: np.array([spearman(values[s], target[s]) for s in samples]) for name, values in densities.items()}
    given = densities[hematoxylin]
    found = {}
    for name, values in densities.items():
        by_total = np.array([spearman(values[s], target[s], [total[s]]) for s in samples])
        by_he = np.array([spearman(values[s], target[s], [given[s]]) for s in samples])
        above = {other: _estimate(rho[name] - rho[other]) for other in baselines if other != name}
        found[name] = Association(_estimate(rho[name]), _estimate(by_total), _estimate(by_he), above)
    return found


def _estimate(drawn: Values) -> Estimate:
    """The first value, with the percentile interval of the others."""
    rest = drawn[1:][np.isfinite(drawn[1:])]
    if not np.isfinite(drawn[0]) or not len(rest):
        return Estimate(float("nan"), float("nan"), float("nan"))
    low, high = np.percentile(rest, [2.5, 97.5])
    return Estimate(float(drawn[0]), float(low), float(high))


def noise_ceiling(spots: Spots, seed: int = 0) -> float:
    """The rho that the true expression itself would have with these counts; NaN where counts are too few.

    Every count is divided at random into two halves. Rho between the halves is their reliability; the Spearman–Brown
    formula gives that of the whole count, ``2 r / (1 + r)``, and its root is the ceiling (Spearman 1910; Brown 1910).
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(THINNINGS):
        gene = rng.binomial(spots.counts, 0.5)
        rest = rng.binomial(spots.total - spots.counts, 0.5)
        totals = np.maximum(gene + rest, 1), np.maximum(spots.total - gene - rest, 1)
        found.append(spearman(gene / totals[0], (spots.counts - gene) / totals[1]))
    r = float(np.mean(found))
    return float(np.sqrt(2 * r / (1 + r))) if r > 0 else float("nan")
