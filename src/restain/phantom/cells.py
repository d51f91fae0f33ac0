"""The phantom's cells and the rule that ties their HER2 score to what H&E shows.

**The rule is invented; it is not biology.** Real HER2 status cannot be read from nuclear size. The rule makes the IHC
predictable from the H&E, with known truth:

===== ================ ============= ========== ========================== ==================================
score nuclear diameter cell diameter nucleoli   chromatin                  membrane (share of perimeter, DAB)
===== ================ ============= ========== ========================== ==================================
0     6.0 µm ± 6 %     9.6 µm        none       fine, dark                 none; faint where a nucleus > 6.8 µm
1     7.6 µm ± 8 %     11.2 µm       few, small fine                       arcs of 30-60 %, 0.12 OD
2     9.3 µm ± 9 %     13.0 µm       one        coarse, paler, dark rim    90-100 %, 0.30 OD
3     11.0 µm ± 11 %   15.2 µm       one or two clumped, vesicular         96-100 %, 0.90 OD, and cytoplasm
===== ================ ============= ========== ========================== ==================================

The cell diameter is the spacing of the lattice of cells; ± is the coefficient of variation. Geometry carries the cue, so
that varying stain does not destroy it. Where staining is incomplete, the part of the membrane nearest to the nucleus is
stained. Normal ducts score 0 and have a faint luminal edge. Scores are drawn per focus: most foci follow the slide's
level, a minority lies one below it, and fewer than 10 % of the cells lie one above.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from restain.images.nuclei import CellKind

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]

NUCLEUS_UM = np.array([6.0, 7.6, 9.3, 11.0], dtype=np.float32)
"""Mean nuclear diameter of tumour cells by HER2 score, in µm."""
NUCLEUS_CV = np.array([0.06, 0.08, 0.09, 0.11], dtype=np.float32)
"""Coefficient of variation of the nuclear diameter by score (pleomorphism)."""
CELL_UM = np.array([9.6, 11.2, 13.0, 15.2], dtype=np.float32)
"""Mean distance of neighbouring tumour cells by score, in µm."""
NUCLEOLI = np.array([0.0, 0.35, 1.0, 1.7], dtype=np.float32)
"""Mean number of nucleoli by score."""
CLUMPING = np.array([0.08, 0.13, 0.22, 0.32], dtype=np.float32)
"""Relative contrast of the chromatin by score."""

MEMBRANE_OD = np.array([0.08, 0.12, 0.30, 0.90], dtype=np.float32)
"""DAB density of a stained membrane by score, in OD units (score 0: of its few faint cells)."""
COMPLETENESS = np.array([[0.15, 0.30], [0.30, 0.60], [0.90, 1.0], [0.96, 1.0]], dtype=np.float32)
"""Least and greatest stained share of the perimeter by score."""
CYTOPLASM_SHARE = np.array([0.0, 0.0, 0.15, 0.25], dtype=np.float32)
"""DAB in the cytoplasm, as a share of that in the membrane, by score."""
FAINT_NUCLEUS_UM = 6.8
"""Score-0 cells with a nucleus above this diameter have a faint arc, as long as they are fewer than FEW_CELLS."""
FEW_CELLS = 0.08
"""Greatest share of a pair's tumour cells that may lie above the level; below the guideline's 10 %."""


@dataclass(frozen=True)
class Cells:
    """Cells of one image, one array element per cell.

    ``x``, ``y`` are pixels (column, row, sub-pixel) of the nucleus' centre; ``kind`` is a :class:`CellKind`; ``score``
    the HER2 score 0..3; ``diameter_um`` the nuclear diameter; ``completeness`` the stained share of the perimeter in
    [0, 1]; ``dab_od`` the DAB density of the stained membrane in OD units.
    """

    x: Floats
    y: Floats
    kind: Ints
    score: Ints
    diameter_um: Floats
    completeness: Floats
    dab_od: Floats

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[np.bool_] | NDArray[np.integer]) -> Self:
        """The cells that a mask or an index array picks."""
        return type(self)(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    @property
    def tumour(self) -> Self:
        """The tumour cells, which alone decide the level."""
        return self.take(self.kind == CellKind.TUMOUR)

    def inside(self, size: int) -> Self:
        """The cells whose centre lies in an image of ``size`` px squared."""
        return self.take((self.x >= 0) & (self.y >= 0) & (self.x < size) & (self.y < size))

    def rows(self) -> Iterator[tuple[float, float, str, int, float, float]]:
        """``(x_px, y_px, class, score, completeness, membrane OD)`` per cell, rounded as in the truth table."""
        columns = (self.x, self.y, self.kind, self.score, self.completeness, self.dab_od)
        for x, y, kind, score, share, od in zip(*(column.tolist() for column in columns), strict=True):
            yield round(x, 2), round(y, 2), CellKind(kind).name.lower(), score, round(share, 4), round(od, 4)


def stain_membranes(rng: np.random.Generator, kind: Ints, score: Ints, diameter_um: Floats) -> tuple[Floats, Floats]:
    """Apply the rule: ``(completeness, dab_od)`` of cells from their kind, score and nuclear diameter (arrays of N)."""
    count = len(score)
    low, high = COMPLETENESS[score].T
    completeness = (low + (high - low) * rng.random(count)).astype(np.float32)
    dab_od = (MEMBRANE_OD[score] * rng.normal(1.0, 0.08, count).clip(0.8, 1.2)).astype(np.float32)
    tumour = kind == CellKind.TUMOUR
    allowed = int(FEW_CELLS * tumour.sum())
    faint = np.flatnonzero(tumour & (score == 0) & (diameter_um > FAINT_NUCLEUS_UM))
    faint = faint[np.argsort(-diameter_um[faint], kind="stable")][:allowed]
    stained = tumour & (score > 0)
    stained[faint] = True
    return np.where(stained, completeness, 0).astype(np.float32), np.where(stained, dab_od, 0).astype(np.float32)
