"""Who beats the model in what, and therefore which figures are no evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from restain.evaluation.catalogue import COLUMNS, METRICS, SPLIT_METRICS, Metric, merit
from restain.evaluation.stain import Moments, pearson_of_sums
from restain.evaluation.summary import ImageRow
from restain.statistics import mean_interval, resample

FLAT = ("baseline_mean", "oracle_flat")
"""Answers of one colour."""

BLUR = ("blurred_model",)
"""The model's own answer without its detail."""


def compare(rows: Sequence[ImageRow], seed: int = 0) -> dict[str, dict[str, dict[str, Any]]]:
    """The model against every other method, image by image, in each metric that has a better side.

    Returns:
        ``{metric: {method: {model, other, beats_model, better_on, n, gain, gain_low, gain_high}}}``: both means over
        the ``n`` images on which both are defined, whether the other's is better by mean, on how many images it is
        better, and the mean of the paired gain of the other over the model (positive: the other is better; of the
        logarithm for a ratio) with its 95 % interval. Correlations of the split have no ``better_on``.
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
            line = _against(metric, [(model[k], own[k]) for k in names], seed)
            if line:
                result.setdefault(metric.key, {})[method] = line
        for metric in SPLIT_METRICS:
            line = _against_pooled(metric, [(model[k], own[k]) for k in names], seed)
            if line:
                result.setdefault(metric.key, {})[method] = line
    return result


def _against(metric: Metric, pairs: Sequence[tuple[ImageRow, ImageRow]], seed: int) -> dict[str, Any] | None:
    if metric.better is None:
        return None
    both = np.array([(a.value(metric.key), b.value(metric.key)) for a, b in pairs]).reshape(-1, 2)
    both = both[~np.isnan(both).any(axis=1)]
    if both.size == 0:
        return None
    turned = merit(both, metric.better)
    with np.errstate(invalid="ignore"):  # two infinite PSNRs: no gain
        gain = mean_interval((turned[:, 1] - turned[:, 0]).tolist(), seed)
    shown = np.abs(both) if metric.better == "zero" else both
    return {
        "model": float(shown[:, 0].mean()),
        "other": float(shown[:, 1].mean()),
        "beats_model": bool(turned[:, 1].mean() > turned[:, 0].mean()),
        "better_on": int((turned[:, 1] > turned[:, 0]).sum()),
        "n": len(both),
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }


def _against_pooled(metric: Metric, pairs: Sequence[tuple[ImageRow, ImageRow]], seed: int) -> dict[str, Any] | None:
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
    gains = gains[np.isfinite(gains)]
    low, high = np.percentile(gains, [2.5, 97.5]) if len(pairs) > 1 and gains.size else (math.nan, math.nan)
    return {
        "model": r_model,
        "other": r_other,
        "beats_model": r_other > r_model,
        "n": len(pairs),
        "gain": r_other - r_model,
        "gain_low": float(low),
        "gain_high": float(high),
    }


def win_table(comparison: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Which metrics a flat colour or a blur wins against the model, from :func:`compare`, in the order of the tables.

    Returns:
        A row per metric: ``{metric, title, flat, blur}``. ``flat`` and ``blur`` are None where that answer has no such
        figure, else ``{verdict, method, model, other, better_on, n}`` of the strongest one. The verdict is ``wins`` or
        ``loses`` where the interval of the paired gain lies on one side of 0, and ``draws`` where it does not.
    """
    rows = []
    for metric in COLUMNS:
        rivals = comparison.get(metric.key)
        if metric.better is None or not rivals:
            continue
        row: dict[str, Any] = {"metric": metric.key, "title": metric.title}
        for name, methods in (("flat", FLAT), ("blur", BLUR)):
            there = {method: rivals[method] for method in methods if method in rivals}
            row[name] = _strongest(metric, there) if there else None
        if row["flat"] or row["blur"]:
            rows.append(row)
    return rows


def _strongest(metric: Metric, rivals: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    assert metric.better is not None
    better = metric.better
    method = max(rivals, key=lambda m: (rivals[m]["beats_model"], float(merit([rivals[m]["other"]], better)[0])))
    line = rivals[method]
    return {
        "verdict": _verdict(line),
        "method": method,
        "model": line["model"],
        "other": line["other"],
        "better_on": line.get("better_on"),
        "n": line["n"],
    }


def _verdict(line: Mapping[str, Any]) -> str:
    low, high = line["gain_low"], line["gain_high"]
    if math.isnan(low):  # one image has no interval
        low = high = line["gain"]
    return "wins" if low > 0 else "loses" if high < 0 else "draws"
