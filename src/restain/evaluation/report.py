"""The HTML report: one page of figures, tables and words, all of them computed from ``metrics.json``.

What leads is what the stain says, then how its HER2 level is read; figures of the picture follow, with what beats the
model in them. The page needs no JavaScript and nothing from elsewhere: pictures lie beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import restain
from restain.evaluation import figures
from restain.evaluation.pages import environment
from restain.evaluation.summary import EvaluationSummary
from restain.evaluation.view import PANEL_TITLES, evaluation_view
from restain.files import make_folder, write_text
from restain.slides import read_image


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
        evaluation_view(section.title, section.note, section.summary, out.parent, _link)
        if isinstance(section, EvaluationSection)
        else _gallery_view(section, out.parent, number)
        for number, section in enumerate(sections, 1)
    ]
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            note=note,
            sections=views,
            notice=restain.NOTICE,
            version=restain.__version__,
            panel_titles=PANEL_TITLES,
        )
    )
    write_text(out, page)
    return out


def _link(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _gallery_view(section: GallerySection, folder: Path, number: int) -> dict[str, Any]:
    target = folder / "figures"
    make_folder(target)
    items = []
    for index, item in enumerate(section.items, 1):
        links = {}
        for panel, source in (("he", item.he), ("virtual", item.virtual)):
            path = target / f"gallery-{number}-{index}.{panel}.jpg"
            figures.save_figure(path, read_image(source), virtual=panel == "virtual")
            links[panel] = _link(path, folder)
        items.append({"caption": item.caption, "links": links})
    return {"kind": "gallery", "title": section.title, "note": section.note, "items": items}
