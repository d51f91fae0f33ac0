"""Figures over images with their intervals, and whether a map is informative beside baseline maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from restain.explain.classes import ClassShare
from restain.statistics import Interval, mean_interval

MEASURES = {
    "pointing": ("pointing game, hit rate", True),
    "inside": ("share of the map on the cause", True),
    "deletion": ("deletion, area", False),
    "insertion": ("insertion, area", True),
    "gap": ("insertion less deletion", True),
}
"""Key, title, and whether more is better."""
DECISIVE = ("inside", "gap")
"""Measures in which an informative map exceeds both of ``BASELINE_MAPS``."""
BASELINE_MAPS = ("random", "edge")
NEARNESS = "nearness"
"""A third baseline map, of a place; it does not count for ``informative``."""

Measures = Mapping[str, float]
"""Value by key of ``MEASURES``."""


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of a map with the baseline maps, image by image.

    ``gains`` is ``{measure: {baseline map: Interval}}``, positive where the map is better. An informative map has, in both
    ``DECISIVE`` measures and against both ``BASELINE_MAPS``, an interval above 0.
    """

    map: str
    images: int
    gains: dict[str, dict[str, Interval]]
    informative: bool

    @property
    def sentence(self) -> str:
        """The result in one or two sentences."""
        title, on = self.map.replace("_", " "), f"on these {self.images} images"
        pairs = [(key, other) for key in DECISIVE for other in BASELINE_MAPS]
        if self.informative:
            text = f"{title} is informative {on}: {self._shown(pairs)}."
        else:
            failed = self._shown([(key, other) for key, other in pairs if not self.gains[key][other].low > 0])
            text = f"{title} is uninformative {on}: it does not exceed the baseline maps in {failed}."
        if NEARNESS in self.gains["inside"]:
            lost = " and ".join(MEASURES[key][0] for key in DECISIVE if not self.gains[key][NEARNESS].low > 0)
            text += f" It says no more than nearness to the place does in {lost}." if lost else ""
            text += "" if lost else " It says more than nearness to the place does."
        return text

    def _shown(self, pairs: Sequence[tuple[str, str]]) -> str:
        def one(key: str, other: str) -> str:
            gain = self.gains[key][other]
            ends = f" ({gain.low:+.2f} to {gain.high:+.2f})" if math.isfinite(gain.low) else ""
            return f"{MEASURES[key][0]} against the {other} map {gain.mean:+.2f}{ends}"

        return "; ".join(one(key, other) for key, other in pairs)


def mean_figures(rows: Sequence[Mapping[str, Measures]], seed: int) -> dict[str, dict[str, Interval]]:
    """Per map and measure the mean over images; ``rows`` has one ``{map: Measures}`` per image."""
    return {name: {key: mean_interval([row[name][key] for row in rows], seed) for key in MEASURES} for name in rows[0]}


def comparisons(rows: Sequence[Mapping[str, Measures]], seed: int) -> list[Comparison]:
    """Comparison of each map of the model with the baseline maps; ``rows`` as in :func:`mean_figures`."""
    others = [name for name in rows[0] if name in (*BASELINE_MAPS, NEARNESS)]

    def gain(name: str, other: str, key: str) -> Interval:
        sign = 1 if MEASURES[key][1] else -1
        return mean_interval([sign * (row[name][key] - row[other][key]) for row in rows], seed)

    found = []
    for name in rows[0]:
        if name not in others:
            gains = {key: {other: gain(name, other, key) for other in others} for key in MEASURES}
            informative = all(gains[key][other].low > 0 for key in DECISIVE for other in BASELINE_MAPS)
            found.append(Comparison(name, len(rows), gains, informative))
    return found


@dataclass(frozen=True)
class ClassTable:
    """Mean over images of each class's share of each map: ``rows`` is ``{class: {column: Interval}}``."""

    columns: list[str]
    rows: dict[str, dict[str, Interval]]


def class_table(rows: Sequence[Mapping[str, Sequence[ClassShare]]], seed: int) -> ClassTable:
    """Table of ``{map: class shares}`` per image; a class that an image does not have counts there as 0."""
    maps = list(rows[0])
    names = list(dict.fromkeys(item.name for row in rows for own in row.values() for item in own))

    def value(items: Sequence[ClassShare], name: str, key: str) -> float:
        if all(getattr(item, key) is None for item in items):
            return math.nan
        return next((float(getattr(item, key) or 0.0) for item in items if item.name == name), 0.0)

    def mean(column: str, name: str, key: str) -> Interval:
        return mean_interval([value(row[column], name, key) for row in rows], seed)

    table = {name: {"area": mean(maps[0], name, "area")} | {m: mean(m, name, "share") for m in maps} for name in names}
    return ClassTable(["area", *maps], table)
