"""HER2 of the cells of a section from mRNA measured around them, in place of the phantom's invented rule.

A spot of 50 to 100 µm holds many cells, and its counts are few. So the expression at a place is the ratio of Gaussian sums of the
gene's counts and of all counts over the spots. Its rank among the section's spots gives the score of the tumour cells there.
The shape of an object and the expression of epithelial genes decide whether it is a tumour cell.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.data.spots import read_spots
from restain.errors import RestainError

GENE = "ERBB2"
EPITHELIAL = ("EPCAM", "CDH1", "KRT8", "KRT18", "KRT19")
"""Genes of epithelium; those that a table has are added up."""
REACH_UM = 120.0
"""Standard deviation of the Gaussian over which counts are added."""
SCORE_SHARES = np.array([0.25, 0.5, 0.75])
"""Shares of the section's spots below which the score is 0, 1 and 2."""
EPITHELIUM_SHARE = 0.2
"""Where epithelial genes are among this lowest share of spots, no cell is a tumour cell."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Expression:
    """Counts of ``N`` spots: their places ``xy`` ``(N, 2)`` in px of the image, and ``(N,)`` counts."""

    xy: Values
    total: Values
    gene: Values
    epithelial: Values
    mpp: float
    """Micrometres per px of the image."""

    @functools.cached_property
    def _bounds(self) -> tuple[Values, float]:
        gene, epithelial = self._smoothed(self.xy)
        return np.quantile(gene, SCORE_SHARES), float(np.quantile(epithelial, EPITHELIUM_SHARE))

    def _smoothed(self, xy: Values) -> tuple[Values, Values]:
        """Shares of the gene and of the epithelial genes in all counts at places ``(M, 2)``: two arrays ``(M,)``."""
        away = ((xy[:, None] - self.xy[None]) ** 2).sum(axis=2) * self.mpp**2
        # Relative to the nearest spot, so that a place far from all takes that one's counts.
        weight = np.exp(-(away - away.min(axis=1, keepdims=True)) / (2 * REACH_UM**2))
        total = weight @ self.total
        return weight @ self.gene / total, weight @ self.epithelial / total

    def scores(self, xy: Values) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """HER2 score 0 to 3 of tumour cells at places ``(M, 2)`` in px, and whether epithelium is there: ``(M,)`` each."""
        gene, epithelial = self._smoothed(xy)
        bounds, least = self._bounds
        # Where the genes are the same everywhere, rounding must not decide.
        return np.digitize(gene, bounds).astype(np.int32), epithelial >= least * (1 - 1e-6)


@functools.lru_cache(maxsize=8)
def read_expression(path: Path, mpp: float) -> Expression:
    """Read the spots of an image of ``mpp`` µm per px; see :func:`restain.data.spots.read_spots`.

    Raises:
        RestainError: if the table cannot be read, or has no ERBB2 or no epithelial gene.
    """
    spots = read_spots(path, GENE, EPITHELIAL)
    if not spots.also:
        raise RestainError(f"{path}: has none of the epithelial genes {', '.join(EPITHELIAL)}.")
    epithelial = np.sum(list(spots.also.values()), axis=0, dtype=float)
    return Expression(spots.xy, spots.total.astype(float), spots.counts.astype(float), epithelial, mpp)
