"""The table of a cohort: a CSV with the columns slide, patient and block."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from restain.errors import RestainError

COLUMNS = ("slide", "patient", "block")


@dataclass(frozen=True, slots=True)
class Row:
    """One slide of a cohort, and the line of the table that names it."""

    slide: Path
    patient: str
    block: str
    line: int
    mpp: float | None = None
    """Of the slide's level 0, where the table says it."""


def read_table(path: Path) -> list[Row]:
    """Read a cohort's CSV (UTF-8; commas, semicolons or tabs); a column ``mpp`` may be there, others are not looked at.

    Paths of slides are relative to the table. Every fault is named with its line.

    Raises:
        RestainError: if the file cannot be read, a column is missing, or lines are at fault: a cell is empty, a slide does
            not exist or is named twice, or an mpp is no number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RestainError(f"{path} does not exist.") from None
    except UnicodeDecodeError:
        raise RestainError(f"{path} is not UTF-8 text; save the table as 'CSV UTF-8'.") from None
    except OSError as fault:
        raise RestainError(f"{path} cannot be read ({fault.strerror}).") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    lines = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    header = [name.strip().lower() for name in next(lines, [])]
    if missing := [name for name in COLUMNS if name not in header]:
        raise RestainError(f"{path}: line 1 must name the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing.")
    at = [header.index(name) for name in COLUMNS]
    extra = header.index("mpp") if "mpp" in header else None
    rows: list[Row] = []
    faults: list[str] = []
    seen: dict[Path, int] = {}
    for cells in lines:
        line = lines.line_num
        if not any(cell.strip() for cell in cells):
            continue
        slide, patient, block = (cells[i].strip() if i < len(cells) else "" for i in at)
        empty = [name for name, cell in zip(COLUMNS, (slide, patient, block), strict=True) if not cell]
        if empty:
            faults.append(f"line {line} has no {' and no '.join(empty)}")
            continue
        source = path.parent / slide
        if not source.exists():
            faults.append(f"line {line} names {slide}, which does not exist")
        elif (before := seen.setdefault(source.resolve(), line)) != line:
            faults.append(f"line {line} names {slide}, which line {before} names already")
        said = cells[extra].strip() if extra is not None and extra < len(cells) else ""
        mpp = _positive(said)
        if said and mpp is None:
            faults.append(f"line {line} has the mpp {said}, which is no number above 0")
        rows.append(Row(source, patient, block, line, mpp))
    if faults:
        raise RestainError(f"{path}: {'; '.join(faults)}.")
    if not rows:
        raise RestainError(f"{path} names no slides.")
    return rows


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
