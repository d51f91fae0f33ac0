"""How well HER2 levels that were read from images agree with the levels that are known.

Every figure has a 95 % interval and the number of images or slides behind it; it is NaN where undefined. Shares (accuracy, sensitivity, specificity) have Wilson's interval
(*J Am Stat Assoc* 22:209, 1927), which does not shrink to nothing at 100 %; kappa has a percentile bootstrap interval
that draws slides whole where slides are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from restain.her2 import Her2Level
from restain.statistics import Interval, confusion, kappa_interval, wilson_interval

LEVELS = len(Her2Level)

READINGS = {
    "classifier": "a network trained on real IHC images",
    "rule": "the ASCO/CAP definition on the DAB map",
}
"""The two ways in which a level is read, in words."""

GROUPS: Mapping[str, tuple[Her2Level, ...]] = {
    "0": (Her2Level.ZERO,),
    "low": (Her2Level.ONE, Her2Level.TWO),
    "3+": (Her2Level.THREE,),
}
"""What treatment tells apart: no HER2, HER2-low, and positive. (Whether 2+ is low is decided by in-situ hybridisation,
which an image does not show.)"""


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """What was read from one method's image of one pair, and the level that is known."""

    name: str
    slide: str | None
    """The slide that the patch was cut from, where it is known."""
    level: Her2Level | None
    """The slide's level; rows without one do not count."""
    method: str
    """``model``, a baseline, or ``real`` for the real IHC image: the ceiling of any reading."""
    classifier: Her2Level
    rule: Her2Level


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """How well one group of levels is separated from the others."""

    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, slots=True)
class Figures:
    """Agreement of levels read with levels known."""

    n: int
    accuracy: Interval
    kappa: Interval
    """With quadratic weights."""
    confusion: list[list[int]]
    """4 lists of 4 counts: a row per known level, a column per read one."""
    groups: dict[str, GroupFigures]
    """By the names of ``GROUPS``."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement per patch and per slide.

    A slide is read as the level of most of its patches (of two equally frequent ones, the higher: a missed positive costs
    the patient more). ``slide`` is None where a row's slide is not known.
    """

    patch: Figures
    slide: Figures | None


def agreement(rows: Sequence[ReadingRow], seed: int = 0) -> dict[str, dict[str, Agreement]]:
    """Agreement with the known level: ``{method: {reading: Agreement}}``.

    Args:
        rows: one per image and method; those without a known level are left out.
        seed: of the bootstrap.
    """
    known = [row for row in rows if row.level is not None]
    result: dict[str, dict[str, Agreement]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in known if row.method == method]
        slides = [row.slide for row in own if row.slide is not None]
        whole = slides if own and len(slides) == len(own) else None
        truth = [int(row.level) for row in own if row.level is not None]
        result[method] = {}
        for reading in READINGS:
            read = [int(getattr(row, reading)) for row in own]
            by_slide = None if whole is None else figures(*_per_slide(truth, read, whole), None, seed)
            result[method][reading] = Agreement(figures(truth, read, whole, seed), by_slide)
    return result


def figures(truth: Sequence[int], read: Sequence[int], slides: Sequence[str] | None = None, seed: int = 0) -> Figures:
    """The figures of two equally long sequences of class indices 0 to 3.

    Args:
        truth: known levels.
        read: levels read.
        slides: the slide of each, which the bootstrap draws whole; ``None`` draws one by one.
        seed: of the bootstrap.
    """
    table = confusion(truth, read, LEVELS)
    right, n = int(np.trace(table)), int(table.sum())
    groups = {}
    for name, levels in GROUPS.items():
        inside = np.isin(np.arange(LEVELS), [int(level) for level in levels])
        found, others = table[np.ix_(inside, inside)].sum(), table[np.ix_(~inside, ~inside)].sum()
        groups[name] = GroupFigures(
            wilson_interval(int(found), int(table[inside].sum())),
            wilson_interval(int(others), int(table[~inside].sum())),
        )
    kappa = kappa_interval(truth, read, LEVELS, slides, seed)
    return Figures(n, wilson_interval(right, n), kappa, table.astype(int).tolist(), groups)


def _per_slide(truth: Sequence[int], read: Sequence[int], slides: Sequence[str]) -> tuple[list[int], list[int]]:
    patches: dict[str, list[tuple[int, int]]] = {}
    for slide, known, found in zip(slides, truth, read, strict=True):
        patches.setdefault(slide, []).append((known, found))
    return (
        [_most([known for known, _ in votes]) for votes in patches.values()],
        [_most([found for _, found in votes]) for votes in patches.values()],
    )


def _most(levels: Sequence[int]) -> int:
    counts = Counter(levels)
    return max(counts, key=lambda level: (counts[level], level))
