"""A finished evaluation: rows per image and method, their means with intervals, and what beats the model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restain.errors import RestainError
from restain.evaluation.metrics import BY_KEY, COLUMNS, METRICS, SPLIT_METRICS, Metric, score
from restain.evaluation.stain import Moments, pearson, pearson_of_sums
from restain.statistics import Interval, mean_interval, percentile_interval, resample

if TYPE_CHECKING:
    import pandas

HEADLINE = ("dab_r16_pooled", "background_de", "completeness_error", "psnr", "ssim", "sharpness")
"""Metrics that :meth:`Evaluation.describe` gives."""

FLAT = ("baseline_mean", "oracle_flat")
"""Methods of one colour."""

BLUR = ("blurred_model",)
"""The model's own answer without its detail."""

SHOWN = 12
"""Most images that a report shows large."""

CASE_RULE = "DAB r over 16 µm cells; images in which it is undefined come last, by mean absolute RGB error"
"""How images are ranked, in words."""

_ORDER = ("psnr", "ssim", *(m.key for m in METRICS if m.key not in ("psnr", "ssim")))
_LAST = ("reading_classifier", "reading_rule", "slide", "dab_reference")
CSV_COLUMNS = ("name", "level", "method", *_ORDER, *_LAST)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished evaluation."""

    out: Path | None
    """Its folder; None where no files were kept."""
    metrics: dict[str, Any]
    """The content of ``metrics.json``."""

    @property
    def folder(self) -> Path:
        """The folder of the files.

        Raises:
            RestainError: if no files were kept.
        """
        if self.out is None:
            raise RestainError("No files of this evaluation were kept; give a folder as 'out'.")
        return self.out

    @property
    def report(self) -> Path:
        """The HTML report; raises as :attr:`folder`."""
        return self.folder / "report.html"

    @property
    def summary(self) -> dict[str, dict[str, Interval]]:
        """Means over the images with their intervals: ``{method: {metric: Interval}}``."""
        return {
            method: {key: interval_of(value) for key, value in line.items()}
            for method, line in self.metrics["overall"].items()
        }

    def to_pandas(self) -> pandas.DataFrame:
        """One row per image and method, with the columns of ``per_image.csv``.

        Raises:
            RestainError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise RestainError("to_pandas needs pandas; install it with 'pip install pandas'.") from None
        return pandas.DataFrame(self.metrics["per_image"], columns=list(CSV_COLUMNS))

    def describe(self) -> str:
        """The leading figures of the model and the baselines in a few lines."""
        lines = [f"{self.metrics['images']} images of the split '{self.metrics['split']}'; {self.metrics['notice']}"]
        for method, figures in self.metrics["overall"].items():
            means = {key: figures.get(key, {}).get("mean") for key in HEADLINE}
            shown = [f"{BY_KEY[k].title} {v:.{BY_KEY[k].digits}f}" for k, v in means.items() if v is not None]
            lines.append(f"{method}: {', '.join(shown)}")
        lines += [f"{method}: absent ({reason})" for method, reason in self.metrics["absent"].items()]
        return "\n".join(lines)

    def mean(self, metric: str, method: str = "model") -> float | None:
        """A figure over all images; None where it is undefined or the method is absent."""
        value: float | None = self.metrics["overall"].get(method, {}).get(metric, {}).get("mean")
        return value


def interval_of(stored: Mapping[str, Any] | None) -> Interval:
    """An interval from JSON; NaN where it is None or missing."""
    given = stored or {}
    mean, low, high = (math.nan if given.get(key) is None else float(given[key]) for key in ("mean", "low", "high"))
    return Interval(mean, low, high, given.get("n") or 0)


