"""Raw answers for other programs: iMRMC's columns, and every answer that was ever given."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from restain.errors import RestainError
from restain.files import whole_file, write_text
from restain.review.definition import CHOICES, Kind
from restain.review.study import Study

COLUMNS = ("readerID", "caseID", "modalityID", "score")
TRUTH = ("-1", "truth")
"""What iMRMC takes as reader and modality of a row that gives a case's truth."""


def export_scores(study: Study, path: Path, question: str | None = None) -> int:
    """Write what each reader answered to one question about each case in each modality, as iMRMC reads it.

    Scores are 0 to 3 of a HER2 level, 1 to 5 of a quality, and 1 for "virtual" of an origin. Of an image that was shown twice the
    first reading counts; readings that are not complete are left out. Truth rows (reader ``-1``, modality ``truth``) stand first and say
    1 where the case's level is at least the study's ``positive``, else 0.

    Args:
        study: open.
        path: a name ending in ``.imrmc`` gets the lines that the Java program wants before the rows (sizes, ``BEGIN DATA:``), any
            other the CSV with a header that the R package wants.
        question: its name; the HER2 level where it is not given.

    Returns:
        How many of the cases that were read have no known level, and so no truth row, which iMRMC demands.

    Raises:
        RestainError: if the question is a text or not asked, nothing was read yet, or the file cannot be written.
    """
    name = question or study.definition.named(Kind.HER2)
    if name is None:
        raise RestainError("The study does not ask for the HER2 level; name another question.")
    kind = study.definition.question(name).kind
    if kind is Kind.TEXT:
        raise RestainError(f"Answers to '{name}' are text, which has no score.")
    first = 1 if kind is Kind.QUALITY else 0
    rows = [
        (one.reader, one.case, one.modality.value, str(CHOICES[kind].index(one.answers[name]) + first))
        for one in study.readings()
        if one.complete and not one.repeat
    ]
    if not rows:
        raise RestainError("No image of the study has been read to its end yet; there is nothing to export.")
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
    # Names hold neither commas nor quotes (see definition), so no program needs to know CSV's quoting.
    file.writelines(",".join(row) + "\n" for row in table)
    write_text(path, file.getvalue())
    return len(cases) - len(truth)


def export_answers(study: Study, path: Path) -> Path:
    """Write every answer, the changed ones too, in the order in which they were given, as CSV (UTF-8).

    Raises:
        RestainError: if the file cannot be written.
    """
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("reader", "case", "modality", "session", "repeat", "question", "value", "at", "seconds"))
        for one in study.answers():
            at, seconds = one.at.isoformat(timespec="milliseconds"), "" if one.seconds is None else f"{one.seconds:.3f}"
            own = (one.reader, one.case, one.modality.value, one.session + 1, int(one.repeat))
            table.writerow((*own, one.question, one.value, at, seconds))
    return path
