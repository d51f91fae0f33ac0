"""Answers for other programs: scores for iMRMC, and a table of all answers."""

from __future__ import annotations

import io
from pathlib import Path

from restain.errors import RestainError
from restain.files import csv_text, write_csv, write_text
from restain.review.definition import CHOICES, Kind
from restain.review.study import Study

COLUMNS = ("readerID", "caseID", "modalityID", "score")
TRUTH = ("-1", "truth")
"""Reader and modality of a truth row of iMRMC."""


def export_scores(study: Study, path: Path, question: str | None = None) -> int:
    """Write each reader's answers to one question about each case and modality, in the format of iMRMC.

    Scores are 0 to 3 for HER2 levels, 1 to 5 for quality, and the index of the answer for other questions. Only complete
    first readings count. Truth rows (reader ``-1``, modality ``truth``) come first: 1 from the study's ``positive`` level on.

    Args:
        study: open.
        path: ``.imrmc`` for the format of the Java program, any other suffix for the CSV of the R package.
        question: name of the question; default: the HER2 level.

    Returns:
        The number of cases without a known level, and so without the truth row that iMRMC requires.

    Raises:
        RestainError: if the question is a text or unknown, nothing was read yet, or the file cannot be written.
    """
    name = question or study.definition.named(Kind.HER2)
    if name is None:
        raise RestainError("The study does not ask for the HER2 level; give another question.")
    kind = study.definition.question(name).kind
    if kind is Kind.TEXT:
        raise RestainError(f"Answers to '{name}' are text and have no score.")
    first = 1 if kind is Kind.QUALITY else 0  # its answers are the scores themselves
    rows = [
        (one.reader, one.case, one.modality.value, str(CHOICES[kind].index(one.answers[name]) + first))
        for one in study.readings()
        if one.complete and not one.repeat
    ]
    if not rows:
        raise RestainError("No reading of the study is complete yet; there is nothing to export.")
    levels, positive = study.definition.levels, study.definition.positive
    cases = list(dict.fromkeys(row[1] for row in rows))
    truth = {case: int(levels[case] >= positive) for case in cases if case in levels}
    table = [(TRUTH[0], case, TRUTH[1], str(value)) for case, value in truth.items()] + rows
    file = io.StringIO()
    if path.suffix == ".imrmc":
        counts = {"N0": len(truth) - sum(truth.values()), "N1": sum(truth.values())}
        counts |= {"NR": len({row[0] for row in rows}), "NM": len({row[2] for row in rows})}
        title = " ".join(study.definition.title.split())
        file.write("\n".join([title, *(f"{key}: {count}" for key, count in counts.items()), "BEGIN DATA:", ""]))
    else:
        file.write(",".join(COLUMNS) + "\n")
    # Names hold neither commas nor quotes (see definition), because iMRMC does not support quoting.
    file.writelines(",".join(row) + "\n" for row in table)
    write_text(path, file.getvalue())
    return len(cases) - len(truth)


def export_answers(study: Study, path: Path) -> Path:
    """Write every answer, replaced ones included, in order of time, as CSV (UTF-8).

    Raises:
        RestainError: if the file cannot be written.
    """
    rows = []
    for one in study.answers():
        at, seconds = one.at.isoformat(timespec="milliseconds"), "" if one.seconds is None else f"{one.seconds:.3f}"
        own = (csv_text(one.reader), csv_text(one.case), one.modality.value, one.part + 1, int(one.repeat))
        rows.append((*own, one.question, csv_text(one.value), at, seconds))
    write_csv(path, ("reader", "case", "modality", "part", "repeat", "question", "value", "at", "seconds"), rows)
    return path
