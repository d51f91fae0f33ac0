"""HER2 expression levels.

Levels follow the ASCO/CAP guideline for HER2 immunohistochemistry in breast cancer (Wolff et al., *Arch Pathol Lab
Med* 2023, doi:10.5858/arpa.2023-0950-SA): 0 no staining, or faint and incomplete in at most 10 % of the tumour cells;
1+ faint, incomplete membrane staining in more than 10 %; 2+ weak to moderate complete staining in more than 10 %;
3+ complete and intense staining in more than 10 %.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from restain.errors import RestainError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class Her2Level(IntEnum):
    """The expression level of a slide (not of a patch): 0, 1+, 2+ or 3+. The integer value is the class index."""

    ZERO = 0
    ONE = 1
    TWO = 2
    THREE = 3

    @property
    def text(self) -> str:
        """The level as in BCI's file names: ``0``, ``1+``, ``2+``, ``3+``."""
        return "0" if self is Her2Level.ZERO else f"{self.value}+"

    @classmethod
    def parse(cls, text: str) -> Her2Level:
        """Read a level from its text form. Raises RestainError if ``text`` is none of ``0``, ``1+``, ``2+``, ``3+``."""
        for level in cls:
            if level.text == text:
                return level
        raise RestainError(f"'{text}' is not a HER2 level; the levels are 0, 1+, 2+ and 3+.")


class Her2Zero(StrEnum):
    """The two kinds of level 0.

    HER2-ultralow is faint, incomplete membrane staining in some, but at most 10 % of the tumour cells; HER2-null is no
    staining. The trial DESTINY-Breast06 treated the first kind (Bardia et al., *N Engl J Med* 391:2110, 2024,
    doi:10.1056/NEJMoa2407086); both are level 0 of ASCO/CAP.
    """

    NULL = "null"
    ULTRALOW = "ultralow"

    @property
    def text(self) -> str:
        return "0, no staining (null)" if self is Her2Zero.NULL else "0, faint (ultralow)"


FAINT_OD = 0.05
WEAK_OD = 0.2
MODERATE_OD = 0.35
INTENSE_OD = 0.6
"""Least DAB density of a membrane, in OD units, that counts as faint, weak, moderate and intense staining."""

COMPLETE = 0.85
"""Least stained share of a cell's perimeter that counts as complete, circumferential staining."""

CELL_SHARE = 0.10
"""A pattern decides the level when more than this share of the tumour cells shows it."""

TRACE_SHARE = 0.01
"""With at most this share of stained cells a level 0 is null. The definition says no cell at all; some false detections
in thousands of cells must not count as staining. restain's own choice."""


def asco_cap_level(completeness: ArrayLike, dab_od: ArrayLike) -> Her2Level:
    """The level of a set of tumour cells by the guideline; no cells give level 0.

    The guideline speaks in words (faint, weak, moderate, intense; complete, incomplete); the thresholds are this
    module's constants and restain's own choice. More than 10 % of the cells must show: for 3+ complete and intense
    staining; for 2+ complete staining that is at least weak, or incomplete (lateral) staining that is at least
    moderate; for 1+ any staining that is at least faint. Otherwise the level is 0.

    ``completeness`` is the stained share of each cell's perimeter, in [0, 1], ``dab_od`` the DAB density of its stained
    membrane in OD units. Raises ValueError if the two do not have the same shape.
    """
    import numpy as np  # here, so that `import restain` does not load it

    return level_of_counts(np.bincount(cell_levels(completeness, dab_od), minlength=len(Her2Level)).tolist())


def cell_levels(completeness: ArrayLike, dab_od: ArrayLike) -> NDArray[np.int64]:
    """The highest level whose staining pattern each cell shows; arguments and errors as of :func:`asco_cap_level`.

    Returns:
        Values of :class:`Her2Level`. A cell that shows a pattern shows all lower ones too.
    """
    import numpy as np

    share, density = np.asarray(completeness, dtype=np.float64), np.asarray(dab_od, dtype=np.float64)
    if share.shape != density.shape:
        raise ValueError(f"completeness {share.shape} and DAB density {density.shape} must be of the same shape")
    complete, stained = share >= COMPLETE, share > 0
    patterns = (
        stained & (density >= FAINT_OD),
        (complete & (density >= WEAK_OD)) | (stained & (density >= MODERATE_OD)),
        complete & (density >= INTENSE_OD),
    )
    return np.sum(patterns, axis=0, dtype=np.int64)


def level_of_counts(counts: Sequence[int]) -> Her2Level:
    """The level of a set of cells from how many show each pattern (see :func:`cell_levels`), 0 to 3+; sets add up."""
    total = sum(counts)
    reached = (level for level in reversed(Her2Level) if total and sum(counts[level:]) / total > CELL_SHARE)
    return next(reached, Her2Level.ZERO)


def zero_of_counts(counts: Sequence[int]) -> Her2Zero | None:
    """Which kind of level 0 a set of cells is, from the counts of :func:`level_of_counts`; ``None`` at other levels."""
    if level_of_counts(counts) is not Her2Level.ZERO:
        return None
    return Her2Zero.ULTRALOW if sum(counts[1:]) > TRACE_SHARE * sum(counts) else Her2Zero.NULL
