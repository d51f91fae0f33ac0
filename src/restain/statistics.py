"""Statistics: 95 % confidence intervals, agreement of ordinal scores, and corrected tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, wilcoxon

Floats = NDArray[np.float64]

RESAMPLES = 2000
"""Bootstrap samples behind an interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from ``n`` values with the ends of its 95 % interval; NaN where undefined."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    def plain(self) -> dict[str, float | int | None]:
        """For JSON: NaN becomes None."""
        return {
            "mean": finite_or_none(self.mean),
            "low": finite_or_none(self.low),
            "high": finite_or_none(self.high),
            "n": self.n,
        }


def finite_or_none(value: float) -> float | None:
    """``value``; None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def json_ready(value: Any) -> Any:
    """``value`` as JSON can hold it: dataclasses as objects, arrays as lists, NaN and infinities as None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, float | np.floating):
        return finite_or_none(float(value))
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [json_ready(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


@lru_cache(maxsize=16)
def resample(n: int, seed: int) -> NDArray[np.int64]:
    """Units that each bootstrap sample draws: ``(RESAMPLES, n)`` indices, the same for the same n and seed."""
    return np.random.default_rng([seed, n]).integers(0, n, size=(RESAMPLES, n))


def percentile_interval(value: float, samples: Floats | Sequence[float], n: int, units: int | None = None) -> Interval:
    """``value`` with the central 95 % of bootstrap samples; no interval for fewer than two ``units`` (default ``n``)."""
    known = np.asarray(samples, dtype=np.float64)
    known = known[np.isfinite(known)]
    if (n if units is None else units) < 2 or known.size == 0:
        return Interval(value, n=n)
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(value, float(low), float(high), n)


def mean_interval(values: Sequence[float] | Floats, seed: int = 0, clusters: Sequence[str] | None = None) -> Interval:
    """Mean with a percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13); non-finite values are left out.

    ``clusters`` names the cluster of each value, drawn whole; None draws values as if they were independent.
    """
    given = np.asarray(values, dtype=np.float64)
    known = np.isfinite(given)
    kept = given[known]
    if kept.size == 0:
        return Interval(math.nan)
    if clusters is None:
        return percentile_interval(float(kept.mean()), kept[resample(kept.size, seed)].mean(axis=1), kept.size)
    names = [name for name, there in zip(clusters, known, strict=True) if there]
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    member = [index[name] for name in names]
    sums, counts = np.bincount(member, kept), np.bincount(member)
    drawn = resample(len(index), seed)
    samples = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return percentile_interval(float(kept.mean()), samples, kept.size, len(index))


def wilson_interval(hits: int, n: int) -> Interval:
    """A share of ``n`` with Wilson's interval (*J Am Stat Assoc* 22:209, 1927), which stays open at 0 and 100 %."""
    if n == 0:
        return Interval(math.nan)
    ends = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return Interval(hits / n, float(ends.low), float(ends.high), n)


def confusion(truth: Sequence[int], scored: Sequence[int], classes: int) -> Floats:
    """Counts ``(classes, classes)``: a row per true class, a column per scored one."""
    table = np.zeros((classes, classes))
    np.add.at(table, (np.asarray(truth, dtype=int), np.asarray(scored, dtype=int)), 1)
    return table


def quadratic_kappa(table: Floats) -> Floats:
    """Cohen's kappa with quadratic weights (*Psychol Bull* 70:213, 1968) of ``(..., K, K)`` counts: ``(...)``.

    1 is full agreement, 0 that of chance with the same margins; NaN where all is one class.
    """
    level = np.arange(table.shape[-1])
    weight = (level[:, None] - level) ** 2
    n = np.maximum(table.sum(axis=(-2, -1)), 1)
    chance = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :] / n[..., None, None]
    observed, expected = (weight * table).sum(axis=(-2, -1)), (weight * chance).sum(axis=(-2, -1))
    ratio = np.divide(observed, expected, out=np.full(np.shape(observed), np.nan), where=expected > 0)
    return np.asarray(1 - ratio)


def kappa_interval(
    truth: Sequence[int], scored: Sequence[int], classes: int, clusters: Sequence[str] | None = None, seed: int = 0
) -> Interval:
    """Quadratic kappa with a percentile bootstrap interval that draws clusters whole; None draws one by one."""
    value = float(quadratic_kappa(confusion(truth, scored, classes)))
    if math.isnan(value):
        return Interval(math.nan, n=len(truth))
    names: Sequence[Any] = range(len(truth)) if clusters is None else clusters
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    count = len(index)
    tables = np.zeros((count, classes, classes))
    np.add.at(tables, ([index[name] for name in names], list(truth), list(scored)), 1)
    drawn = np.random.default_rng([seed, count]).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    samples = quadratic_kappa(np.tensordot(drawn.astype(np.float64), tables, axes=1))
    return percentile_interval(value, samples, len(truth), count)


def signed_rank(gain: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that ``gain`` is symmetric about zero.

    Exact up to 50 units without ties or zeros, else by the normal approximation. Zeros are left out; 1 if nothing
    remains, NaN with fewer than two units.
    """
    if len(gain) < 2:
        return math.nan
    # Equal sums of unequal numbers differ in the last bits, which would be a zero with a rank.
    rounded = np.round(gain, 12)
    return 1.0 if not rounded.any() else float(wilcoxon(rounded[rounded != 0]).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values; NaN stay NaN and are not counted as tests."""
    order = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    corrected, floor = [math.nan] * len(p), 0.0
    for rank, (value, index) in enumerate(order):
        floor = max(floor, min(1.0, value * (len(order) - rank)))
        corrected[index] = floor
    return corrected
