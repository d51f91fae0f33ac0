"""From figures per image to figures of a split: means with n and an interval, and who beats whom."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.evaluate.stain import Moments, pearson, pearson_of_sums

RESAMPLES = 2000
"""Bootstrap samples behind an interval."""

HEADLINE = ("dab_r16_pooled", "background_de", "psnr", "ssim")
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
        """The leading figures in a few lines, the trivial answers among them."""
        lines = [f"{self.metrics['images']} images of the split '{self.metrics['split']}'; {self.metrics['notice']}"]
        for method, figures in self.metrics["overall"].items():
            shown = []
            for metric in (POOLED, *METRICS):
                value = figures.get(metric.key, {}).get("mean")
                if metric.key in HEADLINE and value is not None:
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


@dataclass(frozen=True, slots=True)
class Metric:
    """One column: its key in files, its heading, and which way is better."""

    key: str
    title: str
    unit: str
    digits: int
    group: Literal["stain", "picture"]
    better: Literal["higher", "lower", "zero"] | None


METRICS = (
    Metric("dab_r16", "DAB r, 16 µm cells", "", 3, "stain", "higher"),
    Metric("dab_mean_virtual", "mean DAB, virtual", "OD", 4, "stain", None),
    Metric("dab_mean_real", "mean DAB, reference", "OD", 4, "stain", None),
    Metric("dab_mean_error", "error of mean DAB", "OD", 4, "stain", "lower"),
    Metric("background_de", "background ΔE₀₀", "", 2, "stain", "lower"),
    Metric("background_db", "background Δb*", "", 2, "stain", "zero"),
    Metric("psnr", "PSNR", "dB", 2, "picture", "higher"),
    Metric("ssim", "SSIM", "", 4, "picture", "higher"),
    Metric("mae", "mean abs. error", "grey levels", 2, "picture", "lower"),
)
"""The figures of an image, in the order of the tables."""

POOLED = Metric("dab_r16_pooled", "DAB r, pooled", "", 3, "stain", "higher")
"""Pearson's r over all cells of all images together."""


_ORDER = ("psnr", "ssim", *(m.key for m in METRICS if m.key not in ("psnr", "ssim")))
CSV_COLUMNS = ("name", "level", "method", *_ORDER, "dab_reference")


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The figures of one method on one image; NaN where a figure is undefined."""

    name: str
    level: str
    method: str
    values: Mapping[str, float]
    moments: Moments
    dab_reference: str

    def flat(self) -> dict[str, Any]:
        """The row of ``per_image.csv``."""
        lead = {"name": self.name, "level": self.level, "method": self.method}
        return lead | {key: self.values[key] for key in _ORDER} | {"dab_reference": self.dab_reference}


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure over ``n`` images with the ends of its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int


def _resample(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, n]).integers(0, n, size=(RESAMPLES, n))


def _interval(value: float, samples: NDArray[np.float64], n: int) -> Interval:
    samples = samples[np.isfinite(samples)]
    if n < 2 or samples.size == 0:
        return Interval(value, math.nan, math.nan, n)
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(value, float(low), float(high), n)


def mean_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean over images with a 95 % percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Values that are not finite are left out, and ``n`` counts those that remain: undefined correlations, and
    the infinite PSNR of identical images. One image has a mean and no interval. Images are drawn as if they
    were independent; those of one slide are not, so that the true interval is wider.
    """
    kept = np.asarray([v for v in values if math.isfinite(v)], dtype=np.float64)
    if kept.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    return _interval(float(kept.mean()), kept[_resample(kept.size, seed)].mean(axis=1), int(kept.size))


def pooled_interval(moments: Sequence[Moments], seed: int = 0) -> Interval:
    """Pearson's r over the cells of all images together; the bootstrap draws whole images, not cells."""
    n = len(moments)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = pearson(sum(moments, Moments()))
    sums = np.array([astuple(m) for m in moments])
    return _interval(value, pearson_of_sums(sums[_resample(n, seed)].sum(axis=1)), n)


def summarise(rows: Sequence[ImageRow], seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Figures per method: ``{method: {metric: Interval}}``, the pooled correlation among them."""
    table: dict[str, dict[str, Interval]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        table[method] = {POOLED.key: pooled_interval([row.moments for row in own], seed)}
        table[method] |= {m.key: mean_interval([row.values[m.key] for row in own], seed) for m in METRICS}
    return table


def compare(rows: Sequence[ImageRow]) -> dict[str, dict[str, dict[str, Any]]]:
    """The model against every other method, image by image, in each metric that has a better side.

    Returns:
        ``{metric: {method: {model, other, beats_model, better_on, n}}}``: both means over the ``n`` images on
        which both are defined, whether the other's mean is the better one, and on how many images it is
        better. The pooled correlation has no ``better_on``.
    """
    by_method: dict[str, dict[str, ImageRow]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.name] = row
    model = by_method.get("model", {})
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for method, own in by_method.items():
        if method == "model":
            continue
        names = [name for name in model if name in own]
        for metric in METRICS:
            if metric.better is None:
                continue
            both = np.array([(model[k].values[metric.key], own[k].values[metric.key]) for k in names])
            both = both[~np.isnan(both).any(axis=1)]
            if both.size == 0:
                continue
            gain = {"higher": both, "lower": -both, "zero": -np.abs(both)}[metric.better]
            shown = np.abs(both) if metric.better == "zero" else both
            result.setdefault(metric.key, {})[method] = {
                "model": float(shown[:, 0].mean()),
                "other": float(shown[:, 1].mean()),
                "beats_model": bool(gain[:, 1].mean() > gain[:, 0].mean()),
                "better_on": int((gain[:, 1] > gain[:, 0]).sum()),
                "n": len(both),
            }
        pooled = [pearson(sum((side[k].moments for k in names), Moments())) for side in (model, own)]
        if names and not any(math.isnan(r) for r in pooled):
            result.setdefault(POOLED.key, {})[method] = {
                "model": pooled[0],
                "other": pooled[1],
                "beats_model": pooled[1] > pooled[0],
                "n": len(names),
            }
    return result


def choose_cases(rows: Sequence[ImageRow]) -> list[tuple[str, str]]:
    """Best, median and worst image of the model by mean absolute error: ``[(case, name), ...]``.

    The median of an even number is the better of the two middle ones; with fewer than three images no image
    is named twice.
    """
    ranked = sorted((row for row in rows if row.method == "model"), key=lambda r: (r.values["mae"], r.name))
    if not ranked:
        return []
    picks = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    if len(ranked) < 3:
        picks = {"best": 0, "worst": 1} if len(ranked) == 2 else {"only": 0}
    return [(case, ranked[index].name) for case, index in picks.items()]


def finite(value: Any) -> Any:
    """``value`` with every number that JSON cannot hold (NaN, infinities) as ``None``, also inside it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
