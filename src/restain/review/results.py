"""The results of a study: one page, its figures as CSV and JSON, every answer as CSV."""

from __future__ import annotations

import csv
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import restain
from restain.errors import RestainError
from restain.files import make_folder, whole_file, write_json, write_text
from restain.report import render_page
from restain.review.definition import Modality, StudyDefinition
from restain.review.export import export_answers
from restain.review.measure import Figure, Measured, measure
from restain.review.study import Study

PAGE = "results.html"


def write_results(study: Study, out: Path, *, now: datetime | None = None, command: str = "") -> Path:
    """Measure what was read so far; returns the page ``out/results.html``.

    Beside it: ``results.csv`` with a line per figure, ``results.json`` with the same, the readers and the verdict, and ``answers.csv`` with
    every answer that was given.

    Args:
        study: open; it may be read in the meantime, and the results say how far it is.
        out: folder, made where needed.
        now: the date of the results; the clock's where it is not given.
        command: the command line, for the page.

    Raises:
        RestainError: if nothing was read yet or the results cannot be written.
    """
    readings = study.readings()
    if not any(one.complete for one in readings):
        raise RestainError("No image of the study has been read to its end yet; there are no results.")
    now = datetime.now(UTC) if now is None else now
    measured = measure(study.definition, readings)
    totals = {reader: study.progress(reader, now).total for reader in study.readers}
    facts = _facts(study.definition, now, command)
    make_folder(out)
    export_answers(study, out / "answers.csv")
    with whole_file(out / "results.csv") as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        columns = [one.name for one in fields(Figure)]
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(figure for figure in measured.plain()["figures"])
    plain = {"title": study.definition.title, "totals": totals, "facts": facts} | measured.plain()
    write_json(out / "results.json", plain)
    write_text(out / PAGE, results_page(study.definition, measured, totals, facts))
    return out / PAGE


def results_page(study: StudyDefinition, measured: Measured, totals: dict[str, int], facts: dict[str, str]) -> str:
    """The HTML of a study's results.

    Args:
        study: its definition.
        measured: its figures.
        totals: how many showings each reader has.
        facts: where this comes from, by name.
    """
    rows: list[dict[str, Any]] = [row | {"total": totals[row["reader"]]} for row in measured.readers]
    left = sum(row["total"] - row["read"] for row in rows)
    return render_page(
        "results.html.j2",
        "restain.review",
        title=f"Blinded review: {study.title}",
        measured=measured,
        rows=rows,
        left=left,
        asks_origin=any("origin" in row for row in rows),
        asks_level=any("kappa_within" in row for row in rows),
        facts=facts,
    )


def _facts(study: StudyDefinition, now: datetime, command: str) -> dict[str, str]:
    counts = {one: sum(image.modality is one for image in study.images) for one in Modality}
    facts = {
        "Images": f"{counts[Modality.CHEMICAL]} chemical, {counts[Modality.VIRTUAL]} virtual, of {len(study.cases)} cases",
        "Known levels": f"of {len(study.levels)} cases",
        "Readers": str(len(study.readers)),
        "Washout": f"{study.washout_days:g} days",
        "Margin": f"{study.margin:g} of kappa",
        "Seed": str(study.seed),
        "Command": command,
        "restain": restain.__version__,
        "Date": now.isoformat(timespec="seconds"),
    }
    return {name: value for name, value in facts.items() if value}
