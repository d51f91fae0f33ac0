"""The tables of a data set: one line per pair, per patch that was left out, and per slide pair."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from restain.errors import needs
from restain.files import whole_file

HALF_WEIGHT_UM = 5.0
"""A pair whose estimated misplacement is this large weighs half."""


def pair_weight(error_um: float) -> float:
    """How much a pair is to count in training: 1 / (1 + (e / 5 µm)²) of its estimated misplacement, in (0, 1]."""
    return 1.0 if math.isnan(error_um) else 1 / (1 + (error_um / HALF_WEIGHT_UM) ** 2)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV (UTF-8); floats with six digits that count, NaN and None as nothing.

    Raises:
        RestainError: if the file cannot be written.
    """
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows([_cell(row.get(column)) for column in columns] for row in rows)


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """The same as Parquet, with a type per column; NaN and None are null.

    Raises:
        RestainError: if pyarrow is not installed or the file cannot be written.
    """
    check_parquet()
    import pyarrow
    from pyarrow import parquet

    def clean(value: Any) -> Any:
        return None if isinstance(value, float) and math.isnan(value) else value

    table = pyarrow.table({column: [clean(row.get(column)) for row in rows] for column in columns})
    with whole_file(path) as partial:
        parquet.write_table(table, partial)


def check_parquet() -> None:
    """Raises RestainError if Parquet cannot be written here."""
    with needs("parquet", "A Parquet manifest"):
        import pyarrow.parquet  # noqa: F401


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
