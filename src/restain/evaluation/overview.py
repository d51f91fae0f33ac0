"""A report's first screen: what each picture gets right and wrong, and three figures as bars beside their baselines.

All of it is computed from ``metrics.json``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from restain.evaluation.metrics import BY_KEY, POOLED
from restain.evaluation.sentences import GOAL_DE, GOAL_R16, NOTHING
from restain.evaluation.summary import interval_of
from restain.statistics import Interval, wilson_interval

STRENGTH = (0.8, 1.25)
"""Mean DAB of a virtual stain as a share of the reference's, where it counts as right."""

SHARPNESS = (0.5, 2.0)
"""The same of the sharpness ratio."""

AREA = 0.01
"""Largest difference of the stained shares that counts as right where DAB r is undefined."""

WHERE = {
    "model": "model",
    "baseline_he": "hematoxylin",
    "baseline_hematoxylin_smooth": "hematoxylin, smoothed",
    "baseline_density_smooth": "H&E density, smoothed",
    "baseline_linear": "linear colour map",
    "oracle_flat": "flat colour (oracle)",
}
WHITE = {
    "model": "model",
    "baseline_hematoxylin": "hematoxylin as DAB",
    "baseline_linear": "linear colour map",
    "baseline_mean": "training mean colour",
    "oracle_flat": "flat colour (oracle)",
    "baseline_he": "H&E itself",
}
LEVEL = {
    "real": "real IHC (ceiling)",
    "model": "model",
    "baseline_hematoxylin": "hematoxylin as DAB",
    "baseline_mean": "training mean colour",
}
"""Methods of each chart with their titles there, in order."""

READERS = {"classifier": "classifier", "rule": "rule"}


