"""Results of a study: one page, the figures as CSV and JSON, all answers as CSV."""

from __future__ import annotations

from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path

from restain import __version__
from restain.errors import RestainError
from restain.files import make_folder, write_csv, write_json
from restain.report import write_page
from restain.review.analysis import Figure, analyse
from restain.review.definition import Kind, Modality, StudyDefinition
from restain.review.export import export_answers
from restain.review.study import Study
from restain.statistics import json_ready

PAGE = "results.html"


def write_results(study: Study, out: Path, *, now: datetime | None = None, command: str = "") -> Path:
    """Analyse all complete readings; returns the page ``out/results.html``.

    Also writes ``results.csv`` (a line per figure), ``results.json`` (figures, readers, non-inferiority) and ``answers.csv``.
    A study may be analysed while it is read; the page then says that the results are interim.

    Args:
        study: open.
        out: folder, created if it does not exist.
        now: date of the results; default: the current time.
        command: the command line, for the page.

    Raises:
        RestainError: if no reading is complete yet, or the results cannot be written.
    """
    readings = study.readings()
    if not any(one.complete for one in readings):
        raise RestainError("No reading of the study is complete yet; there are no results.")
    now = datetime.now(UTC) if now is None else now
    found = analyse(study.definition, readings)
    totals = {reader: study.progress(reader, now).total for reader in study.readers}
    facts = _facts(study.definition, now, command)
    make_folder(out)
    export_answers(study, out / "answers.csv")
    write_csv(out / "results.csv", [one.name for one in fields(Figure)], map(astuple, found.figures))
    content = {"title": study.definition.title, "totals": totals, "facts": facts} | json_ready(found)
    write_json(out / "results.json", content)
    return write_page(
        out / PAGE,
        "results.html.j2",
        "restain.review",
        title=f"Blinded review: {study.definition.title}",
        found=found,
        totals=totals,
        left=sum(totals[row.reader] - row.read for row in found.readers),
        kinds={question.kind for question in study.definition.questions},
        Kind=Kind,
        facts=facts,
    )


def _facts(study: StudyDefinition, now: datetime, command: str) -> dict[str, str]:
    counts = {one: sum(image.modality is one for image in study.images) for one in Modality}
    facts = {
        "Images": f"{counts[Modality.CHEMICAL]} chemical, {counts[Modality.VIRTUAL]} virtual; {len(study.cases)} cases",
        "Cases with known level": str(len(study.levels)),
        "Readers": str(len(study.readers)),
        "Washout": f"{study.washout_days:g} days",
        "Margin": f"{study.margin:g} (kappa)",
        "Seed": str(study.seed),
        "Command": command,
        "restain": __version__,
        "Date": now.isoformat(timespec="seconds"),
    }
    return {name: value for name, value in facts.items() if value}
