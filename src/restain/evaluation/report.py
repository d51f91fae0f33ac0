"""The HTML report: one page of figures, tables and words, all of them computed from ``metrics.json``.

What leads is what the stain says, then how its HER2 level is read; figures of the picture follow, with what beats the
model in them. The page needs no JavaScript and nothing from elsewhere: pictures lie beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restain.evaluation.summary import EvaluationSummary
from restain.evaluation.view import PANEL_TITLES, evaluation_view
from restain.report import relative_link
from restain.report import write_page as write_report_page


@dataclass(frozen=True, slots=True)
class EvaluationSection:
    """An evaluation as a part of a page."""

    title: str
    summary: EvaluationSummary
    note: str = ""


def render_report(summary: EvaluationSummary) -> Path:
    """Write an evaluation's own ``report.html`` into its folder and return its path.

    Raises:
        RestainError: if the file cannot be written.
    """
    metrics = summary.metrics
    title = f"{metrics['model']['label']} on the {metrics['split']} split"
    return write_page(summary.report, title, [EvaluationSection("", summary)])


def write_page(out: Path, title: str, sections: Sequence[EvaluationSection], note: str = "") -> Path:
    """Write one HTML page of evaluations, whose pictures are linked where they lie, and return its path.

    Args:
        out: the page's file; its folder must exist.
        title: the page's title and heading.
        sections: parts of the page, in order.
        note: a paragraph under the heading.

    Raises:
        RestainError: if the page cannot be written.
    """
    views = [evaluation_view(one.title, one.note, one.summary, out.parent, relative_link) for one in sections]
    return write_report_page(
        out, "report.html.j2", "restain.evaluation", title=title, note=note, sections=views, panel_titles=PANEL_TITLES
    )
