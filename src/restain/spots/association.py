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

from restain.data.spots import Spots
from restain.statistics import RESAMPLES, Interval, percentile_interval

BLOCK_UM = 1000.0
"""Side of a bootstrap block in µm: five spots of the arrays of Spatial Transcriptomics, ten of Visium's."""

THINNINGS = 200
"""Random halvings of the counts behind the noise ceiling."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """One density against the expression of the gene."""

    rho: Interval
    """Spearman's rho with log CPM."""
    given_total: Interval
    """The partial rho given the spot's total counts, which follow the number of cells."""
    given_hematoxylin: Interval
    """The partial rho given the hematoxylin density of the H&E, smoothed by 24 µm."""
    above: Mapping[str, Interval]
    """Rho minus the rho of each baseline, in the same bootstrap samples."""


def rank_correlations(columns: Values) -> Values:
    """Spearman's rho of every pair of columns: ``(N, K)`` to ``(K, K)``; NaN for a constant column."""
    ranks = rankdata(columns, axis=0)
    ranks -= ranks.mean(axis=0)
    norm = np.linalg.norm(ranks, axis=0)
    norm[norm == 0] = np.nan
    return np.asarray((ranks.T @ ranks) / np.outer(norm, norm))


def spearman(one: Values, other: Values, given: Values | None = None) -> float:
    """Spearman's rho of two arrays of shape ``(N,)``; the partial one given a third."""
    rho = rank_correlations(np.column_stack([one, other] if given is None else [one, other, given]))
    return float(rho[0, 1] if given is None else _partial(rho[0, 1], rho[0, 2], rho[1, 2]))


def _partial(xy: Values, xz: Values, yz: Values) -> Values:
    """Partial correlation of x and y given z; NaN where z explains one of them."""
    rest = (1 - xz**2) * (1 - yz**2)
    return np.where(rest > 1e-12, (xy - xz * yz) / np.sqrt(np.maximum(rest, 1e-12)), np.nan)


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
    names = list(densities)
    columns = np.column_stack([spots.log_cpm(), spots.total, *densities.values()])
    blocks = blocks_of(spots.xy * mpp)
    members = [np.flatnonzero(blocks == number) for number in range(blocks.max() + 1)]
    rng = np.random.default_rng(seed)
    samples = [np.arange(len(columns))]
    samples += [
        np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))]) for _ in range(RESAMPLES)
    ]
    drawn = np.stack([rank_correlations(columns[sample]) for sample in samples])
    rho, with_total = drawn[:, 2:, 0], drawn[:, 2:, 1]
    given = names.index(hematoxylin)
    by_total = _partial(rho, with_total, drawn[:, :1, 1])
    by_he = _partial(rho, drawn[:, 2:, 2 + given], rho[:, given : given + 1])
    found = {}
    for number, name in enumerate(names):
        above = {
            other: _estimate(rho[:, number] - rho[:, names.index(other)], len(columns))
            for other in baselines
            if other != name
        }
        found[name] = Association(
            _estimate(rho[:, number], len(columns)),
            _estimate(by_total[:, number], len(columns)),
            _estimate(by_he[:, number], len(columns)),
            above,
        )
    return found


def _estimate(drawn: Values, n: int) -> Interval:
    """The first value, with the percentile interval of the others; NaN where it is undefined."""
    value = float(drawn[0])
    return percentile_interval(value, drawn[1:], n) if np.isfinite(value) else Interval(value, n=n)


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
