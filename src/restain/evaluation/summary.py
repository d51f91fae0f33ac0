"""From figures per image to figures of a split: means with n and an interval."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError
from restain.evaluation.catalogue import BY_KEY, METRICS, SPLIT_METRICS
from restain.evaluation.stain import Moments, pearson, pearson_of_sums
from restain.statistics import Interval, mean_interval, percentile_interval, resample

HEADLINE = ("dab_r16_pooled", "background_de", "completeness_error", "psnr", "ssim", "sharpness")
"""Figures that are told on the command line; all are in ``metrics.json`` and the report."""


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """A finished evaluation: its folder and what ``metrics.json`` there holds."""

    out: Path
    metrics: dict[str, Any]

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.out / "report.html"

    def describe(self) -> str:
        """The leading figures in a few lines, the baselines among them."""
        lines = [f"{self.metrics['images']} images of the split '{self.metrics['split']}'; {self.metrics['notice']}"]
        for method, figures in self.metrics["overall"].items():
            shown = []
            for key in HEADLINE:
                metric, value = BY_KEY[key], figures.get(key, {}).get("mean")
                if value is not None:
                    shown.append(f"{metric.title} {value:.{metric.digits}f}")
            lines.append(f"{method}: {', '.join(shown)}")
        lines += [f"{method}: absent ({reason})" for method, reason in self.metrics["absent"].items()]
        return "\n".join(lines)

    def mean(self, metric: str, method: str = "model") -> float | None:
        """A figure over all images of the split; ``None`` where it is undefined or the method is absent."""
        value: float | None = self.metrics["overall"].get(method, {}).get(metric, {}).get("mean")
        return value


def load_summary(out: Path) -> EvaluationSummary:
    """Read a finished evaluation back from its folder.

    Raises:
        RestainError: if the folder holds no readable ``metrics.json``.
    """
    path = out / "metrics.json"
    try:
        return EvaluationSummary(out, json.loads(path.read_text(encoding="utf-8")))
    except OSError as fault:
        raise RestainError(f"{path} cannot be read ({fault.strerror}).") from None
    except ValueError:
        raise RestainError(f"{path} is not JSON.") from None


_ORDER = ("psnr", "ssim", *(m.key for m in METRICS if m.key not in ("psnr", "ssim")))
_LAST = ("reading_classifier", "reading_rule", "slide", "dab_reference")
CSV_COLUMNS = ("name", "level", "method", *_ORDER, *_LAST)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The figures of one method on one image; NaN where a figure is undefined."""

    name: str
    level: str
    method: str
    values: Mapping[str, float]
    """By the keys of :data:`restain.evaluation.catalogue.METRICS`; a key that is not there is undefined."""
    moments: Mapping[str, Moments]
    """Sums by the keys of :data:`restain.evaluation.catalogue.SPLIT_METRICS`."""
    dab_reference: str
    slide: str = ""
    reading_classifier: str = ""
    """The HER2 level that the classifier reads, as text; empty where nothing was read."""
    reading_rule: str = ""

    def value(self, key: str) -> float:
        """A figure; NaN where it is undefined."""
        return self.values.get(key, math.nan)

    def flat(self) -> dict[str, Any]:
        """The row of ``per_image.csv``."""
        lead = {"name": self.name, "level": self.level, "method": self.method}
        return lead | {key: self.value(key) for key in _ORDER} | {key: getattr(self, key) for key in _LAST}


def pooled_interval(moments: Sequence[Moments], seed: int = 0) -> Interval:
    """Pearson's r over the cells of all images together; the bootstrap draws whole images, not cells."""
    n = len(moments)
    if n == 0:
        return Interval(math.nan)
    value = pearson(sum(moments, Moments()))
    sums = np.array([astuple(m) for m in moments])
    return percentile_interval(value, pearson_of_sums(sums[resample(n, seed)].sum(axis=1)), n)


def _moments(rows: Sequence[ImageRow], key: str) -> list[Moments]:
    return [row.moments.get(key, Moments()) for row in rows]


def summarise(rows: Sequence[ImageRow], seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Figures per method: ``{method: {metric: Interval}}``, the correlations of the split among them."""
    table: dict[str, dict[str, Interval]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        table[method] = {m.key: pooled_interval(_moments(own, m.key), seed) for m in SPLIT_METRICS}
        table[method] |= {m.key: mean_interval([row.value(m.key) for row in own], seed) for m in METRICS}
    return table


def choose_cases(rows: Sequence[ImageRow]) -> list[tuple[str, str]]:
    """Best, median and worst image of the model by mean absolute error: ``[(case, name), ...]``.

    The median of an even number is the better of the two middle ones; with fewer than three images no image
    is named twice.
    """
    ranked = sorted((row for row in rows if row.method == "model"), key=lambda r: (r.value("mae"), r.name))
    if not ranked:
        return []
    picks = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    if len(ranked) < 3:
        picks = {"best": 0, "worst": 1} if len(ranked) == 2 else {"only": 0}
    return [(case, ranked[index].name) for case, index in picks.items()]
