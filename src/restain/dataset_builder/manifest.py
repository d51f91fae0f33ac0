"""Tables of a data set: one line per pair, per rejected patch, and per slide pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from restain.errors import needs
from restain.files import whole_file, write_csv

HALF_WEIGHT_UM = 5.0
"""Estimated misplacement at which a pair has weight 1/2."""


def pair_weight(error_um: float) -> float:
    """Weight of a pair in training, 1 / (1 + (e / 5 µm)²) of its estimated misplacement, in (0, 1]."""
    return 1.0 if math.isnan(error_um) else 1 / (1 + (error_um / HALF_WEIGHT_UM) ** 2)


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV (UTF-8), floats with six significant digits, NaN and None as empty cells.

    Raises:
        RestainError: if the file cannot be written.
    """
    cells = [[_known(row.get(column)) for column in columns] for row in rows]
    write_csv(path, columns, ([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in cells))


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """The same as Parquet, with a type per column; NaN and None are null.

    Raises:
        RestainError: if pyarrow is not installed or the file cannot be written.
    """
    check_parquet()
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({column: [_known(row.get(column)) for row in rows] for column in columns})
    with whole_file(path) as partial:
        parquet.write_table(table, partial)


def check_parquet() -> None:
    """Raises RestainError if Parquet cannot be written here."""
    with needs("parquet", "A Parquet manifest"):
        import pyarrow.parquet  # noqa: F401


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
