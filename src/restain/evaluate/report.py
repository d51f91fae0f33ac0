"""The HTML report: one page of figures, tables and words, all of them computed from ``metrics.json``.

What leads is what the stain says; PSNR and SSIM follow, with what beats the model in them. The page needs no
JavaScript and nothing from elsewhere: pictures lie beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

import restain
from restain.data import read_rgb, whole_file
from restain.evaluate import figures
from restain.evaluate.summary import METRICS, POOLED, EvaluationSummary, Metric

GOAL_R16 = 0.8
"""restain's own goal for the correlation of DAB density over cells of 16 µm with the truth."""

METHOD_TITLES = {
    "model": "model",
    "trivial_he": "H&E itself",
    "trivial_mean": "training mean colour",
    "trivial_linear": "linear colour map",
    "oracle_flat": "flat colour (oracle)",
}

PANEL_TITLES = {
    "he": "H&E (input)",
    "virtual": "virtual IHC",
    "real": "real IHC",
    "dab_virtual": "DAB, virtual",
    "dab_reference": "DAB, reference",
    "difference": "difference",
}


@dataclass(frozen=True, slots=True)
class EvaluationSection:
    """An evaluation as a part of a page."""

    title: str
    summary: EvaluationSummary
    note: str = ""


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """An H&E image and what a model made of it, where there is no real IHC image to compare with."""

    caption: str
    he: Path
    virtual: Path


@dataclass(frozen=True, slots=True)
class GallerySection:
    """Pictures without figures as a part of a page."""

    title: str
    items: Sequence[GalleryItem]
    note: str = ""


ReportSection = EvaluationSection | GallerySection


def render_report(summary: EvaluationSummary) -> Path:
    """Write an evaluation's own ``report.html`` into its folder and return its path.

    Raises:
        RestainError: if the file cannot be written.
    """
    metrics = summary.metrics
    title = f"{metrics['model']['label']} on the {metrics['split']} split"
    return write_page(summary.report, title, [EvaluationSection("", summary)])