def load_evaluation(out: Path) -> Evaluation:
    """Read a finished evaluation back from its folder.

    Raises:
        RestainError: if the folder holds no readable ``metrics.json``.
    """
    path = out / "metrics.json"
    try:
        return Evaluation(out, json.loads(path.read_text(encoding="utf-8")))
    except OSError as fault:
        raise RestainError(f"{path} cannot be read ({fault.strerror}).") from None
    except ValueError:
        raise RestainError(f"{path} is not JSON.") from None


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The figures of one method on one image."""

    name: str
    level: str
    method: str
    values: Mapping[str, float]
    """By the keys of ``metrics.METRICS``; a missing key is undefined."""
    moments: Mapping[str, Moments]
    """Sums by the keys of ``metrics.SPLIT_METRICS``."""
    dab_reference: str
    slide: str = ""
    reading_classifier: str = ""
    """HER2 level by the classifier; empty where nothing was read."""
    reading_rule: str = ""

    def value(self, key: str) -> float:
        """A figure; NaN where it is undefined."""
        return self.values.get(key, math.nan)

    def flat(self) -> dict[str, Any]:
        """The row of ``per_image.csv``."""
        lead = {"name": self.name, "level": self.level, "method": self.method}
        return lead | {key: self.value(key) for key in _ORDER} | {key: getattr(self, key) for key in _LAST}


def pooled_interval(moments: Sequence[Moments], seed: int = 0) -> Interval:
    """Pearson's r over the cells of all images together; the bootstrap draws whole images."""
    n = len(moments)
    if n == 0:
        return Interval(math.nan)
    sums = np.array([astuple(m) for m in moments])
    value = pearson(sum(moments, Moments()))
    return percentile_interval(value, pearson_of_sums(sums[resample(n, seed)].sum(axis=1)), n)


