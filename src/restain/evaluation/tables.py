"""The report's tables: figures as text, one row per method, and what beats the model in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from restain.evaluation.catalogue import BY_KEY, Metric

METHOD_TITLES = {
    "model": "model",
    "baseline_hematoxylin": "line from hematoxylin",
    "baseline_he": "H&E itself",
    "baseline_mean": "training mean colour",
    "baseline_linear": "linear colour map",
    "blurred_model": "model, blurred",
    "oracle_flat": "flat colour (oracle)",
    "real": "real IHC",
}


NOTHING = {"mean": None, "low": None, "high": None, "n": 0}
"""A figure that an evaluation of an older restain does not have."""


def number(value: float | None, metric: Metric) -> str:
    """A figure as text, with its sign where 0 is best; a dash where it is undefined."""
    if value is None:
        return "–"
    text = f"{value:+.{metric.digits}f}" if metric.better == "zero" else f"{value:.{metric.digits}f}"
    return text.replace("-", "−")


def size(value: float, metric: Metric) -> str:
    """A figure as it is compared: without its sign where 0 is best."""
    return number(value, metric).lstrip("+−") if metric.better == "zero" else number(value, metric)


def table(
    metrics: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]], columns: Sequence[Metric]
) -> list[dict[str, Any]]:
    """One row per method with a cell per figure; ``values`` is ``metrics["overall"]`` or one of ``metrics["levels"]``."""
    rows: list[dict[str, Any]] = []
    whole = values is metrics["overall"]
    for method, title in METHOD_TITLES.items():
        row = {
            "method": method,
            "title": title,
            "about": metrics["definitions"]["methods"].get(method, ""),
            "absent": "",
        }
        if method in metrics["absent"]:
            rows.append(row | {"absent": metrics["absent"][method], "cells": []})
        elif method in values:
            cells = []
            for metric in columns:
                value = values[method].get(metric.key, NOTHING)
                low, high = (number(value[side], metric) for side in ("low", "high"))
                rival = metrics["comparison"].get(metric.key, {}).get(method, {}) if whole else {}
                cells.append(
                    {
                        "mean": number(value["mean"], metric),
                        "interval": f"{low} to {high}" if value["low"] is not None else "",
                        "n": value["n"],
                        "beats": rival.get("beats_model", False),
                    }
                )
            rows.append(row | {"cells": cells})
    return rows


def verdicts(metrics: Mapping[str, Any], columns: Sequence[Metric]) -> list[dict[str, str]]:
    """For each figure with a better side, in words: what beats the model, and by how much."""
    said = []
    for metric in columns:
        rivals = metrics["comparison"].get(metric.key)
        if not metric.better or not rivals:
            continue
        unit = f" {metric.unit}" if metric.unit else ""
        winners = []
        for method, line in rivals.items():
            if line["beats_model"]:
                figures_of_both = f"{size(line['other'], metric)} against {size(line['model'], metric)}{unit}"
                share = f", better on {line['better_on']} of {line['n']} images" if "better_on" in line else ""
                winners.append(f"{METHOD_TITLES[method]}: {figures_of_both}{share}")
        words = f"beaten by {'; by '.join(winners)}" if winners else "no baseline is better"
        said.append({"title": metric.title, "words": words, "beaten": "yes" if winners else ""})
    return said


def titled(metrics: Mapping[str, Any], columns: Sequence[Metric]) -> list[Metric]:
    """The columns of which there is any figure; LPIPS is named after what computed it."""
    name = metrics.get("extractors", {}).get("lpips", {}).get("name", "")
    shown = [m for m in columns if any(line.get(m.key, NOTHING)["n"] for line in metrics["overall"].values())]
    return [replace(m, title=f"{m.title} ({name})") if m.key == "lpips" and name else m for m in shown]


def win_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The win table as text: for each metric what a flat colour and a blur reach, and whether that wins, draws or loses."""
    rows = []
    for line in metrics.get("win_table", []):
        metric = BY_KEY[line["metric"]]
        row: dict[str, Any] = {"title": titled(metrics, [metric])[0].title if metric.key == "lpips" else metric.title}
        for name in ("flat", "blur"):
            side = line[name]
            if side is None:
                row[name] = {"verdict": "", "words": "–"}
                continue
            words = (
                f"{METHOD_TITLES[side['method']]}: {size(side['other'], metric)} against {size(side['model'], metric)}"
            )
            if side["better_on"] is not None:
                words += f", better on {side['better_on']} of {side['n']}"
            row[name] = {"verdict": side["verdict"], "words": words}
        rows.append(row)
    return rows


def distribution_table(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """FID and its kin by method, named after the network; None where nothing was computed."""
    found = metrics.get("distribution")
    if not found:
        return None
    keys = [key for key in found["titles"] if any(key in line for line in found["methods"].values())]
    columns = [
        Metric(key, found["titles"][key], "", 4 if key == "kid" else 2, "picture", found["better"][key]) for key in keys
    ]
    order = [m for m in METHOD_TITLES if m in found["methods"]]
    rows = []
    for method in order:
        cells = []
        for column in columns:
            value = found["methods"][method].get(column.key, NOTHING)
            own = found["methods"]["model"].get(column.key, NOTHING)["mean"]
            rival = method not in ("model", "real") and value["mean"] is not None and own is not None
            beats = rival and (value["mean"] < own if column.better == "lower" else value["mean"] > own)
            interval = (
                f"{number(value['low'], column)} to {number(value['high'], column)}" if value["low"] is not None else ""
            )
            cells.append({"mean": number(value["mean"], column), "interval": interval, "n": value["n"], "beats": beats})
        title = "real, one half against the other" if method == "real" else METHOD_TITLES[method]
        rows.append({"method": method, "title": title, "about": "", "absent": "", "cells": cells})
    return {**{k: found[k] for k in ("note", "crops", "crop_px", "images")}, "columns": columns, "rows": rows}
