"""The page of a comparison: for every figure a table of gains and a forest plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from restain.report import render_page
from restain.report.plots import VERDICTS, Gain, forest_plot


def render_comparison(result: Mapping[str, Any]) -> str:
    """The HTML of ``compare.html`` from what ``compare.json`` holds."""
    figures = [_figure(list(lines)) for _, lines in groupby(result["differences"], key=lambda line: line["metric"])]
    slides = result["slides"]
    facts = [(f"Run {number}" if number else "Baseline", _about(run)) for number, run in enumerate(result["runs"])]
    facts += [
        ("Images", f"{result['images']}" + ("" if slides is None else f" of {slides} slides")),
        ("Command", result["command"]),
        ("restain", result["restain"]),
        ("Date", result["created"]),
    ]
    return render_page(
        "compare.html.j2",
        "restain.evaluation",
        title="Paired comparison",
        result=result,
        figures=figures,
        facts=facts,
    )


def _figure(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = lines[0]
    digits = first["digits"]
    return {
        "title": first["title"],
        "unit": first["unit"],
        "better": first["better"],
        "plot": forest_plot(
            [
                Gain(line["verdict"], line["gain"], _number_or_nan(line["low"]), _number_or_nan(line["high"]))
                for line in lines
            ],
            f"gain in {first['title']} with 95 % interval",
        ),
        "rows": [
            {
                "run": line["run"],
                "baseline": _number(line["mean_baseline"], digits),
                "value": _number(line["mean_run"], digits),
                "gain": _number(line["gain"], digits, sign=True),
                "interval": ""
                if line["low"] is None
                else f"{_number(line['low'], digits, sign=True)} to {_number(line['high'], digits, sign=True)}",
                "better_on": f"{line['better_on']} of {line['n']}",
                "p": _p(line["p"]),
                "p_holm": _p(line["p_holm"]),
                "verdict": f"{VERDICTS[line['verdict']][1]} {line['verdict']}",
            }
            for line in lines
        ],
    }


def _about(run: Mapping[str, str]) -> str:
    what = "" if run["method"] == "model" else "baseline of "
    return f"{run['label']} ({what}{run['folder']})"


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _number_or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