@dataclass(frozen=True, slots=True)
class Words:
    """What is right and what is wrong with a picture, and what is neither."""

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)

    def add(self, is_right: bool, right: str, wrong: str = "") -> None:
        """Say ``right`` if it is, else ``wrong`` (``right`` where both are worded alike)."""
        (self.right if is_right else self.wrong).append(right if is_right else wrong or right)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; places are in percent of the chart's width."""

    title: str
    kind: str
    """Its method, and for a reading by which reader."""
    text: str
    left: float
    width: float
    low: float | None = None
    high: float | None = None
    beyond: bool = False
    """The bar is cut off at the chart's end."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of one figure."""

    title: str
    note: str
    words: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    """Places in percent and their values."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """Vertical lines with their meaning."""


def picture_words(metrics: Mapping[str, Any], name: str) -> dict[str, Words]:
    """The sentences under the pictures ``he``, ``virtual``, ``real`` and ``dab`` of an image."""
    rows = {row["method"]: row for row in metrics["per_image"] if row["name"] == name}
    own = rows["model"]
    return {
        "he": _he_words(own, rows.get("baseline_he")),
        "virtual": _virtual_words(own),
        "real": _real_words(own, metrics.get("real_readings", {}).get(name)),
        "dab": _dab_words(own),
    }


def _he_words(own: Mapping[str, Any], trivial: Mapping[str, Any] | None) -> Words:
    words = Words()
    model, alone = own.get("dab_r16"), None if trivial is None else trivial.get("dab_r16")
    if own.get("level"):
        words.plain.append(f"level of the slide: {own['level']}")
    if model is None or alone is None:
        words.plain.append("no baseline for where DAB is" if trivial is None else "DAB r is undefined in this image")
        return words
    gap = f"DAB r {_number(model, 2)} against {_number(alone, 2)}"
    words.add(
        model > alone, f"the model adds to its hematoxylin ({gap})", f"its hematoxylin alone says as much ({gap})"
    )
    return words


def _virtual_words(own: Mapping[str, Any]) -> Words:
    words = Words()
    seen, smooth, spread = (own.get(f"background_{key}") for key in ("de", "de_smooth", "spread"))
    if seen is not None:
        even = smooth is not None and spread is not None and smooth <= min(GOAL_DE, spread)
        figure, tint = f"ΔE₀₀ {seen:.1f}", "yellower" if (own.get("background_db") or 0) > 0 else "bluer"
        words.add(seen <= GOAL_DE or even, f"background as real ({figure})", f"background off by {figure}, {tint}")
    if (sharp := own.get("sharpness")) is not None:
        low, high = SHARPNESS
        fault = "blurred" if sharp < low else "too rough"
        words.add(
            low <= sharp <= high, f"as sharp as real (ratio {sharp:.1f})", f"{fault} (sharpness ratio {sharp:.1f})"
        )
    _add_readings(words, own.get("level"), {key: own.get(f"reading_{key}") for key in READERS})
    return words


def _real_words(own: Mapping[str, Any], read: Mapping[str, str] | None) -> Words:
    words = Words()
    if (mean := own.get("dab_mean_real")) is not None:
        words.plain.append(f"mean DAB {mean:.3f} OD")
    _add_readings(words, own.get("level"), read or {})
    return words


def _dab_words(own: Mapping[str, Any]) -> Words:
    words = Words()
    r, area = own.get("dab_r16"), own.get("dab_area_virtual")
    if r is not None:
        goal = f"r {_number(r, 2)} per 16 µm cell, goal {GOAL_R16:g}"
        words.add(r >= GOAL_R16, f"where the real DAB is ({goal})", f"not where the real DAB is ({goal})")
        share = own["dab_mean_virtual"] / own["dab_mean_real"]
        words.add(STRENGTH[0] <= share <= STRENGTH[1], f"{share:.0%} of the real strength")
    elif area is not None:
        said = f"{area:.0%} of it stained, {own['dab_area_real']:.0%} of the reference, whose DAB has no pattern"
        words.add(abs(area - own["dab_area_real"]) <= AREA, said)
    return words


def _add_readings(words: Words, level: str | None, read: Mapping[str, str | None]) -> None:
    """What classifier and rule read, right or wrong; neither where the level is not known."""
    by_text: dict[str, list[str]] = {}
    for reader, text in read.items():
        if text:
            by_text.setdefault(text, []).append(reader)
    for text, readers in by_text.items():
        said = f"read as {text} by {' and '.join(readers)}"
        if level:
            words.add(text == level, said, f"{said}, not {level}")
        else:
            words.plain.append(said)


def charts(metrics: Mapping[str, Any]) -> list[Chart]:
    """Where DAB is, how white the background is, and how the HER2 level is read; those of which there are figures."""
    found = (_where(metrics), _white(metrics), _level(metrics) or _like_real(metrics))
    return [chart for chart in found if chart is not None]


def _where(metrics: Mapping[str, Any]) -> Chart | None:
    values = _values(metrics, POOLED.key, WHERE)
    if not values:
        return None
    low = min(0.0, *(v.low for v in values.values() if not math.isnan(v.low)), *(v.mean for v in values.values()))
    bottom = -math.ceil(-low * 5) / 5
    model = values["model"].mean
    goal = f"The goal of {GOAL_R16:g} is {'reached' if model >= GOAL_R16 else 'missed'}."
    return Chart(
        "Is DAB where DAB is?",
        f"DAB r, pooled over all {_cell(metrics)} cells, 1 is perfect",
        f"{_beaten(metrics, POOLED.key, WHERE)} {goal}",
        _bars(values, WHERE, bottom, 1.0, lambda v: _number(v, 2)),
        [(_place(at, bottom, 1.0), _number(at, 1)) for at in (*((bottom,) if bottom < 0 else ()), 0.0, 0.5, 1.0)],
        [(_place(GOAL_R16, bottom, 1.0), f"goal {GOAL_R16:g}")],
    )


def _white(metrics: Mapping[str, Any]) -> Chart | None:
    values = _values(metrics, "background_de", WHITE)
    if not values:
        return None
    shown = [v for method, v in values.items() if method != "baseline_he"] or list(values.values())
    top = max(5.0, math.ceil(max(v.mean if math.isnan(v.high) else v.high for v in shown) / 5) * 5)
    noise = metrics["overall"]["model"].get("background_noise", NOTHING)["mean"]
    marks = [(_place(noise, 0, top), f"noise of the real image {noise:.1f}")] if noise is not None else []
    return Chart(
        "Is the rest white?",
        "background ΔE₀₀, about 1 is just noticeable, 0 is perfect",
        _beaten(metrics, "background_de", WHITE),
        _bars(values, WHITE, 0, top, lambda v: f"{v:.1f}"),
        [(_place(at, 0, top), f"{at:g}") for at in (0, top / 2, top)],
        marks,
    )


def _level(metrics: Mapping[str, Any]) -> Chart | None:
    reading = metrics.get("reading") or {}
    shares = {
        (method, reader): interval_of(reading[method][reader]["patch"]["accuracy"])
        for method in LEVEL
        for reader in READERS
        if method in reading and reading[method][reader]["patch"]["n"]
    }
    if not shares:
        return None
    ceiling = " and ".join(f"{_share(shares['real', reader])} by the {reader}" for reader in READERS)
    return _readings(
        "Is the HER2 level read right?",
        shares,
        f"The real IHC itself is read right on {ceiling}: no stain can do better, except by luck.",
    )


def _like_real(metrics: Mapping[str, Any]) -> Chart | None:
    """Without known levels: how often an image is read like its real one."""
    real = metrics.get("real_readings") or {}
    shares = {}
    for method in LEVEL:
        rows = [row for row in metrics["per_image"] if row["method"] == method and row["name"] in real]
        for reader in READERS:
            same = [
                row[f"reading_{reader}"] == real[row["name"]][reader] for row in rows if row.get(f"reading_{reader}")
            ]
            if same:
                shares[method, reader] = wilson_interval(sum(same), len(same))
    if not shares:
        return None
    words = "The level of these pairs is not known: a bar says how often an image is read like its real IHC."
    return _readings("Is it read like the real IHC?", shares, words)


def _readings(title: str, shares: Mapping[tuple[str, str], Interval], words: str) -> Chart:
    bars = [
        _bar(LEVEL[method] if reader == "classifier" else "", f"{method} {reader}", value, 0, 1, _share(value))
        for (method, reader), value in shares.items()
    ]
    note = "by classifier (upper bar) and HER2 rule (lower bar)"
    return Chart(title, note, words, bars, [(0, "0"), (50, "50 %"), (100, "100 %")])


def _values(metrics: Mapping[str, Any], key: str, methods: Mapping[str, str]) -> dict[str, Interval]:
    found = {method: interval_of(metrics["overall"].get(method, {}).get(key)) for method in methods}
    found = {method: value for method, value in found.items() if not math.isnan(value.mean)}
    return found if "model" in found else {}


def _beaten(metrics: Mapping[str, Any], key: str, methods: Mapping[str, str]) -> str:
    """The best baseline that beats the model, whether that is more than chance, and whether an oracle beats it."""
    contests = {m: line for m, line in metrics["comparison"].get(key, {}).items() if m in methods}
    if not contests:
        return "No baseline was measured."
    metric = BY_KEY[key]
    winners = {m: line for m, line in contests.items() if line["beats_model"]}
    oracle = " The oracle, which has seen the answer, does." if winners.pop("oracle_flat", None) else ""
    if not winners:
        return f"No baseline beats the model.{oracle}"
    best = max(winners, key=lambda m: winners[m]["gain"])
    line = winners[best]
    sure = line["gain_low"] is not None and line["gain_low"] > 0
    return (
        f"The model is beaten by {methods[best]}, {metric.size(line['other'])} against {metric.size(line['model'])}"
        f"{'' if sure else ', which may be chance'}."
    )


def _bars(
    values: Mapping[str, Interval], titles: Mapping[str, str], bottom: float, top: float, text: Callable[[float], str]
) -> list[Bar]:
    return [_bar(titles[method], method, value, bottom, top, text(value.mean)) for method, value in values.items()]


def _bar(title: str, kind: str, value: Interval, bottom: float, top: float, text: str) -> Bar:
    start, end = sorted((_place(min(max(0.0, bottom), top), bottom, top), _place(value.mean, bottom, top)))
    known = not math.isnan(value.low) and value.low < top
    low, high = (_place(value.low, bottom, top), _place(value.high, bottom, top)) if known else (None, None)
    return Bar(title, kind, text, start, round(end - start, 2), low, high, value.mean > top)


def _place(value: float, bottom: float, top: float) -> float:
    return round(100 * (min(max(value, bottom), top) - bottom) / (top - bottom), 2)


def _share(value: Interval) -> str:
    return f"{round(value.mean * value.n)} of {value.n}" if value.n <= 20 else f"{value.mean:.0%}"


def _cell(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['definitions']['cell_um']:g} µm"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def opening(cases: Sequence[Mapping[str, str]]) -> str:
    """The image that a report opens with: the median, else the worst."""
    by_case = {case["case"]: case["name"] for case in cases}
    return by_case.get("median") or by_case.get("worst") or by_case.get("only", "")
