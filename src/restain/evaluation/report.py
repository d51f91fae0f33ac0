"""The report of an evaluation: pictures, bars, sentences and tables, all computed from ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from restain.evaluation import overview, sentences
from restain.evaluation.metrics import BY_KEY, COLUMNS, POOLED, Group, Metric, group
from restain.evaluation.sentences import NOTHING
from restain.evaluation.summary import SHOWN, Evaluation
from restain.report import css_gradient, relative_link
from restain.report import write_page as write_report_page
from restain.report.pictures import DAB_TOP, DIFFERENCE_TOP

METHOD_TITLES = {
    "model": "model",
    "baseline_hematoxylin": "line from hematoxylin",
    "baseline_he": "H&E itself",
    "baseline_hematoxylin_smooth": "smoothed hematoxylin",
    "baseline_density_smooth": "smoothed H&E density",
    "baseline_mean": "training mean colour",
    "baseline_linear": "linear colour map",
    "blurred_model": "model, blurred",
    "oracle_flat": "flat colour (oracle)",
    "real": "real IHC",
}

PANEL_TITLES = {
    "he": "H&E (input)",
    "virtual": "virtual IHC",
    "real": "real IHC",
    "dab_virtual": "DAB, virtual",
    "dab_reference": "DAB, reference",
    "difference": "difference",
    "hematoxylin": "hematoxylin of the H&E, as DAB",
}
"""Pictures of an image, ``figures/NAME.KEY.jpg``."""

BY_LEVEL = (
    *("dab_r16", POOLED.key, "dab_mean_error", "completeness_error", "weak_area_ratio", "background_de"),
    *("background_db", "psnr", "ssim", "sharpness"),
)
"""Metrics of the table by HER2 level."""

MORE_PAGES = {
    "uncertainty.html": "uncertainty: which answers to withhold",
    "sweep.html": "robustness to the H&E's stain",
}
"""Pages that other options write into an evaluation's folder."""


@dataclass(frozen=True, slots=True)
class EvaluationSection:
    """An evaluation as a part of a page."""

    title: str
    evaluation: Evaluation
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of a table, as text."""

    mean: str
    interval: str
    n: int
    beats: bool
    """Whether the method beats the model in it."""


@dataclass(frozen=True, slots=True)
class MethodLine:
    """One row of a table: a method's figures, or why it is absent."""

    method: str
    title: str
    about: str = ""
    absent: str = ""
    cells: list[Cell] = field(default_factory=list)


def render_report(evaluation: Evaluation) -> Path:
    """Write an evaluation's own ``report.html`` into its folder and return its path.

    Raises:
        RestainError: if the file cannot be written.
    """
    metrics = evaluation.metrics
    title = f"{metrics['model']['label']} on the {metrics['split']} split"
    return write_page(evaluation.report, title, [EvaluationSection("", evaluation)])


def write_page(out: Path, title: str, sections: Sequence[EvaluationSection], note: str = "") -> Path:
    """Write one HTML page of evaluations, whose pictures are linked where they lie, and return its path.

    Args:
        out: the page's file; its folder must exist.
        title: the page's title and heading.
        sections: parts of the page, in order.
        note: a paragraph at the end of the page.

    Raises:
        RestainError: if the page cannot be written, or no files of an evaluation were kept.
    """
    return write_report_page(
        out,
        "report.html.j2",
        "restain.evaluation",
        title=title,
        note=note,
        sections=[_view(section, out.parent) for section in sections],
        panel_titles=PANEL_TITLES,
        most_cases=SHOWN,
    )


def _view(section: EvaluationSection, folder: Path) -> dict[str, Any]:
    """What the template needs of an evaluation, for a page in ``folder``."""
    evaluation = section.evaluation
    home, metrics = evaluation.report.parent, evaluation.metrics
    rows = {row["name"]: row for row in metrics["per_image"] if row["method"] == "model"}

    def links(name: str, *, large: bool = False) -> dict[str, str]:
        """Small pictures, or large ones where there are; an evaluation of an older restain has fewer."""
        found = {}
        for key in PANEL_TITLES:
            small, big = (home / "figures" / f"{name}.{key}{ending}" for ending in (".jpg", ".large.jpg"))
            path = big if large and big.is_file() else small
            if key != "hematoxylin" or path.is_file():
                found[key] = relative_link(path, folder)
        return found

    def case(chosen: Mapping[str, str]) -> dict[str, Any]:
        name = chosen["name"]
        words = overview.picture_words(metrics, name)
        return {**chosen, "links": links(name, large=True), "words": words, "r": rows[name].get("dab_r16")}

    by_level = titled(metrics, [m for m in COLUMNS if m.key in BY_LEVEL])
    return {
        "title": section.title,
        "note": section.note,
        "metrics": metrics,
        "facts": sentences.facts(metrics),
        "lead": sentences.leading(metrics),
        "blur": sentences.about_blur(metrics),
        "verdicts": verdicts(metrics, titled(metrics, group("where", "amount", "white"))),
        **{name: _columns_and_rows(metrics, name) for name in ("where", "amount", "white", "picture")},
        "picture_verdicts": verdicts(metrics, titled(metrics, group("picture"))),
        "aligned": _aligned(metrics),
        "distribution": _distribution(metrics),
        "wins": _win_rows(metrics),
        "reading": metrics.get("reading"),
        "levels": {
            "columns": by_level,
            "tables": [(level, table(metrics, values, by_level)) for level, values in metrics["levels"].items()],
        },
        "cases": [case(chosen) for chosen in metrics["cases"]],
        "opening": overview.opening(metrics["cases"]),
        "charts": overview.charts(metrics),
        "everything": [
            {"name": name, "links": links(name), "words": sentences.image_line(row)} for name, row in rows.items()
        ],
        "plot": relative_link(home / "figures" / "cells.png", folder),
        "pages": [
            {"link": relative_link(home / name, folder), "title": title}
            for name, title in MORE_PAGES.items()
            if (home / name).is_file()
        ],
        "legend": {
            "difference": (css_gradient("difference"), f"{DIFFERENCE_TOP:g}"),
            "dab": (css_gradient("dab"), f"{DAB_TOP:g}"),
        },
    }


