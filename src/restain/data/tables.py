"""CSV tables by users, whose first line names the columns."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from restain.errors import RestainError
from restain.files import read_utf8


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV (UTF-8; commas, semicolons or tabs) that are not empty, each with its number in the file.

    ``columns`` must be named in the first line, in any order and case, ``optional`` ones may be; others are ignored. Cells are
    stripped, and missing ones are empty.

    Raises:
        RestainError: if the file cannot be read or a column is missing.
    """
    text = read_utf8(path, "is not UTF-8 text; save the table as 'CSV UTF-8'")
    first = text.partition("\n")[0]
    lines = csv.reader(text.splitlines(keepends=True), delimiter=max(",;\t", key=first.count))
    header = [name.strip().lower() for name in next(lines, [])]
    if missing := [name for name in columns if name not in header]:
        raise RestainError(f"{path}: line 1 must name the columns {', '.join(columns)}; {', '.join(missing)} missing.")
    places = {name: header.index(name) for name in (*columns, *optional) if name in header}
    rows = []
    for cells in lines:
        if any(cell.strip() for cell in cells):
            row = dict.fromkeys((*columns, *optional), "")
            row |= {name: cells[place].strip() for name, place in places.items() if place < len(cells)}
            rows.append((lines.line_num, row))
    return rows


def mpp_of(text: str) -> float | None:
    """A cell as micrometres per pixel; None if it is not a number above 0."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None
