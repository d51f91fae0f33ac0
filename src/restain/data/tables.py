"""CSV tables by users, whose first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from restain.errors import RestainError
from restain.files import read_utf8
from restain.images.scale import positive_number
from restain.slides.find import is_there


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


def row_faults(
    line: int, row: dict[str, str], folder: Path, *, needed: Sequence[str], files: Sequence[str], numbers: Sequence[str]
) -> list[str]:
    """Faults of one line that names files: empty cells, files that do not exist, numbers that are not above 0.

    Args:
        line: its number in the table.
        row: cells by column.
        folder: the paths of ``files`` are relative to it.
        needed: columns that must not be empty.
        files: columns of paths; an empty cell names none.
        numbers: columns of numbers; an empty cell states none.
    """
    empty = [name for name in needed if not row[name]]
    found = [f"line {line} has no {' and no '.join(empty)}"] if empty else []
    for name in (name for name in (*files, *numbers) if row[name]):
        if name in files and not is_there(folder / row[name]):
            found.append(f"line {line} names {row[name]}, which does not exist")
        elif name in numbers and positive_number(row[name]) is None:
            found.append(f"line {line} has the {name} {row[name]}, which is not a number above 0")
    return found
