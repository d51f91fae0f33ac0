"""Slides and patients from their fields: level, area shares with intervals, heterogeneity, and the decisive fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from restain.cohort.field import Counts, FieldReading, Scored
from restain.cohort.heterogeneity import Heterogeneity, heterogeneity
from restain.geometry import Size
from restain.her2 import CELL_SHARE, Her2Level, Her2Zero, level_of_counts
from restain.statistics import Interval, percentile_interval, resample

BLOCK = 2
"""Side of the blocks that the bootstrap draws, in fields: neighbouring fields are not independent."""
_SHARE = Fraction(CELL_SHARE).limit_denominator(1000)


def pooled(readings: Iterable[FieldReading]) -> Counts:
    """Cell counts of all fields together."""
    zero, one, two, three = np.sum([(0, 0, 0, 0), *(reading.cells for reading in readings)], axis=0).tolist()
    return zero, one, two, three


@dataclass(frozen=True)
class Shares:
    """Shares of the tissue area with 95 % intervals; the levels add up to 1, and ``zero`` to the share of level 0."""

    levels: dict[Her2Level, Interval]
    zero: dict[Her2Zero, Interval]


def area_shares(fields: Sequence[tuple[str, FieldReading]], seed: int = 0) -> Shares:
    """Area shares of fields, each given with its slide; all 0 without tissue.

    Intervals are percentile bootstrap intervals over blocks of ``BLOCK`` x ``BLOCK`` neighbouring fields of a slide (Lahiri,
    *Resampling Methods for Dependent Data*, 2003). They say how far the shares would differ in other places of the same
    tissue, not whether the stain is right.
    """
    blocks: dict[tuple[str, int, int], NDArray[np.float64]] = {}
    for slide, one in fields:
        key = (slide, one.row // BLOCK, one.column // BLOCK)
        blocks[key] = blocks.get(key, 0) + np.array([*one.areas, one.null_mm2, one.areas[0] - one.null_mm2])
    area = np.array(list(blocks.values())).reshape(-1, len(Her2Level) + len(Her2Zero))

    def shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return sums / np.maximum(sums[..., : len(Her2Level)].sum(axis=-1, keepdims=True), 1e-12)

    values = shares(area.sum(axis=0))
    samples = shares(area[resample(len(area), seed)].sum(axis=1)) if len(area) else np.empty((0, area.shape[1]))
    found = [
        percentile_interval(float(value), samples[:, column], len(fields), len(area))
        for column, value in enumerate(values)
    ]
    return Shares(dict(zip(Her2Level, found, strict=False)), dict(zip(Her2Zero, found[len(Her2Level) :], strict=True)))


class _Pooled(Scored, ABC):
    """What follows from the cells and areas of several fields."""

    @abstractmethod
    def readings(self) -> list[FieldReading]: ...

    @property
    def cells(self) -> Counts:
        return pooled(self.readings())

    @property
    def areas(self) -> NDArray[np.float64]:
        """Tissue in mm² at each level (:attr:`FieldReading.areas`), ``(4,)``."""
        rows = [reading.areas for reading in self.readings()]
        return np.array(rows, np.float64).reshape(-1, len(Her2Level)).sum(axis=0)

    @property
    def tissue_mm2(self) -> float:
        return float(self.areas.sum())


@dataclass(frozen=True)
class SlideReading(_Pooled):
    """One slide. ``left_out_mm2`` is tissue in fields with too little of it."""

    slide: str
    patient: str
    block: str
    fields: tuple[FieldReading, ...]
    left_out_mm2: float = 0.0
    links: dict[str, str] = field(default_factory=dict)
    """Links from the page to pictures and files, by kind."""
    notes: tuple[str, ...] = ()
    """Faults of the slide, as sentences."""
    size: Size | None = None
    """Size of the stained slide in px, for maps of its fields."""

    def readings(self) -> list[FieldReading]:
        return list(self.fields)


@dataclass(frozen=True, slots=True)
class DecisiveFields:
    """The fewest fields without which the pooled level becomes ``level``; the strongest first."""

    fields: tuple[tuple[SlideReading, FieldReading], ...]
    level: Her2Level


@dataclass(frozen=True)
class PatientReading(_Pooled):
    """All slides of a patient."""

    patient: str
    slides: tuple[SlideReading, ...]

    def readings(self) -> list[FieldReading]:
        return [reading for slide in self.slides for reading in slide.fields]

    @property
    def highest(self) -> Her2Level:
        """The highest level of a slide; a small area of high level is lost among the cells of all slides."""
        return max((slide.level for slide in self.slides), default=Her2Level.ZERO)

    @property
    def shares(self) -> Shares:
        """Shares of the tissue area per level; see :func:`area_shares`."""
        return area_shares([(slide.slide, reading) for slide in self.slides for reading in slide.fields])

    @property
    def blocks(self) -> dict[str, list[SlideReading]]:
        """Slides by block, in order of name."""
        names = sorted({slide.block for slide in self.slides})
        return {name: [slide for slide in self.slides if slide.block == name] for name in names}

    @property
    def heterogeneity(self) -> Heterogeneity:
        """Within and between blocks; slides of one block are pooled."""
        return heterogeneity([np.sum([slide.areas for slide in slides], axis=0) for slides in self.blocks.values()])


def decisive_fields(slides: Sequence[SlideReading]) -> DecisiveFields | None:
    """The fewest fields whose removal changes the level of all cells together; None if no removal does.

    The level is at least L if ``sum(a - n / 10) > 0`` over fields of ``n`` cells, ``a`` of which show the pattern of L or
    more. The sum is additive: removing the fields with the greatest terms until it is not positive is the smallest set
    that lowers the level; removing the least terms until the sum for the next level is positive, the smallest that
    raises it. The smaller set is returned, the lowering one if equal. At least one field with cells stays.
    """
    places = [(slide, reading) for slide in slides for reading in slide.fields if sum(reading.cells)]
    level = level_of_counts(pooled(reading for _, reading in places))
    options = []
    if level > Her2Level.ZERO:
        options.append(_fewest(places, level, lower=True))
    if level < Her2Level.THREE:
        options.append(_fewest(places, Her2Level(level + 1), lower=False))
    found = [option for option in options if option is not None]
    if not found:
        return None
    fewest = min(found, key=len)
    removed = {id(reading) for _, reading in fewest}
    left = pooled(reading for _, reading in places if id(reading) not in removed)
    return DecisiveFields(fewest, level_of_counts(left))


def _fewest(
    places: list[tuple[SlideReading, FieldReading]], level: Her2Level, *, lower: bool
) -> tuple[tuple[SlideReading, FieldReading], ...] | None:
    def term(place: tuple[SlideReading, FieldReading]) -> int:
        cells = place[1].cells
        return sum(cells[level:]) * _SHARE.denominator - sum(cells) * _SHARE.numerator

    # Ties are broken by content and place, so that the order of the slides does not matter.
    ordered = sorted(
        places,
        key=lambda place: (-term(place) if lower else term(place), place[0].slide, place[1].row, place[1].column),
    )
    left = sum(map(term, places))
    for count, removed in enumerate(accumulate(map(term, ordered[:-1])), start=1):
        if (left - removed > 0) != lower:
            return tuple(ordered[:count])
    return None
