"""An evaluation as its page shows it: tables, sentences and links, ready for the template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from restain.evaluation import words
from restain.evaluation.catalogue import COLUMNS, POOLED, Group, Metric, group
from restain.evaluation.summary import EvaluationSummary
from restain.evaluation.tables import NOTHING, distribution_table, table, titled, verdicts, win_rows
from restain.report import css_gradient
from restain.report.pictures import DAB_TOP, DIFFERENCE_TOP

PANEL_TITLES = {
    "he": "H&E (input)",
    "virtual": "virtual IHC",
    "real": "real IHC",
    "dab_virtual": "DAB, virtual",
    "dab_reference": "DAB, reference",
    "difference": "difference",
}

BY_LEVEL = (
    *(
        "dab_r16",
        POOLED.key,
        "dab_mean_error",
        "completeness_error",
        "weak_area_ratio",
        "background_de",
        "background_db",
    ),
    *("psnr", "ssim", "sharpness"),
)
"""Figures of the table by HER2 level."""

MORE_PAGES = {"trust.html": "trust: which answers to withhold", "sweep.html": "robustness to the H&E's stain"}
"""Pages that other commands write into an evaluation's folder."""

Link = Callable[[Path, Path], str]


def evaluation_view(title: str, note: str, summary: EvaluationSummary, folder: Path, link: Link) -> dict[str, Any]:
    """What the template needs of an evaluation.

    Args:
        title: the section's heading.
        note: a paragraph under it.
        summary: the evaluation.
        folder: folder of the page.
        link: gives the relative link to a path from a folder.
    """
    metrics = summary.metrics
    pictures = summary.out / "figures"
    rows = {row["name"]: row for row in metrics["per_image"] if row["method"] == "model"}

    def links(name: str) -> dict[str, str]:
        return {panel: link(pictures / f"{name}.{panel}.jpg", folder) for panel in PANEL_TITLES}

    level_columns = titled(metrics, [m for m in COLUMNS if m.key in BY_LEVEL])
    return {
        "kind": "evaluation",
        "title": title,
        "note": note,
        "metrics": metrics,
        "facts": words.facts(metrics),
        "lead": words.lead(metrics),
        "blur": words.blur(metrics),
        "verdicts": verdicts(metrics, titled(metrics, group("where", "amount", "white"))),
        "where": _columns_and_rows(metrics, "where"),
        "amount": _columns_and_rows(metrics, "amount"),
        "white": _columns_and_rows(metrics, "white"),
        "picture": _columns_and_rows(metrics, "picture"),
        "picture_verdicts": verdicts(metrics, titled(metrics, group("picture"))),
        "aligned": _aligned(metrics),
        "distribution": distribution_table(metrics),
        "wins": win_rows(metrics),
        "reading": metrics.get("reading"),
        "levels": {
            "columns": level_columns,
            "tables": [(level, table(metrics, values, level_columns)) for level, values in metrics["levels"].items()],
        },
        "cases": [
            {
                "case": case["case"],
                "name": case["name"],
                "links": links(case["name"]),
                "words": words.in_one_line(rows[case["name"]]),
            }
            for case in metrics["cases"]
        ],
        "everything": [
            {"name": name, "links": links(name), "words": words.in_one_line(row)} for name, row in rows.items()
        ],
        "plot": link(pictures / "cells.png", folder),
        "pages": [
            {"link": link(summary.out / name, folder), "title": said}
            for name, said in MORE_PAGES.items()
            if (summary.out / name).is_file()
        ],
        "legend": {
            "difference": (css_gradient("difference"), f"{DIFFERENCE_TOP:g}"),
            "dab": (css_gradient("dab"), f"{DAB_TOP:g}"),
        },
    }


def _columns_and_rows(metrics: dict[str, Any], name: Group) -> dict[str, Any]:
    columns = titled(metrics, group(name))
    return {"columns": columns, "rows": table(metrics, metrics["overall"], columns)}


def _aligned(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Raw figures and those after alignment, side by side, of the answers that were aligned."""
    aligned = titled(metrics, group("aligned"))
    if not aligned:
        return None
    raw = {metric.key: metric for metric in COLUMNS}
    columns: list[Metric] = []
    for metric in aligned:
        before = raw.get(metric.key.removesuffix("_aligned"))
        columns += [before, metric] if before and before.key != metric.key else [metric]
    chosen = {method: values for method, values in metrics["overall"].items() if values.get("moved_um", NOTHING)["n"]}
    rows = [row for row in table(metrics, chosen, columns) if not row["absent"]]
    return {"columns": columns, "rows": rows}