def _cell(value: Mapping[str, Any], metric: Metric, beats: bool) -> Cell:
    interval = f"{metric.text(value['low'])} to {metric.text(value['high'])}" if value["low"] is not None else ""
    return Cell(metric.text(value["mean"]), interval, value["n"], beats)


def table(
    metrics: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]], columns: Sequence[Metric]
) -> list[MethodLine]:
    """A row per method; ``values`` is ``metrics["overall"]`` or one of ``metrics["levels"]``."""
    rows: list[MethodLine] = []
    overall = values is metrics["overall"]
    for method, title in METHOD_TITLES.items():
        line = MethodLine(method, title, metrics["definitions"]["methods"].get(method, ""))
        if method in metrics["absent"]:
            rows.append(replace(line, absent=metrics["absent"][method]))
        elif method in values:
            for metric in columns:
                contest = metrics["comparison"].get(metric.key, {}).get(method, {}) if overall else {}
                beats = contest.get("beats_model", False)
                line.cells.append(_cell(values[method].get(metric.key, NOTHING), metric, beats))
            rows.append(line)
    return rows


def verdicts(metrics: Mapping[str, Any], columns: Sequence[Metric]) -> list[dict[str, str]]:
    """For each metric with a better side, in words: what beats the model, and by how much."""
    found = []
    for metric in columns:
        contests = metrics["comparison"].get(metric.key)
        if not metric.better or not contests:
            continue
        winners = [
            f"{METHOD_TITLES[method]}: {_against(metric, line, unit=True)}"
            for method, line in contests.items()
            if line["beats_model"]
        ]
        words = f"beaten by {'; by '.join(winners)}" if winners else "no baseline is better"
        found.append({"title": metric.title, "words": words, "beaten": "yes" if winners else ""})
    return found


def _against(metric: Metric, line: Mapping[str, Any], *, unit: bool) -> str:
    words = f"{metric.size(line['other'])} against {metric.size(line['model'])}"
    words += f" {metric.unit}" if unit and metric.unit else ""
    if line.get("better_on") is not None:
        words += f", better on {line['better_on']} of {line['n']}{' images' if unit else ''}"
    return words


def titled(metrics: Mapping[str, Any], columns: Sequence[Metric]) -> list[Metric]:
    """The metrics of which there is any figure; LPIPS is named after its network."""
    name = metrics.get("extractors", {}).get("lpips", {}).get("name", "")
    shown = [m for m in columns if any(line.get(m.key, NOTHING)["n"] for line in metrics["overall"].values())]
    return [replace(m, title=f"{m.title} ({name})") if m.key == "lpips" and name else m for m in shown]


def _columns_and_rows(metrics: Mapping[str, Any], name: Group) -> dict[str, Any]:
    columns = titled(metrics, group(name))
    return {"columns": columns, "rows": table(metrics, metrics["overall"], columns)}


def _aligned(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Figures before and after alignment, side by side, of the methods that were aligned."""
    aligned = titled(metrics, group("aligned"))
    if not aligned:
        return None
    columns: list[Metric] = []
    for metric in aligned:
        before = BY_KEY[metric.key.removesuffix("_aligned")]
        columns += [metric] if before is metric else [before, metric]
    chosen = {method: line for method, line in metrics["overall"].items() if line.get("moved_um", NOTHING)["n"]}
    return {"columns": columns, "rows": [row for row in table(metrics, chosen, columns) if not row.absent]}


def _win_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The win table: for each metric what a flat colour and a blur reach, and whether that wins, draws or loses."""
    rows = []
    for line in metrics.get("win_table", []):
        metric = BY_KEY[line["metric"]]
        row: dict[str, Any] = {"title": next(iter(titled(metrics, [metric])), metric).title}
        for name in ("flat", "blur"):
            side = line[name]
            words = "–" if side is None else f"{METHOD_TITLES[side['method']]}: {_against(metric, side, unit=False)}"
            row[name] = {"verdict": "" if side is None else side["verdict"], "words": words}
        rows.append(row)
    return rows


def _distribution(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """FID, KID and Inception Score by method, named after the network; None where nothing was computed."""
    found = metrics.get("distribution")
    if not found:
        return None
    methods = found["methods"]
    columns = [
        Metric(key, title, "", 4 if key == "kid" else 2, "picture", found["better"][key])
        for key, title in found["titles"].items()
        if any(key in line for line in methods.values())
    ]
    rows = []
    for method, title in METHOD_TITLES.items():
        if method not in methods:
            continue
        line = MethodLine(method, "real, one half against the other" if method == "real" else title)
        for column in columns:
            value = methods[method].get(column.key, NOTHING)
            own = methods["model"].get(column.key, NOTHING)["mean"]
            beats = method not in ("model", "real") and value["mean"] is not None and own is not None
            beats = beats and (value["mean"] < own if column.better == "lower" else value["mean"] > own)
            line.cells.append(_cell(value, column, beats))
        rows.append(line)
    return {**{k: found[k] for k in ("note", "crops", "crop_px", "images")}, "columns": columns, "rows": rows}
