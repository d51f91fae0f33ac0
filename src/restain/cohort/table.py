"""The table of a cohort: a CSV with the columns slide, patient and block."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from restain.data import tables
from restain.errors import RestainError
from restain.images.scale import positive_number

COLUMNS = ("slide", "patient", "block")


@dataclass(frozen=True, slots=True)
class Row:
    """One slide of a cohort, and the line of the table that names it."""

    slide: Path
    patient: str
    block: str
    line: int
    mpp: float | None = None
    """Micrometres per pixel of level 0, if the table states it."""


def read_table(path: Path) -> list[Row]:
    """Read the CSV of a cohort (UTF-8; commas, semicolons or tabs), with an optional column ``mpp``; others are ignored.

    Paths of slides are relative to the table. Every error is reported with its line. Raises RestainError if the file
    cannot be read, a column is missing, a cell is empty, a slide does not exist or is named twice, or an mpp is not a
    number.
    """
    rows: list[Row] = []
    faults: list[str] = []
    seen: dict[Path, int] = {}
    for line, cells in tables.read_table(path, COLUMNS, ("mpp",)):
        faults += tables.row_faults(line, cells, path.parent, needed=COLUMNS, files=("slide",), numbers=("mpp",))
        source = path.parent / cells["slide"]
        if cells["slide"] and (before := seen.setdefault(source.resolve(), line)) != line:
            faults.append(f"line {line} names {cells['slide']}, which line {before} names already")
        rows.append(Row(source, cells["patient"], cells["block"], line, positive_number(cells["mpp"])))
    if faults:
        raise RestainError(f"{path}: {'; '.join(faults)}.")
    if not rows:
        raise RestainError(f"{path} names no slides.")
    return rows