def summarise(rows: Sequence[ImageRow], seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Figures per method, the correlations of the split among them: ``{method: {metric: Interval}}``."""
    table: dict[str, dict[str, Interval]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        pooled = {m.key: [row.moments.get(m.key, Moments()) for row in own] for m in SPLIT_METRICS}
        table[method] = {key: pooled_interval(moments, seed) for key, moments in pooled.items()}
        table[method] |= {m.key: mean_interval([row.value(m.key) for row in own], seed) for m in METRICS}
    return table


def choose_cases(rows: Sequence[ImageRow]) -> list[tuple[str, str]]:
    """Images of the model that a report shows large, from best to worst: ``[(case, name), ...]``.

    They are ranked by ``CASE_RULE``: all of at most ``SHOWN`` images, else ``SHOWN`` evenly spaced ranks, the first, the
    median and the last among them. ``case`` is ``best``, ``median``, ``worst``, ``only`` or empty. The median is that of the
    images with a defined DAB r (of all where there is none); of an even number, the worse of the two middle ones.
    """
    own = [row for row in rows if row.method == "model"]
    defined = sum(not math.isnan(row.value("dab_r16")) for row in own)
    ranked = sorted(own, key=lambda r: (-np.nan_to_num(r.value("dab_r16"), nan=-math.inf), r.value("mae"), r.name))
    if not ranked:
        return []
    last, middle = len(ranked) - 1, (defined or len(ranked)) // 2
    words = {0: "only" if last == 0 else "best"} | ({last: "worst"} if last > 0 else {})
    if last > 1:
        words[middle] = "median"
    chosen = {round(rank) for rank in np.linspace(0, last, min(SHOWN, len(ranked)))}
    if not set(words) <= chosen:
        chosen = chosen - {min(chosen - {0, last}, key=lambda rank: abs(rank - middle))} | {middle}
    return [(words.get(rank, ""), ranked[rank].name) for rank in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class Contest:
    """Another method against the model in one metric, on the ``n`` images where both are defined."""

    model: float
    other: float
    """Means; of the distance from 0 where 0 is best."""
    beats_model: bool
    n: int
    gain: float
    """Mean paired gain of the other over the model; positive where the other is better."""
    gain_low: float
    gain_high: float
    better_on: int | None
    """Images on which the other is better; None for correlations of the split."""

    @property
    def verdict(self) -> str:
        """``wins`` or ``loses`` where the gain's interval excludes 0, else ``draws``."""
        low, high = (self.gain, self.gain) if math.isnan(self.gain_low) else (self.gain_low, self.gain_high)
        return "wins" if low > 0 else "loses" if high < 0 else "draws"


def compare_methods(rows: Sequence[ImageRow], seed: int = 0) -> dict[str, dict[str, Contest]]:
    """Every other method against the model in each metric with a better side: ``{metric: {method: Contest}}``."""
    by_method: dict[str, dict[str, ImageRow]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.name] = row
    model = by_method.pop("model", {})
    result: dict[str, dict[str, Contest]] = {}
    for method, own in by_method.items():
        pairs = [(model[name], own[name]) for name in model if name in own]
        for metric in (*METRICS, *SPLIT_METRICS):
            found = _pooled_contest if metric in SPLIT_METRICS else _contest
            if (contest := found(metric, pairs, seed)) is not None:
                result.setdefault(metric.key, {})[method] = contest
    return result


def _contest(metric: Metric, pairs: Sequence[tuple[ImageRow, ImageRow]], seed: int) -> Contest | None:
    if metric.better is None:
        return None
    both = np.array([(a.value(metric.key), b.value(metric.key)) for a, b in pairs]).reshape(-1, 2)
    both = both[~np.isnan(both).any(axis=1)]
    if both.size == 0:
        return None
    turned = score(both, metric.better)
    with np.errstate(invalid="ignore"):  # two infinite PSNRs: no gain
        gain = mean_interval(turned[:, 1] - turned[:, 0], seed)
    model, other = (np.abs(both) if metric.better == "zero" else both).mean(axis=0).tolist()
    beats = bool(turned[:, 1].mean() > turned[:, 0].mean())
    better_on = int((turned[:, 1] > turned[:, 0]).sum())
    return Contest(model, other, beats, len(both), gain.mean, gain.low, gain.high, better_on)


def _pooled_contest(metric: Metric, pairs: Sequence[tuple[ImageRow, ImageRow]], seed: int) -> Contest | None:
    """The same for a correlation of the split: the bootstrap draws the same images for both."""
    if not pairs:
        return None
    model, other = (
        np.array([astuple(pair[side].moments.get(metric.key, Moments())) for pair in pairs]) for side in (0, 1)
    )
    r_model, r_other = (float(pearson_of_sums(sums.sum(axis=0))) for sums in (model, other))
    if math.isnan(r_model) or math.isnan(r_other):
        return None
    drawn = resample(len(pairs), seed)
    gains = pearson_of_sums(other[drawn].sum(axis=1)) - pearson_of_sums(model[drawn].sum(axis=1))
    gain = percentile_interval(r_other - r_model, gains, len(pairs))
    return Contest(r_model, r_other, r_other > r_model, len(pairs), gain.mean, gain.low, gain.high, None)


def win_table(comparison: Mapping[str, Mapping[str, Contest]]) -> list[dict[str, Any]]:
    """Which metrics a flat colour or a blur wins against the model, in the order of the tables.

    Returns:
        A row per metric, ``{metric, title, flat, blur}``; ``flat`` and ``blur`` are None without such a figure, else the
        strongest contest with its ``method`` and ``verdict``.
    """
    rows = []
    for metric in COLUMNS:
        contests = comparison.get(metric.key, {})
        row: dict[str, Any] = {"metric": metric.key, "title": metric.title}
        for name, methods in (("flat", FLAT), ("blur", BLUR)):
            row[name] = _strongest(metric, {method: contests[method] for method in methods if method in contests})
        if row["flat"] or row["blur"]:
            rows.append(row)
    return rows


def _strongest(metric: Metric, contests: Mapping[str, Contest]) -> dict[str, Any] | None:
    if not contests or metric.better is None:
        return None
    better = metric.better
    method = max(contests, key=lambda m: (contests[m].beats_model, float(score([contests[m].other], better)[0])))
    best = contests[method]
    kept = {key: value for key, value in asdict(best).items() if key in ("model", "other", "better_on", "n")}
    return {"verdict": best.verdict, "method": method, **kept}
