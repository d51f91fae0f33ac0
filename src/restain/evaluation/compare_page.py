"""The page of a comparison: for every figure a table of gains and a forest plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup, escape

import restain
from restain.evaluation.curves import ticks
from restain.evaluation.pages import environment

COLOURS = {"better": "#2b7a3d", "worse": "#b3361e", "no difference shown": "#7d7d7d"}
MARKS = {"better": "▲", "worse": "▼", "no difference shown": "="}
"""Verdicts are told apart by a sign too, not by colour alone."""


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
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            title="Paired comparison",
            result=result,
            figures=figures,
            facts=[(name, value) for name, value in facts if value],
            notice=restain.NOTICE,
            version=restain.__version__,
        )
    )


def forest(lines: Sequence[Mapping[str, Any]]) -> Markup:
    """A forest plot of gains as inline SVG: a mark and its interval per run, and the line of no difference.

    Args:
        lines: of one figure, with ``run``, ``gain``, ``low``, ``high`` (``None`` where undefined) and ``verdict``.
    """
    values = [0.0] + [v for line in lines for v in (line["gain"], line["low"], line["high"]) if v is not None]
    # Runs that differ in nothing still need an axis.
    marks = ticks(min(values), max(values)) if max(values) - min(values) > 1e-9 else [-1.0, 0.0, 1.0]
    left, right = marks[0], marks[-1]
    bottom = 14 + 22 * len(lines)

    def at(value: float) -> float:
        return 20 + 400 * (value - left) / (right - left)

    parts = []
    for value in marks:
        x = f"{at(value):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="6" y2="{bottom}" stroke="currentColor" stroke-opacity=".12"/>')
        parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{value:g}</text>')
    zero = f"{at(0):.1f}"
    parts.append(f'<line x1="{zero}" x2="{zero}" y1="4" y2="{bottom}" stroke="currentColor" stroke-dasharray="5 4"/>')
    for number, line in enumerate(lines):
        y, colour = 17 + 22 * number, COLOURS[line["verdict"]]
        said = f"{line['run']}: {line['verdict']}"
        parts.append(f"<g><title>{escape(said)}</title>")
        if line["low"] is not None and line["high"] is not None:
            ends = f'x1="{at(line["low"]):.1f}" x2="{at(line["high"]):.1f}"'
            parts.append(f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="{at(line["gain"]) - 4:.1f}" y="{y - 4}" width="8" height="8" fill="{colour}"/>')
        parts.append(f'<text x="428" y="{y + 4}">{number + 1} {MARKS[line["verdict"]]}</text></g>')
    parts.append(f'<text x="20" y="{bottom + 30}">◂ worse</text>')
    parts.append(f'<text x="420" y="{bottom + 30}" text-anchor="end">better ▸</text>')
    label = escape(f"gain in {lines[0]['title']} with 95 % interval")
    return Markup(f'<svg viewBox="0 0 460 {bottom + 36}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def _figure(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = lines[0]
    digits = first["digits"]
    return {
        "title": first["title"],
        "unit": first["unit"],
        "better": first["better"],
        "plot": forest(lines),
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
                "verdict": f"{MARKS[line['verdict']]} {line['verdict']}",
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
