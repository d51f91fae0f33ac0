"""Slides and patients from their fields: level, shares, heterogeneity, and what it would take to change the level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from restain.cohort.entropy import Heterogeneity, heterogeneity
from restain.cohort.field import Counts, FieldReading, doubt
from restain.geometry import Size
from restain.her2 import CELL_SHARE, Her2Level, level_of_counts

_SHARE = Fraction(CELL_SHARE).limit_denominator(1000)


def pooled(readings: Iterable[FieldReading]) -> Counts:
    """All cells of some fields together."""
    zero, one, two, three = np.sum([(0, 0, 0, 0), *(reading.cells for reading in readings)], axis=0).tolist()
    return zero, one, two, three


def areas(readings: Iterable[FieldReading]) -> NDArray[np.float64]:
    """Tissue in mm² that is read at each level (:attr:`FieldReading.areas`), ``(4,)``."""
    rows = [reading.areas for reading in readings]
    return np.array(rows, np.float64).reshape(-1, len(Her2Level)).sum(axis=0)


@dataclass(frozen=True)
class SlideReading:
    """A slide that was read. ``left_out_mm2`` is tissue in fields with too little of it."""

    slide: str
    patient: str
    block: str
    fields: tuple[FieldReading, ...]
    left_out_mm2: float = 0.0
    links: dict[str, str] = field(default_factory=dict)
    """Pictures and files by what they are, as links from the page."""
    notes: tuple[str, ...] = ()
    """What was wrong with the slide, in sentences."""
    size: Size | None = None
    """Of the stained slide in px, for maps of its fields."""

    @property
    def cells(self) -> Counts:
        return pooled(self.fields)

    @property
    def level(self) -> Her2Level:
        """The rule applied to all cells of the slide, as the guideline wants it."""
        return level_of_counts(self.cells)

    @property
    def doubt(self) -> float:
        return doubt(self.cells)

    @property
    def areas(self) -> NDArray[np.float64]:
        return areas(self.fields)

    @property
    def tissue_mm2(self) -> float:
        return float(self.areas.sum())


@dataclass(frozen=True, slots=True)
class Change:
    """The fewest fields without which the pooled level is another: ``(slide, field)`` each, the strongest first."""

    fields: tuple[tuple[SlideReading, FieldReading], ...]
    to: Her2Level


@dataclass(frozen=True)
class PatientReading:
    """All slides of a patient."""

    patient: str
    slides: tuple[SlideReading, ...]

    @property
    def cells(self) -> Counts:
        return pooled(reading for slide in self.slides for reading in slide.fields)

    @property
    def level(self) -> Her2Level:
        """The rule applied to the cells of all slides together."""
        return level_of_counts(self.cells)

    @property
    def highest(self) -> Her2Level:
        """The highest level of a slide: a small part of high level is lost among the cells of all slides."""
        return max((slide.level for slide in self.slides), default=Her2Level.ZERO)

    @property
    def doubt(self) -> float:
        return doubt(self.cells)

    @property
    def areas(self) -> NDArray[np.float64]:
        return areas(reading for slide in self.slides for reading in slide.fields)

    @property
    def shares(self) -> dict[Her2Level, float]:
        """Share of the tissue's area that is read at each level; they add up to 1, or are all 0 without tissue."""
        area = self.areas
        total = max(float(area.sum()), 1e-12)
        return {level: float(area[level]) / total for level in Her2Level}

    @property
    def blocks(self) -> dict[str, list[SlideReading]]:
        """Slides by block, in order of their names."""
        names = sorted({slide.block for slide in self.slides})
        return {name: [slide for slide in self.slides if slide.block == name] for name in names}

    @property
    def heterogeneity(self) -> Heterogeneity:
        """Within and between blocks; slides of one block are taken together."""
        return heterogeneity([np.sum([slide.areas for slide in slides], axis=0) for slides in self.blocks.values()])

    @property
    def change(self) -> Change | None:
        return what_would_change(self.slides)


def what_would_change(slides: Sequence[SlideReading]) -> Change | None:
    """The fewest fields whose removal changes the level of all cells together; None where no removal does.

    Where it is one field, it is *the* field that decides the reading, and the place to look at. The level is at least L
    where ``sum(a - n / 10) > 0`` over fields of ``n`` cells, ``a`` of which show the pattern of L or more. That sum is
    additive, so the fields with the greatest terms, taken in order until it is not positive, are the fewest that lower the
    level; those with the least terms, until the sum for the next level is positive, the fewest that raise it. Of the two the
    shorter is given, the lowering one where they are alike. At least one field with cells always stays.
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
    chosen = min(found, key=len)
    gone = {id(reading) for _, reading in chosen}
    return Change(chosen, level_of_counts(pooled(reading for _, reading in places if id(reading) not in gone)))


def _fewest(
    places: list[tuple[SlideReading, FieldReading]], level: Her2Level, *, lower: bool
) -> tuple[tuple[SlideReading, FieldReading], ...] | None:
    def term(place: tuple[SlideReading, FieldReading]) -> int:
        cells = place[1].cells
        return sum(cells[level:]) * _SHARE.denominator - sum(cells) * _SHARE.numerator

    # Ties by what a field holds and where it lies, so that the order of the slides does not matter.
    ordered = sorted(
        places,
        key=lambda place: (-term(place) if lower else term(place), place[0].slide, place[1].row, place[1].column),
    )
    left = sum(map(term, places))
    for count, gone in enumerate(accumulate(map(term, ordered[:-1])), start=1):
        if (left - gone > 0) != lower:
            return tuple(ordered[:count])
    return None
