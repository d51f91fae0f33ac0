"""Figures over images with their intervals, and the verdict on each map in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MEASURES = {
    "pointing": ("pointing game, hit rate", True),
    "inside": ("share of the map on the cause", True),
    "deletion": ("deletion, area", False),
    "insertion": ("insertion, area", True),
    "gap": ("insertion less deletion", True),
}
"""Key, title, and whether more is better."""

DECISIVE = ("inside", "gap")
"""What a map must lead both baseline maps in to be called informative: where it lies, and what happens without it."""

BASELINES = ("random", "edge")
RESAMPLES = 2000


@dataclass(frozen=True)
class Figure:
    """A mean over ``n`` images with the ends of its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float], seed: int = 0) -> Figure:
    """Mean with a 95 % percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13); NaN is left out."""
    kept = np.array([v for v in values if math.isfinite(v)], np.float64)
    n = len(kept)
    if n == 0:
        return Figure(math.nan, math.nan, math.nan, 0)
    if n == 1:
        return Figure(float(kept[0]), math.nan, math.nan, 1)
    draws = np.random.default_rng([seed, n]).integers(0, n, (RESAMPLES, n))
    low, high = np.percentile(kept[draws].mean(axis=1), [2.5, 97.5])
    return Figure(float(kept.mean()), float(low), float(high), n)


def figures_of(rows: Sequence[dict[str, Any]], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Per map and measure the mean over images: ``{map: {measure: Figure as a dict}}``."""
    return {
        name: {key: asdict(interval([row["measures"][name][key] for row in rows], seed)) for key in MEASURES}
        for name in rows[0]["measures"]
    }


def verdicts(rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """What each of the model's maps is worth against the baselines, image by image.

    Per map ``gains``, ``{measure: {baseline map: Figure}}``, how much better it is (more where more is better, less where
    less); ``informative``; and a sentence. Informative needs, in both ``DECISIVE`` measures and against both baseline maps,
    an interval of the paired gain that lies above 0.
    """
    found = []
    maps = list(rows[0]["measures"])
    for name in maps:
        if name in (*BASELINES, "nearness"):
            continue
        gains = {
            key: {
                other: interval(
                    [(1 if more else -1) * (row["measures"][name][key] - row["measures"][other][key]) for row in rows],
                    seed,
                )
                for other in maps
                if other in (*BASELINES, "nearness")
            }
            for key, (_, more) in MEASURES.items()
        }
        failed = [(key, other) for key in DECISIVE for other in BASELINES if not gains[key][other].low > 0]
        found.append(
            {
                "map": name,
                "gains": {k: {o: asdict(f) for o, f in own.items()} for k, own in gains.items()},
                "informative": not failed,
                "sentence": _sentence(name, gains, failed, len(rows)),
            }
        )
    return found


def _sentence(name: str, gains: dict[str, dict[str, Figure]], failed: list[tuple[str, str]], images: int) -> str:
    def shown(key: str, other: str) -> str:
        f = gains[key][other]
        ends = f" ({f.low:+.2f} to {f.high:+.2f})" if math.isfinite(f.low) else ""
        return f"{MEASURES[key][0]} against the {other} map {f.mean:+.2f}{ends}"

    title = name.replace("_", " ")
    if failed:
        words = "; ".join(shown(*f) for f in failed)
        text = f"{title} is uninformative on these {images} images: it does not beat the baseline maps in {words}."
    else:
        words = "; ".join(shown(key, other) for key in DECISIVE for other in BASELINES)
        text = f"{title} is informative on these {images} images: {words}."
    if "nearness" in gains["inside"]:
        lost = [key for key in DECISIVE if not gains[key]["nearness"].low > 0]
        if lost:
            beaten = " and ".join(MEASURES[key][0] for key in lost)
            text += f" It says no more than nearness to the place does in {beaten}."
        else:
            text += " It says more than nearness to the place does."
    return text


def class_table(rows: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Mean over images of each class's share: ``{"columns": [...], "rows": {class: {column: Figure as a dict}}}``.

    A class that an image does not have counts there as 0.
    """
    columns = list(rows[0]["classes"])
    names = list(dict.fromkeys(item["class"] for row in rows for own in row["classes"].values() for item in own))

    def value(row: dict[str, Any], column: str, name: str, key: str) -> float:
        items = row["classes"][column]
        if all(item[key] is None for item in items):
            return math.nan
        return next((float(item[key] or 0.0) for item in items if item["class"] == name), 0.0)

    table = {
        name: {"area": asdict(interval([value(row, columns[0], name, "area") for row in rows], seed))}
        | {c: asdict(interval([value(row, c, name, "share") for row in rows], seed)) for c in columns}
        for name in names
    }
    return {"columns": ["area", *columns], "rows": table}