def write_page(out: Path, title: str, sections: Sequence[ReportSection], note: str = "") -> Path:
    """Write one HTML page of evaluations and galleries.

    Args:
        out: the page's file; its folder must exist. An evaluation's pictures are linked where they lie, by a
            path relative to the page; a gallery's are written into ``figures/`` beside it.
        title: the page's title and heading.
        sections: parts of the page, in order.
        note: a paragraph under the heading.

    Returns:
        ``out``.

    Raises:
        RestainError: if a gallery's image cannot be read, or the page or a picture cannot be written.
    """
    views = [
        _evaluation_view(section, out.parent)
        if isinstance(section, EvaluationSection)
        else _gallery_view(section, out.parent, number)
        for number, section in enumerate(sections, 1)
    ]
    page = _template().render(
        title=title,
        note=note,
        sections=views,
        notice=restain.NOTICE,
        version=restain.__version__,
        panel_titles=PANEL_TITLES,
    )
    with whole_file(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return out


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _link(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _gallery_view(section: GallerySection, folder: Path, number: int) -> dict[str, Any]:
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    items = []
    for index, item in enumerate(section.items, 1):
        links = {}
        for panel, source in (("he", item.he), ("virtual", item.virtual)):
            path = target / f"gallery-{number}-{index}.{panel}.jpg"
            figures.save_figure(path, read_rgb(source), virtual=panel == "virtual")
            links[panel] = _link(path, folder)
        items.append({"caption": item.caption, "links": links})
    return {"kind": "gallery", "title": section.title, "note": section.note, "items": items}


def _evaluation_view(section: EvaluationSection, folder: Path) -> dict[str, Any]:
    summary, metrics = section.summary, section.summary.metrics
    pictures = summary.out / "figures"
    rows = {row["name"]: row for row in metrics["per_image"] if row["method"] == "model"}

    def links(name: str) -> dict[str, str]:
        return {panel: _link(pictures / f"{name}.{panel}.jpg", folder) for panel in figures.PANELS}

    stain = [METRICS[0], POOLED, *(m for m in METRICS[1:] if m.group == "stain")]
    picture = [m for m in METRICS if m.group == "picture"]
    level_columns = [m for m in (*stain, *picture) if m.key not in ("dab_mean_error", "mae")]
    return {
        "kind": "evaluation",
        "title": section.title,
        "note": section.note,
        "metrics": metrics,
        "facts": _facts(metrics),
        "lead": _lead(metrics),
        "stain": {
            "columns": stain,
            "rows": _table(metrics, metrics["overall"], stain),
            "verdicts": _verdicts(metrics, stain),
        },
        "picture": {
            "columns": picture,
            "rows": _table(metrics, metrics["overall"], picture),
            "verdicts": _verdicts(metrics, picture),
            "blur": _blur(metrics),
        },
        "levels": {
            "columns": level_columns,
            "tables": [(level, _table(metrics, table, level_columns)) for level, table in metrics["levels"].items()],
        },
        "cases": [
            {
                "case": case["case"],
                "name": case["name"],
                "links": links(case["name"]),
                "words": _words(rows[case["name"]]),
            }
            for case in metrics["cases"]
        ],
        "everything": [{"name": name, "links": links(name), "words": _words(row)} for name, row in rows.items()],
        "plot": _link(pictures / "cells.png", folder),
        "legend": {
            "difference": (figures.css_gradient("difference"), f"{figures.DIFFERENCE_TOP:g}"),
            "dab": (figures.css_gradient("dab"), f"{figures.DAB_TOP:g}"),
        },
    }


def _number(value: float | None, metric: Metric) -> str:
    if value is None:
        return "–"
    text = f"{value:+.{metric.digits}f}" if metric.better == "zero" else f"{value:.{metric.digits}f}"
    return text.replace("-", "−")


def _size(value: float, metric: Metric) -> str:
    """A figure as it is compared: without its sign where 0 is best."""
    return _number(value, metric).lstrip("+−") if metric.better == "zero" else _number(value, metric)


def _table(
    metrics: Mapping[str, Any], table: Mapping[str, Mapping[str, Any]], columns: Sequence[Metric]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    whole = table is metrics["overall"]
    for method, title in METHOD_TITLES.items():
        row = {
            "method": method,
            "title": title,
            "about": metrics["definitions"]["methods"][method],
            "absent": "",
        }
        if method in metrics["absent"]:
            rows.append(row | {"absent": metrics["absent"][method], "cells": []})
        elif method in table:
            cells = []
            for metric in columns:
                value = table[method][metric.key]
                low, high = (_number(value[side], metric) for side in ("low", "high"))
                rival = metrics["comparison"].get(metric.key, {}).get(method, {}) if whole else {}
                cells.append(
                    {
                        "mean": _number(value["mean"], metric),
                        "interval": f"{low} to {high}" if value["low"] is not None else "",
                        "n": value["n"],
                        "beats": rival.get("beats_model", False),
                    }
                )
            rows.append(row | {"cells": cells})
    return rows


def _verdicts(metrics: Mapping[str, Any], columns: Sequence[Metric]) -> list[dict[str, str]]:
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
                figures_of_both = f"{_size(line['other'], metric)} against {_size(line['model'], metric)}{unit}"
                share = f", better on {line['better_on']} of {line['n']} images" if "better_on" in line else ""
                winners.append(f"{METHOD_TITLES[method]}: {figures_of_both}{share}")
        words = f"beaten by {'; by '.join(winners)}" if winners else "no trivial answer is better"
        said.append({"title": metric.title, "words": words, "beaten": "yes" if winners else ""})
    return said


def _lead(metrics: Mapping[str, Any]) -> list[str]:
    """What the stain says, in sentences."""
    own = metrics["overall"]["model"]
    reference = metrics["dab_reference"]
    kinds = {
        "truth": "the phantom's known DAB density",
        "deconvolution": "the DAB density of the real image by colour deconvolution",
    }
    against = " or ".join(words for kind, words in kinds.items() if reference[kind])
    sentences = []
    pooled = own[POOLED.key]
    if pooled["mean"] is not None:
        interval = f" (95 % interval {pooled['low']:.2f} to {pooled['high']:.2f})" if pooled["low"] is not None else ""
        reached = "is reached" if pooled["mean"] >= GOAL_R16 else "is not reached"
        sentences.append(
            f"DAB where DAB is: over all 16 µm cells of the split, virtual DAB correlates with {against} at "
            f"r = {pooled['mean']:.2f}{interval}. The goal of {GOAL_R16:g} {reached}."
        )
    virtual, real = own["dab_mean_virtual"]["mean"], own["dab_mean_real"]["mean"]
    if real:
        sentences.append(
            f"Strength: mean DAB is {virtual:.3f} OD against {real:.3f} OD, {virtual / real:.0%} of the reference."
        )
    shift, difference = own["background_db"]["mean"], own["background_de"]["mean"]
    if difference is not None and shift is not None:
        tint = "yellower" if shift > 0 else "bluer"
        sentences.append(
            f"White where it is not: over the background the colour is off by ΔE₀₀ {difference:.1f} (about 1 "
            f"is just noticeable) and {tint} than real by {abs(shift):.1f} in b*."
        )
    return [sentence.replace(" -", " −") for sentence in sentences]


def _blur(metrics: Mapping[str, Any]) -> str:
    """What the flat oracle does to PSNR and SSIM here, in words."""
    won = []
    for key, title in (("psnr", "PSNR"), ("ssim", "SSIM")):
        line = metrics["comparison"].get(key, {}).get("oracle_flat")
        if line and line["beats_model"]:
            won.append(f"in {title} (better on {line['better_on']} of {line['n']} images)")
    start = "PSNR and SSIM reward blur: a flat picture of the right colour, in which nothing can be read, "
    if won:
        return start + f"beats this model here {' and '.join(won)}. A figure that a flat colour wins is no evidence."
    return start + "can beat a good one. Here it does not beat this model in either."


def _words(row: Mapping[str, Any]) -> str:
    """An image's figures in one line."""
    by_key = {metric.key: metric for metric in METRICS}
    shown = {
        "dab_r16": "DAB r",
        "background_de": "ΔE₀₀",
        "background_db": "Δb*",
        "psnr": "PSNR",
        "ssim": "SSIM",
        "mae": "MAE",
    }
    level = f"level {row['level']} · " if row["level"] else ""
    return level + " · ".join(f"{title} {_number(row[key], by_key[key])}" for key, title in shown.items())


def _facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the figures come from."""
    definitions, reference, fit = metrics["definitions"], metrics["dab_reference"], metrics["fit"]
    model = metrics["model"]
    used = {"truth": "truth of the phantom", "deconvolution": "colour deconvolution of the real image"}
    facts = [("Model", model["label"])]
    facts += [(key.replace("_", " ").capitalize(), value) for key, value in model.items() if key != "label"]
    facts += [
        ("Data", metrics["data"]),
        ("Split", f"{metrics['split']}, {metrics['images']} images"),
        ("DAB reference", ", ".join(f"{used[kind]} ({n} images)" for kind, n in reference.items() if n)),
        (
            "Pixel and cell",
            f"{definitions['mpp']:g} µm; {definitions['cell_um']:g} µm cells are {definitions['cell_px']} px",
        ),
        (
            "Trivial fit",
            f"{fit['images']} of {fit['of']} training pairs of {fit['data']}"
            if fit
            else "none: " + _reasons(metrics["absent"]),
        ),
        ("Intervals", definitions["interval"]),
        ("Command", metrics["command"]),
        ("restain", metrics["restain"]),
        ("Date", metrics["created"]),
        ("Machine", metrics["machine"]),
    ]
    return [(name, value) for name, value in facts if value]


def _reasons(absent: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(absent.values()))
