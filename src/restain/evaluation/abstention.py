"""Abstention: how the error falls when the most uncertain answers are withheld.

The risk–coverage curve of selective prediction (El-Yaniv & Wiener, *JMLR* 11:1605, 2010; Geifman & El-Yaniv, NeurIPS
2017). Its area is the mean, over all shares kept, of the mean error of what is kept; the oracle withholds by the error
itself, and withholding at random leaves the error as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restain.statistics import Interval, percentile_interval

Values = NDArray[np.float64]

RESAMPLES = 300
"""Bootstrap samples behind the intervals of areas."""

POINTS = 50
"""Most points of a stored curve."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """One risk–coverage curve beside its oracle and its random line."""

    kept: list[float]
    """Shares kept, rising to 1."""
    risk: list[float]
    """Mean error of what is kept when the most uncertain are withheld."""
    oracle: list[float]
    """The same when the largest errors are withheld: no ordering does better."""
    random: float
    """The mean error of all: what withholding at random keeps."""
    area: Interval
    """Area under ``risk``; n counts the independent parts (images)."""
    oracle_area: float
    gain: Interval
    """Share of the way from random to oracle, ``(random - area) / (random - oracle)``: 1 is the oracle, 0 no better than
    chance, below 0 worse. Undefined (NaN) where all errors are equal."""


def risk_coverage(uncertainty: Values, error: Values) -> Values:
    """Mean error of the ``k`` least uncertain, for ``k`` = 1 ... n: two ``(n,)`` arrays to one.

    Answers of equal uncertainty count with their mean error, so that the order of a file cannot help.
    """
    _, group = np.unique(uncertainty, return_inverse=True)
    fair = np.bincount(group, weights=error) / np.bincount(group)
    running: Values = np.cumsum(fair[np.sort(group)]) / np.arange(1, error.size + 1)
    return running


def abstention(
    uncertainty: Sequence[Values] | Sequence[float], error: Sequence[Values] | Sequence[float], seed: int = 0
) -> Abstention | None:
    """The curve over images, or over the parts of images.

    Args:
        uncertainty: per image a number, or an array with one number per part (a cell, a pixel); more is more uncertain.
        error: of the same form; parts whose error is not finite are left out.
        seed: of the bootstrap, which draws whole images.

    Returns:
        The curve; ``None`` where fewer than two images or parts remain.
    """
    orders = [np.atleast_1d(np.asarray(d, dtype=np.float64)) for d in uncertainty]
    errors = [np.atleast_1d(np.asarray(e, dtype=np.float64)) for e in error]
    known = [np.isfinite(e) for e in errors]
    orders = [d[k] for d, k in zip(orders, known, strict=True) if k.any()]
    errors = [e[k] for e, k in zip(errors, known, strict=True) if k.any()]
    if len(errors) < 2:
        return None
    all_orders, all_errors = np.concatenate(orders), np.concatenate(errors)
    curve, best = risk_coverage(all_orders, all_errors), risk_coverage(all_errors, all_errors)
    rng = np.random.default_rng([seed, len(errors)])
    areas, gains = [], []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(errors), size=len(errors))
        area, gain = _area_and_gain(
            np.concatenate([orders[i] for i in drawn]), np.concatenate([errors[i] for i in drawn])
        )
        areas.append(area)
        gains.append(gain)
    area, gain = _area_and_gain(all_orders, all_errors)
    at = np.unique(np.linspace(0, all_errors.size - 1, POINTS).round().astype(int))
    return Abstention(
        kept=((at + 1) / all_errors.size).tolist(),
        risk=curve[at].tolist(),
        oracle=best[at].tolist(),
        random=float(all_errors.mean()),
        area=percentile_interval(area, areas, len(errors)),
        oracle_area=float(best.mean()),
        gain=percentile_interval(gain, gains, len(errors)),
    )


def _area_and_gain(uncertainty: Values, error: Values) -> tuple[float, float]:
    best = np.mean(np.cumsum(np.sort(error)) / np.arange(1, error.size + 1))
    area, chance = risk_coverage(uncertainty, error).mean(), error.mean()
    span = chance - best
    return float(area), float((chance - area) / span) if span > 1e-12 else math.nan
